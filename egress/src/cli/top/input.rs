//! What a key means. Pure.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::model::View;

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// To leave.
    Quit,
    /// Another list.
    Show(View),
    /// The list beside it.
    Next,
    /// The list before it.
    Previous,
    /// To go so many lines down, or up where it is negative.
    Move(isize),
    /// To see all about the line.
    Open,
    /// Back to where they came from.
    Back,
    /// That nothing moves, or that it does again.
    Pause,
    /// The keys.
    Help,
    /// The suggestion, to paste elsewhere.
    Copy,
    /// To type a filter.
    Filter,
    /// A character of it.
    Type(char),
    /// One character less.
    Erase,
    /// That the filter is as it should be.
    Accept,
}

/// What a key wants, where it wants anything.
pub(super) fn action(key: KeyEvent, is_typing: bool) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Action::Quit);
    }
    match is_typing {
        true => typed(key.code),
        false => pressed(key.code),
    }
}

fn typed(code: KeyCode) -> Option<Action> {
    Some(match code {
        KeyCode::Char(char) if !char.is_control() => Action::Type(char),
        KeyCode::Backspace => Action::Erase,
        KeyCode::Enter => Action::Accept,
        KeyCode::Esc => Action::Back,
        _ => return None,
    })
}

fn pressed(code: KeyCode) -> Option<Action> {
    Some(match code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char('1') => Action::Show(View::Requests),
        KeyCode::Char('2') => Action::Show(View::Hosts),
        KeyCode::Char('3') => Action::Show(View::Refusals),
        KeyCode::Char('4') => Action::Show(View::Sidecar),
        KeyCode::Tab | KeyCode::Right => Action::Next,
        KeyCode::BackTab | KeyCode::Left => Action::Previous,
        KeyCode::Down | KeyCode::Char('j') => Action::Move(1),
        KeyCode::Up | KeyCode::Char('k') => Action::Move(-1),
        KeyCode::PageDown => Action::Move(PAGE),
        KeyCode::PageUp => Action::Move(-PAGE),
        KeyCode::Home | KeyCode::Char('g') => Action::Move(isize::MIN),
        KeyCode::End | KeyCode::Char('G') => Action::Move(isize::MAX),
        KeyCode::Enter => Action::Open,
        KeyCode::Esc => Action::Back,
        KeyCode::Char(' ') => Action::Pause,
        KeyCode::Char('?') => Action::Help,
        KeyCode::Char('y') => Action::Copy,
        KeyCode::Char('/') => Action::Filter,
        _ => return None,
    })
}

const PAGE: isize = 10;

#[cfg(test)]
mod tests {
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::{Action, action};

    #[test]
    fn what_is_typed_into_the_filter_is_no_command_and_ctrl_c_always_is() {
        let key = |code| KeyEvent::new(code, KeyModifiers::NONE);
        let quit = key(KeyCode::Char('q'));
        assert_eq!(action(quit, false), Some(Action::Quit));
        assert_eq!(action(quit, true), Some(Action::Type('q')));
        let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        for is_typing in [false, true] {
            assert_eq!(action(interrupt, is_typing), Some(Action::Quit));
        }
        assert_eq!(action(key(KeyCode::F(1)), false), None);
    }
}
