//! How what becomes of a request can change, the ways that need most care first.

/// A way in which the outcome of a request changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    /// A credential goes out with it that did not.
    Credential,
    /// It was refused, and is admitted.
    Opened,
    /// It goes out without the credential that it had.
    Stripped,
    /// It was admitted, and is refused.
    Closed,
    /// Something else happens to it.
    Altered,
    /// It may change, and what is known of it does not tell.
    Unknown,
}

/// What becomes of a request, as far as it matters most: whether it is admitted, and with which credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach<'a> {
    /// It is refused.
    Denied,
    /// It is admitted, with this credential or without any.
    Admitted(Option<&'a str>),
}

impl Reach<'_> {
    /// How it changes, if it does.
    pub(crate) fn change_to(self, after: Reach<'_>) -> Option<Change> {
        match (self, after) {
            (Reach::Denied, Reach::Denied) => None,
            (Reach::Denied, Reach::Admitted(None)) => Some(Change::Opened),
            (Reach::Denied, Reach::Admitted(Some(_))) => Some(Change::Credential),
            (Reach::Admitted(_), Reach::Denied) => Some(Change::Closed),
            (Reach::Admitted(before), Reach::Admitted(after)) if before == after => None,
            (Reach::Admitted(_), Reach::Admitted(Some(_))) => Some(Change::Credential),
            (Reach::Admitted(_), Reach::Admitted(None)) => Some(Change::Stripped),
        }
    }
}

impl Change {
    /// The heading over changes of this way.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Credential => "NEWLY REACHED WITH A CREDENTIAL",
            Self::Opened => "opened",
            Self::Stripped => "no longer with a credential",
            Self::Closed => "closed",
            Self::Altered => "otherwise changed",
            Self::Unknown => "cannot be told",
        }
    }

    /// The word for programs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Opened => "opened",
            Self::Stripped => "stripped",
            Self::Closed => "closed",
            Self::Altered => "altered",
            Self::Unknown => "unknown",
        }
    }
}

/// Lines under the headings of their ways, which they are in the order of.
pub(crate) fn headed(lines: impl Iterator<Item = (Change, String)>) -> String {
    let mut text = String::new();
    let mut last = None;
    for (change, line) in lines {
        if last != Some(change) {
            if last.is_some() {
                text.push('\n');
            }
            text.push_str(&format!("{}:\n", change.title()));
            last = Some(change);
        }
        text.push_str(&format!("  {line}\n"));
    }
    text
}
