//! The proxy's variables, and whether a sidecar answers where they lead.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Variables;
use super::exchange::{Answer, Problem};
use super::report::Finding;
use crate::launch::variables::{PROXY_VARIABLES, ProxyUrl};
use crate::proxy::upstream;
use crate::route::host::{Host, HostPattern};

/// Whether all clients would go to one proxy, and to which.
pub(super) fn variables(variables: &Variables) -> (Finding, Option<ProxyUrl>) {
    const NAME: &str = "proxy.variables";
    const HINT: &str =
        "set all of them to one URL, as `egress env` does: some clients read one, some another";
    let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in PROXY_VARIABLES {
        places
            .entry(variables.get(name).unwrap_or_default())
            .or_default()
            .push(name);
    }
    let unset = places.remove("").unwrap_or_default();
    let first = PROXY_VARIABLES
        .iter()
        .find_map(|name| variables.get(name))
        .unwrap_or_default();
    let url = match ProxyUrl::parse(first) {
        Ok(url) => url,
        Err(error) => {
            let text = format!("{}: {error}", without_login(first));
            return (Finding::fail(NAME, text, error.hint()), None);
        }
    };
    let finding = if places.len() > 1 {
        let lists = places
            .iter()
            .map(|(url, names)| format!("{} in {}", without_login(url), names.join(", ")));
        let lists: Vec<_> = lists.collect();
        let text = format!("they contradict each other: {}", lists.join("; "));
        Finding::fail(NAME, text, HINT)
    } else if !unset.is_empty() {
        Finding::warn(NAME, format!("not set: {}", unset.join(", ")), HINT)
    } else {
        let text = format!(
            "all {} name {}",
            PROXY_VARIABLES.len(),
            without_login(first)
        );
        Finding::ok(NAME, text)
    };
    (finding, Some(url))
}

/// Whether clients go around the proxy where they should go through it.
pub(super) fn bypass(variables: &Variables, routed: &[HostPattern]) -> Finding {
    const NAME: &str = "proxy.bypass";
    const HINT: &str =
        "set NO_PROXY and no_proxy to `localhost,127.0.0.1,::1`, as `egress env` does";
    let [upper, lower] =
        ["NO_PROXY", "no_proxy"].map(|name| variables.get(name).unwrap_or_default());
    let all: Vec<&str> = entries_of(upper).chain(entries_of(lower)).collect();
    let routed = all
        .iter()
        .find_map(|entry| Some((entry, routed.iter().find(|host| covers(entry, host))?)));
    if let Some((entry, host)) = routed {
        let text = format!("NO_PROXY has {entry}, so that clients go around the proxy for {host}");
        return Finding::fail(NAME, text, HINT);
    }
    if all.contains(&"*") {
        let text = "NO_PROXY is `*`, so that clients go around the proxy for every host";
        return Finding::fail(NAME, text, HINT);
    }
    if let Some(entry) = all.iter().find(|entry| !is_loopback(entry)) {
        let text = format!("NO_PROXY has {entry}, for which clients go around the proxy");
        return Finding::warn(NAME, text, HINT);
    }
    if upper != lower {
        let text = "NO_PROXY and no_proxy differ: some clients read one, some the other";
        return Finding::warn(NAME, text, HINT);
    }
    Finding::ok(
        NAME,
        "no host but this machine's own is reached around the proxy",
    )
}

fn entries_of(list: &str) -> impl Iterator<Item = &str> {
    list.split([',', ' ']).filter(|entry| !entry.is_empty())
}

/// Clients read an entry as a name with all below it; a port behind it narrows it.
fn covers(entry: &str, host: &HostPattern) -> bool {
    let suffix = entry.trim_start_matches("*").trim_start_matches('.');
    let suffix = suffix.split(':').next().unwrap_or_default();
    let name = match host {
        HostPattern::Exact(host) => host.to_string(),
        HostPattern::OneLabelBelow(parent) => parent.to_string(),
    };
    let Ok(Host::Name(suffix)) = Host::parse(suffix) else {
        return entry == name;
    };
    name == *suffix
        || name
            .strip_suffix(&*suffix)
            .is_some_and(|rest| rest.ends_with('.'))
}

fn is_loopback(entry: &str) -> bool {
    let entry = entry.trim_start_matches('[').trim_end_matches(']');
    let is_network = entry.split('/').next().is_some_and(|address| {
        address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
    });
    is_network || entry == "localhost" || entry == ".localhost"
}

