//! What the demo shows. The token is masked here, in every line, whoever wrote it.
//!
//! A closed standard output (`egress demo | head -3`) ends the showing and not the test.

use std::io::{self, Write as _};

use anyhow::Context as _;

use crate::cli::Failure;
use crate::config::Colour;

/// Standard output, in titles and lines with the side that they are about.
#[derive(Debug)]
pub(super) struct Screen {
    colour: Colour,
    token: String,
    mask: String,
    written: io::Result<()>,
}

impl Screen {
    pub(super) fn of_stdout(token: &str) -> Self {
        let last = token.len().saturating_sub(SHOWN);
        Self {
            colour: Colour::of_stdout(),
            token: token.into(),
            mask: format!("{STARS}{}", token.get(last..).unwrap_or_default()),
            written: Ok(()),
        }
    }

    /// A step's title, after a blank line.
    pub(super) fn title(&mut self, text: &str) {
        self.line("");
        self.painted(BOLD, text, "");
    }

    /// What one side sent or got. Without a side it goes on with the line before.
    pub(super) fn side(&mut self, side: &str, text: &str) {
        self.painted(DIM, &format!("   {side:<15}"), text);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.line(&format!("  {text}"));
    }

    /// What must not be overlooked.
    pub(super) fn alarm(&mut self, text: &str) {
        self.line("");
        self.painted(RED, text, "");
    }

    /// Whether all could be written. A reader who went away is no fault.
    pub(super) fn finish(self) -> Result<(), Failure> {
        match self.written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error)
                .context("cannot write to standard output")
                .map_err(Failure::runtime),
            _ => Ok(()),
        }
    }

    fn painted(&mut self, style: &str, head: &str, tail: &str) {
        match self.colour {
            Colour::Always => self.line(&format!("{style}{head}{PLAIN}{tail}")),
            Colour::Never => self.line(&format!("{head}{tail}")),
        }
    }

    fn line(&mut self, text: &str) {
        if self.written.is_ok() {
            let masked = text.replace(&self.token, &self.mask);
            self.written = writeln!(io::stdout(), "{}", masked.trim_end());
        }
    }
}

/// How many of the token's last characters are shown, and what stands for the others.
const SHOWN: usize = 4;
const STARS: &str = "************";

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[1;31m";
const PLAIN: &str = "\x1b[0m";
