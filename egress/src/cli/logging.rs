//! The log: standard error, as text for people or JSON for programs.

use std::io::IsTerminal as _;
use std::str::FromStr;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt, registry};

/// The log's form.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// One line an event, for people
    #[default]
    Text,
    /// One JSON object an event
    Json,
}

/// What is logged: a level, levels of modules as in `egress=debug,hyper=warn`, or both. What none names is at `info`.
#[derive(Clone, Debug)]
pub(super) struct LogFilter(Targets);

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let targets: Targets = text
            .parse()
            .map_err(|_| "expected a level (off, error, warn, info, debug, trace), or MODULE=LEVEL, with commas between")?;
        let level = targets.default_level().unwrap_or(LevelFilter::INFO);
        Ok(Self(targets.with_default(level)))
    }
}

/// Begins logging.
pub(super) fn begin(format: LogFormat, filter: LogFilter) {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let layer = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_colour);
    let layer = match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .boxed(),
    };
    registry().with(layer).with(filter.0).init();
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::LogFilter;

    #[test]
    fn what_no_directive_names_is_logged_at_info() {
        let LogFilter(targets) = "egress=debug,hyper=off".parse().expect("a filter");
        assert!(targets.would_enable("egress::proxy", &Level::DEBUG));
        assert!(!targets.would_enable("hyper", &Level::ERROR));
        assert!(targets.would_enable("h2", &Level::INFO));
        assert!(!targets.would_enable("h2", &Level::DEBUG));
    }

    #[test]
    fn a_filter_that_would_not_do_what_it_says_is_refused() {
        for text in ["egress=loud", "egress==debug", "a=b=c"] {
            assert!(text.parse::<LogFilter>().is_err(), "{text}");
        }
        let LogFilter(off) = "off".parse().expect("a filter");
        assert!(!off.would_enable("egress", &Level::ERROR));
    }
}
