//! The credential of a route: which header carries it, in which form, and where its value comes from.

use http::header::{self, HeaderName};

use super::super::fault::{Fault, Span};
use super::super::fields::{Field, Fields};
use super::super::values;
use super::keys::{AUTH_SCHEMES, Form};
use crate::credential::SlotName;
use crate::route::{AuthScheme, Injection};

/// The credential of a route in a routes file, and its slot also where something else about it is wrong.
pub(super) fn injection(
    fields: &Fields<'_>,
    faults: &mut Vec<Fault>,
) -> (Option<Injection>, Option<(SlotName, Span)>) {
    let (scheme_field, slot_field) = (fields.find("auth_scheme"), fields.find("token_env"));
    match (scheme_field, slot_field) {
        (Some(scheme), None) if fields.lacks("token_env") => faults.push(
            Fault::new(scheme.key, "`auth_scheme` without `token_env`")
                .key("auth_scheme")
                .hint(
                    "name the slot that holds the credential, such as `token_env: EGRESS_TOKEN_0`",
                ),
        ),
        (None, Some(slot)) if fields.lacks("auth_scheme") => faults.push(
            Fault::new(slot.key, "`token_env` without `auth_scheme`")
                .key("token_env")
                .hint("add `auth_scheme: Bearer` (or Basic, token, raw)"),
        ),
        _ => {}
    }
    let credential = Credential {
        named: scheme_field.is_some() || slot_field.is_some(),
        scheme: scheme_field,
        words: &ROUTES_FILE,
    };
    let shape = credential.shape(fields, faults);
    let slot = slot_field.and_then(|field| Some((values::slot(field, faults)?, field.node.span)));
    let injection = shape
        .zip(slot.clone())
        .map(|((header, scheme), (slot, _))| Injection {
            header,
            scheme,
            slot,
        });
    (injection, slot)
}

/// What a route says about its credential.
pub(super) struct Credential<'d> {
    /// Whether it has one.
    pub(super) named: bool,
    /// Its scheme.
    pub(super) scheme: Option<Field<'d>>,
    /// How the file at hand spells these things.
    pub(super) words: &'static Words,
}

/// How a kind of file spells a credential.
pub(super) struct Words {
    /// The scheme Basic.
    basic: &'static str,
    /// What gives a route a credential.
    add: &'static str,
}

const ROUTES_FILE: Words = Words {
    basic: "auth_scheme: Basic",
    add: "`auth_scheme` and `token_env`",
};

/// The same in a manifest.
pub(super) const MANIFEST: Words = Words {
    basic: "scheme: Basic",
    add: "`auth: {scheme: raw, token_ref: NAME}`",
};

impl Credential<'_> {
    /// The header and the form.
    pub(super) fn shape(
        &self,
        fields: &Fields<'_>,
        faults: &mut Vec<Fault>,
    ) -> Option<(HeaderName, AuthScheme)> {
        let form = self
            .scheme
            .and_then(|field| values::word(field, &AUTH_SCHEMES, faults));
        let header_field = fields.find("auth_header");
        let header = match header_field {
            Some(field) => values::auth_header(field, faults),
            None => Some(header::AUTHORIZATION),
        };
        if let Some(field) = header_field.filter(|_| !self.named) {
            faults.push(
                Fault::new(field.key, "`auth_header` without a credential")
                    .key("auth_header")
                    .hint(format!("add {}, or remove it", self.words.add)),
            );
        }
        let user_field = fields.find("auth_user");
        let user = user_field.and_then(|field| values::auth_user(field, faults));
        self.check_user(form, user_field, fields, faults);
        let scheme = match form? {
            Form::Bearer => AuthScheme::Bearer,
            Form::Basic => AuthScheme::Basic { user: user? },
            Form::Token => AuthScheme::Token,
            Form::Raw => AuthScheme::Raw,
        };
        Some((header?, scheme))
    }

    /// Basic has a user part, and nothing else has.
    fn check_user(
        &self,
        form: Option<Form>,
        user: Option<Field<'_>>,
        fields: &Fields<'_>,
        faults: &mut Vec<Fault>,
    ) {
        let basic = self.words.basic;
        match (form, user, self.scheme) {
            (Some(Form::Basic), None, Some(scheme)) if fields.lacks("auth_user") => faults.push(
                scheme
                    .fault(format!("`{basic}` without `auth_user`"))
                    .hint("add `auth_user`, such as `x-access-token` for git over HTTPS on GitHub"),
            ),
            (Some(Form::Bearer | Form::Token | Form::Raw), Some(user), _)
            | (None, Some(user), None) => faults.push(
                Fault::new(user.key, format!("`auth_user` without `{basic}`"))
                    .key("auth_user")
                    .hint("only Basic has a user part; remove it"),
            ),
            _ => {}
        }
    }
}
