//! What a sidecar's `/metrics` says at one moment. It is read more strictly than Prometheus does: whatever is doubtful fails
//! the test.

use std::collections::{BTreeMap, BTreeSet};

use tokio::net::UnixStream;

use super::agent::exchange;
use super::sidecar::Sidecar;

/// The samples of one scrape.
pub(crate) struct Scrape {
    samples: BTreeMap<String, f64>,
    families: BTreeSet<String>,
    /// Those of the samples, which are longer than their family's in a histogram.
    names: BTreeSet<String>,
}

impl Scrape {
    pub(crate) async fn of(sidecar: &Sidecar) -> Self {
        let (head, body) = ask(sidecar, "/metrics").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        let kind = "\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n";
        assert!(head.contains(kind), "{head}");
        Self::read(&body)
    }

    fn read(text: &str) -> Self {
        let mut samples = BTreeMap::new();
        let (mut families, mut names) = (BTreeSet::new(), BTreeSet::new());
        let (mut helped, mut family, mut kind) = ("", "", "");
        assert!(text.ends_with('\n'), "an open line");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                helped = rest.split_once(' ').expect(line).0;
                assert!(families.insert(helped.to_owned()), "twice: {line}");
                names.insert(helped.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                (family, kind) = rest.split_once(' ').expect(line);
                assert_eq!(family, helped, "no help: {line}");
                assert_eq!(kind == "counter", family.ends_with("_total"), "{line}");
            } else {
                let (series, value) = line.rsplit_once(' ').expect(line);
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let suffix = name.strip_prefix(family).expect(line);
                let suffixes: &[&str] = match kind {
                    "counter" | "gauge" => &[""],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => panic!("{kind}"),
                };
                assert!(suffixes.contains(&suffix), "{line}");
                check(labels);
                names.insert(name.to_owned());
                let value: f64 = value.parse().expect(line);
                assert!(value.is_finite(), "{line}");
                let before = samples.insert(series.to_owned(), value);
                assert!(before.is_none(), "twice: {line}");
            }
        }
        Self {
            samples,
            families,
            names,
        }
    }

    /// How many series there are.
    pub(crate) fn len(&self) -> usize {
        self.samples.len()
    }

    /// The names of the families.
    pub(crate) fn families(&self) -> impl Iterator<Item = &str> {
        self.families.iter().map(String::as_str)
    }

    /// Whether there is a metric of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The value of a series, as it is written.
    pub(crate) fn value(&self, series: &str) -> Option<f64> {
        self.samples.get(series).copied()
    }

    /// How far each counter moved that did since another scrape: the totals, and the counts of histograms.
    pub(crate) fn moved_since(&self, before: &Self) -> Vec<(&str, f64)> {
        let counts = self.samples.iter().filter(|(series, _)| {
            let name = series.split('{').next().unwrap_or_default();
            name.ends_with("_total") || name.ends_with("_count")
        });
        let moved = counts.map(|(series, value)| {
            let then = before.value(series).unwrap_or_default();
            (series.as_str(), value - then)
        });
        moved.filter(|(_, by)| *by != 0.0).collect()
    }
}

/// A GET on the admin socket: the head of the answer in lower case but for its first line, and the body.
pub(crate) async fn ask(sidecar: &Sidecar, path: &str) -> (String, String) {
    let stream = UnixStream::connect(sidecar.admin_socket()).await;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = exchange(&mut stream.expect("a socket"), request.as_bytes()).await;
    let answer = String::from_utf8(answer).expect("text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (format!("{head}\r\n"), body.to_owned())
}

/// Fails where labels, which end with their brace, are not `name="value"` one after the other.
fn check(labels: &str) {
    let mut rest = labels;
    while rest != "}" {
        let (name, value) = rest.split_once("=\"").expect(labels);
        let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(!name.is_empty() && name.chars().all(is_name), "{labels}");
        let mut escaped = false;
        let end = value.find(|c| match (std::mem::take(&mut escaped), c) {
            (true, _) => false,
            (false, '\\') => {
                escaped = true;
                false
            }
            (false, c) => c == '"',
        });
        let after = value.get(end.expect(labels) + 1..).expect(labels);
        rest = after.strip_prefix(',').unwrap_or(after);
    }
}
