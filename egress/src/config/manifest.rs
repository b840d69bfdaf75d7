//! The manifest: what an operator writes about bottles and agents.

/// The kind of agent that a bottle is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Template {
    /// Claude Code.
    #[default]
    Claude,
    /// Codex.
    Codex,
    /// The Gemini command line.
    Gemini,
    /// opencode.
    Opencode,
    /// Another one.
    Custom,
}
