//! The agent's `config.toml`: of the host's file what an allowlist names, and the workspace as a trusted project.
//!
//! An allowlist, since that file holds tokens in many places (the environment and headers of MCP servers and of model
//! providers, exporters, commands that are run on events), and a version of Codex that nobody has seen yet may have more.
//! Comments are left out as well: what was commented out may be a key. Pure.

use std::path::Path;

use toml_edit::{DocumentMut, Item, Table, Value, value};

use crate::launch::agent::Setting;

/// The file, and what the operator should hear of it.
pub(super) struct Config {
    pub(super) text: String,
    pub(super) note: Option<String>,
}

/// The agent's file, made of the host's where there is one.
pub(super) fn for_agent(host: Option<&[u8]>, setting: &Setting<'_>) -> Config {
    let mut made = DocumentMut::new();
    let note = host.and_then(|bytes| {
        let parsed = std::str::from_utf8(bytes)
            .ok()
            .and_then(|text| text.parse::<DocumentMut>().ok());
        let Some(host) = parsed else {
            return Some("the host's Codex config.toml is not TOML; none of it is copied".into());
        };
        let mut left_out = Vec::new();
        copy(host.as_table(), made.as_table_mut(), TOP, "", &mut left_out);
        // The host's projects are trusted on the host.
        left_out.retain(|name| name != "projects");
        (!left_out.is_empty()).then(|| {
            format!(
                "of the host's Codex config.toml these are left out: {}",
                left_out.join(", ")
            )
        })
    });
    trust(&mut made, setting.workspace);
    Config {
        text: made.to_string(),
        note,
    }
}

fn trust(document: &mut DocumentMut, workspace: &Path) {
    let mut entry = Table::new();
    entry.insert("trust_level", value("trusted"));
    let mut projects = Table::new();
    projects.set_implicit(true);
    projects.insert(&workspace.to_string_lossy(), Item::Table(entry));
    document.insert("projects", Item::Table(projects));
}

/// What may be copied from behind a key.
#[derive(Clone, Copy)]
enum Allowed {
    /// A boolean, a number, or a short plain word.
    Plain,
    /// A table in which these keys may be.
    Table(&'static [(&'static str, Allowed)]),
    /// A table of booleans with any names.
    Flags,
    /// A table of such tables under names of the user's own.
    Named(&'static [(&'static str, Allowed)]),
}

fn copy(
    from: &Table,
    to: &mut Table,
    allowed: &[(&str, Allowed)],
    prefix: &str,
    left_out: &mut Vec<String>,
) {
    for (name, item) in from {
        let rule = allowed.iter().find(|(known, _)| *known == name);
        let copied = rule.and_then(|(_, rule)| copied(item, *rule, name, left_out));
        match copied {
            Some(item) => _ = to.insert(name, item),
            None => left_out.push(format!("{prefix}{}", name.escape_debug())),
        }
    }
}

fn copied(item: &Item, rule: Allowed, name: &str, left_out: &mut Vec<String>) -> Option<Item> {
    let prefix = format!("{name}.");
    match rule {
        Allowed::Plain => plain(item.as_value()?).map(Item::Value),
        Allowed::Table(allowed) => {
            let mut table = Table::new();
            copy(&table_of(item)?, &mut table, allowed, &prefix, left_out);
            Some(Item::Table(table))
        }
        Allowed::Flags => {
            let mut table = Table::new();
            for (name, item) in &table_of(item)? {
                match item.as_bool().filter(|_| is_word(name)) {
                    Some(flag) => _ = table.insert(name, value(flag)),
                    None => left_out.push(format!("{prefix}{}", name.escape_debug())),
                }
            }
            Some(Item::Table(table))
        }
        Allowed::Named(allowed) => {
            let mut named = Table::new();
            named.set_implicit(true);
            for (name, item) in &table_of(item)? {
                let prefix = format!("{prefix}{}.", name.escape_debug());
                match table_of(item).filter(|_| is_word(name)) {
                    Some(from) => {
                        let mut table = Table::new();
                        copy(&from, &mut table, allowed, &prefix, left_out);
                        named.insert(name, Item::Table(table));
                    }
                    None => left_out.push(prefix.trim_end_matches('.').into()),
                }
            }
            Some(Item::Table(named))
        }
    }
}

