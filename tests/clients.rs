//! Real clients, pinned, in the environment that `egress env` describes: what a user runs is what is tested.
//! Nothing here is skipped. A missing tool fails the test and says what to install.

mod claude;
mod codex;
mod curl;
mod git;
mod homes;
mod node;
mod python;