/// What is said when a host is asked for that no route names.
pub(super) fn answer(proxy: &upstream::ProxyUrl, answer: &Result<Answer, Problem>) -> Finding {
    const NAME: &str = "proxy.answer";
    let place = proxy.origin();
    match answer {
        Ok(Answer {
            code: Some(code), ..
        }) if code == "client_auth_required" => Finding::fail(
            NAME,
            format!("the sidecar at {place} asks for a user and a password"),
            "put them into the proxy variables: http://USER:PASSWORD@HOST:PORT",
        ),
        Ok(Answer { code: Some(_), .. }) => {
            Finding::ok(NAME, format!("a sidecar answers at {place}"))
        }
        Ok(Answer { status, .. }) => Finding::fail(
            NAME,
            format!(
                "something else than a sidecar answers at {place}: {status} without x-egress-error"
            ),
            "look what listens there, and set the proxy variables to the sidecar's address",
        ),
        Err(Problem::Connect(reason)) => Finding::fail(
            NAME,
            format!("nothing answers at {place}: {reason}"),
            "start the sidecar (`egress serve`), or set the proxy variables to where it listens",
        ),
        Err(Problem::Protocol(reason)) => Finding::fail(
            NAME,
            format!("something else than a sidecar answers at {place}: {reason}"),
            "look what listens there, and set the proxy variables to the sidecar's address",
        ),
    }
}

/// A URL as it may be shown.
fn without_login(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, place))) => format!("{scheme}://{place}"),
        (None, Some((_, place))) => place.into(),
        (_, None) => url.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{bypass, variables};
    use crate::cli::doctor::Variables;
    use crate::launch::variables::PROXY_VARIABLES;

    const URL: &str = "http://127.0.0.1:8080";

    fn all(url: &str) -> Variables {
        Variables::of(PROXY_VARIABLES.map(|name| (name, url)))
    }

    #[test]
    fn one_proxy_in_all_variables_is_as_it_should_be() {
        let (found, url) = variables(&all(URL));
        assert!(
            found.is("ok", "all 6 name http://127.0.0.1:8080"),
            "{found:?}"
        );
        assert_eq!(url.unwrap().as_str(), URL);
    }

    #[test]
    fn a_contradiction_is_told_without_a_password() {
        let set = all(URL).with("https_proxy", "http://user:geheim@other.test:1");
        let (found, _) = variables(&set);
        assert!(
            found.is("fail", "http://other.test:1 in https_proxy"),
            "{found:?}"
        );
        assert!(!format!("{found:?}").contains("geheim"));
    }

    #[test]
    fn a_variable_that_is_not_set_is_a_warning_and_a_bad_url_none() {
        let (found, url) = variables(&all(URL).with("ALL_PROXY", ""));
        assert!(found.is("warn", "not set: ALL_PROXY"), "{found:?}");
        assert!(url.is_some());
        let (found, url) = variables(&all("127.0.0.1:8080"));
        assert!(found.is("fail", "does not begin with http://"), "{found:?}");
        assert!(url.is_none());
    }

    #[test]
    fn a_way_around_the_proxy_is_told() {
        let routed = ["api.test", "*.cdn.test"].map(|host| host.parse().unwrap());
        let of = |upper: &str, lower: &str| {
            bypass(
                &Variables::of([("NO_PROXY", upper), ("no_proxy", lower)]),
                &routed,
            )
        };
        let own = "localhost,127.0.0.1,::1";
        for (upper, lower, state, text) in [
            (own, own, "ok", ""),
            ("", "", "ok", ""),
            ("127.0.0.0/8 [::1]", "127.0.0.0/8 [::1]", "ok", ""),
            (own, "", "warn", "differ"),
            ("other.test", "other.test", "warn", "other.test"),
            ("apiXtest,api.test.other", "", "warn", "apiXtest"),
            ("*", "*", "fail", "every host"),
            (own, "api.test", "fail", "for api.test"),
            ("API.test:443", own, "fail", "for api.test"),
            (".test", own, "fail", "for api.test"),
            ("*.cdn.test", own, "fail", "for *.cdn.test"),
        ] {
            let found = of(upper, lower);
            assert!(found.is(state, text), "{upper} {lower}: {found:?}");
        }
    }
}
