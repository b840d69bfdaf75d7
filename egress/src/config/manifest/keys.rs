//! The keys of a manifest, down to its routes.

use super::super::keys::{Form, Key, Keys, Others, Unknown};
use super::super::rule;
use super::TEMPLATES;

/// The keys of the file.
pub(in crate::config) static KEYS: Keys = Keys {
    one_of: &["bottles"],
    unknown: |key| {
        Some(match key {
            "routes" => Unknown::Hint(
                "routes stand in a bottle: `bottles: {dev: {egress: {routes: [...]}}}`; a file of routes alone is a routes file".into(),
            ),
            "egress" | "agent_provider" => {
                Unknown::Hint(format!("`{key}` stands in a bottle: `bottles: {{dev: {{{key}: ...}}}}`"))
            }
            _ => return misspelt(key, &["bottles", "agents"]),
        })
    },
    others: Others::ReadOver,
    ..Keys::new(
        "a manifest",
        &[&[
            Key {
                name: "bottles",
                form: Form::Named(&BOTTLE_KEYS),
                about: "Sandboxes by name",
            },
            Key {
                name: "agents",
                form: Form::Named(&AGENT_KEYS),
                about: "Agents by name, each in a bottle",
            },
        ]],
    )
};

/// The keys of a bottle.
pub(super) static BOTTLE_KEYS: Keys = Keys {
    unknown: |key| {
        Some(match key {
            "routes" => {
                Unknown::Hint("routes stand under `egress`: `egress: {routes: [...]}`".into())
            }
            "template" | "forward_host_credentials" => {
                Unknown::Hint(format!("`{key}` stands under `agent_provider`"))
            }
            _ => return misspelt(key, &["egress", "agent_provider"]),
        })
    },
    others: Others::ReadOver,
    ..Keys::new(
        "a bottle",
        &[&[
            Key {
                name: "agent_provider",
                form: Form::Map(&PROVIDER_KEYS),
                about: "Which agent the bottle is for",
            },
            Key {
                name: "egress",
                form: Form::Map(&EGRESS_KEYS),
                about: "What the agent may reach",
            },
        ]],
    )
};

/// The keys of an agent.
pub(super) static AGENT_KEYS: Keys = Keys {
    one_of: &["bottle"],
    others: Others::ReadOver,
    unknown: |key| misspelt(key, &["bottle"]),
    ..Keys::new(
        "an agent",
        &[&[Key {
            name: "bottle",
            form: Form::Written,
            about: "The name of the agent's bottle",
        }]],
    )
};

/// The keys of `agent_provider`.
pub(super) static PROVIDER_KEYS: Keys = Keys::new(
    "`agent_provider`",
    &[&[
        Key {
            name: "template",
            form: Form::Word(|| TEMPLATES.iter().map(|(word, _)| *word).collect()),
            about: "The kind of agent; left out: claude",
        },
        Key {
            name: "dockerfile",
            form: Form::Text,
            about: "A Dockerfile of your own",
        },
        Key {
            name: "forward_host_credentials",
            form: Form::Flag,
            about: "Whether the host's Codex login is lent to the agent; left out: false",
        },
    ]],
);

/// The keys of `egress`.
pub(super) static EGRESS_KEYS: Keys = Keys::new(
    "`egress`",
    &[&[Key {
        name: "routes",
        form: Form::Maps(&rule::keys::MANIFEST_KEYS),
        about: "The routes; a request that none of them admits is denied",
    }]],
);

/// A key that is one slip away from one of ours. Others belong to other parts of the sandbox; but to read over this one
/// would be to read over what was meant for us.
fn misspelt(key: &str, known: &[&'static str]) -> Option<Unknown> {
    let folded = key.to_ascii_lowercase().replace('-', "_");
    let near = |word: &&&str| strsim::damerau_levenshtein(&folded, word) <= 1;
    known.iter().find(near).map(|word| Unknown::Meant(word))
}
