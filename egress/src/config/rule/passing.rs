//! What a route says about cookies, credentials in a query and the credential's echo. Their defaults hang on whether a
//! credential is injected, which a manifest's route may come to know later than its keys.

use super::super::fault::Fault;
use super::super::fields::Fields;
use super::super::values;
use super::keys::QUERY_CREDENTIALS;
use crate::route::Rule;
use crate::route::passing::{Cookies, QueryCredentials, Redact};

/// What is said; `None` is the default.
#[derive(Clone, Debug, Default)]
pub(in crate::config) struct Passing {
    pub(in crate::config) cookies: Option<Cookies>,
    pub(in crate::config) query_credentials: Option<QueryCredentials>,
    pub(in crate::config) redact: Option<Redact>,
}

impl Passing {
    pub(super) fn read(fields: &Fields<'_>, faults: &mut Vec<Fault>) -> Self {
        let cookies = fields.find("cookies");
        let query_credentials = fields.find("query_credentials");
        let redact = fields.find("redact");
        Self {
            cookies: cookies.and_then(|field| values::cookies(field, faults)),
            query_credentials: query_credentials
                .and_then(|field| values::word(field, &QUERY_CREDENTIALS, faults)),
            redact: redact
                .and_then(|field| field.flag(faults))
                .map(|mask| match mask {
                    true => Redact::Mask,
                    false => Redact::Pass,
                }),
        }
    }

    /// What a rule must have been told, since it is not the default.
    pub(in crate::config) fn of(rule: &Rule) -> Self {
        let injects = rule.injection.is_some();
        let said = |cookies: &Cookies| *cookies != Cookies::usual(injects);
        Self {
            cookies: Some(rule.cookies.clone()).filter(said),
            query_credentials: Some(rule.query_credentials)
                .filter(|said| *said != QueryCredentials::usual(injects)),
            redact: Some(rule.redact).filter(|said| *said != Redact::usual(injects)),
        }
    }

    /// Puts into a rule what is said, and the defaults for the rest.
    pub(in crate::config) fn settle(&self, rule: &mut Rule, injects: bool) {
        let cookies = self.cookies.clone();
        rule.cookies = cookies.unwrap_or_else(|| Cookies::usual(injects));
        let query_credentials = self.query_credentials;
        rule.query_credentials =
            query_credentials.unwrap_or_else(|| QueryCredentials::usual(injects));
        rule.redact = self.redact.unwrap_or_else(|| Redact::usual(injects));
    }
}