/// A table, however it is written: under a header, with dots, or in braces.
fn table_of(item: &Item) -> Option<Table> {
    item.clone().into_table().ok()
}

/// The value alone, as it is spelt, without the blanks and comments around it.
fn plain(found: &Value) -> Option<Value> {
    let fits = match found {
        Value::Boolean(_) | Value::Integer(_) | Value::Float(_) => true,
        Value::String(text) => is_word(text.value()),
        Value::Array(_) | Value::InlineTable(_) | Value::Datetime(_) => false,
    };
    fits.then(|| {
        let mut value = found.clone();
        value.decor_mut().clear();
        value
    })
}

/// A word of a setting: no text that could be a key, a path of the host or a URL.
fn is_word(text: &str) -> bool {
    const MOST: usize = 40;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=MOST).contains(&text.len()) && text.chars().all(fits)
}

/// How the model is asked, and how much.
const MODEL: &[(&str, Allowed)] = &[
    ("approval_policy", Allowed::Plain),
    ("model", Allowed::Plain),
    ("model_reasoning_effort", Allowed::Plain),
    ("model_reasoning_summary", Allowed::Plain),
    ("model_verbosity", Allowed::Plain),
    ("personality", Allowed::Plain),
    ("plan_mode_reasoning_effort", Allowed::Plain),
    ("sandbox_mode", Allowed::Plain),
    ("service_tier", Allowed::Plain),
    ("web_search", Allowed::Plain),
];

const TOP: &[(&str, Allowed)] = &[
    ("approval_policy", Allowed::Plain),
    ("check_for_update_on_startup", Allowed::Plain),
    ("disable_paste_burst", Allowed::Plain),
    ("features", Allowed::Flags),
    ("file_opener", Allowed::Plain),
    ("hide_agent_reasoning", Allowed::Plain),
    (
        "history",
        Allowed::Table(&[
            ("max_bytes", Allowed::Plain),
            ("persistence", Allowed::Plain),
        ]),
    ),
    ("model", Allowed::Plain),
    ("model_auto_compact_token_limit", Allowed::Plain),
    ("model_context_window", Allowed::Plain),
    ("model_reasoning_effort", Allowed::Plain),
    ("model_reasoning_summary", Allowed::Plain),
    ("model_supports_reasoning_summaries", Allowed::Plain),
    ("model_verbosity", Allowed::Plain),
    ("notice", Allowed::Flags),
    ("personality", Allowed::Plain),
    ("plan_mode_reasoning_effort", Allowed::Plain),
    ("profile", Allowed::Plain),
    ("profiles", Allowed::Named(MODEL)),
    ("project_doc_max_bytes", Allowed::Plain),
    ("review_model", Allowed::Plain),
    ("sandbox_mode", Allowed::Plain),
    (
        "sandbox_workspace_write",
        Allowed::Table(&[
            ("exclude_slash_tmp", Allowed::Plain),
            ("exclude_tmpdir_env_var", Allowed::Plain),
            ("network_access", Allowed::Plain),
        ]),
    ),
    ("service_tier", Allowed::Plain),
    ("show_raw_agent_reasoning", Allowed::Plain),
    ("suppress_unstable_features_warning", Allowed::Plain),
    ("tool_output_token_limit", Allowed::Plain),
    ("tools", Allowed::Flags),
    (
        "tui",
        Allowed::Table(&[
            ("alternate_screen", Allowed::Plain),
            ("animations", Allowed::Plain),
            ("notifications", Allowed::Plain),
            ("show_tooltips", Allowed::Plain),
            ("theme", Allowed::Plain),
        ]),
    ),
    ("web_search", Allowed::Plain),
];

#[cfg(test)]
mod tests;
