//! Every way in which a login file changes, by its own thread's ear and by the tick.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::mpsc;

use super::*;
use crate::launch::login::tests::{login, write_login};

/// Longer than any change may take, and less than a wait that was in vain should.
const SOON: Duration = Duration::from_secs(1);

/// Long enough for every tick and for a file to settle.
const NOTHING: Duration = Duration::from_millis(900);

fn follower(path: &Path) -> Follower {
    let login = Login::read(path, SystemTime::now()).unwrap();
    let mut follower = Follower::new(&login);
    assert!(follower.next(Duration::ZERO).is_none());
    follower
}

fn renewed(follower: &mut Follower, token: &str) -> Box<Login> {
    match follower.next(SOON) {
        Some(Change::Renewed(login)) => {
            assert_eq!(login.token().expose(), token);
            assert!(!login.dummy().as_str().contains(token));
            login
        }
        other => panic!("{other:?}"),
    }
}

fn kept(follower: &mut Follower) -> &'static str {
    match follower.next(SOON) {
        Some(Change::Kept(why)) => why.code(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_that_is_of_no_use_is_told_once_and_the_last_good_one_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    write_login(&path, 3600, "one");
    let mut follower = follower(&path);
    let (expired, _) = login(-1, "two");
    let logged_out = r#"{"auth_mode": "chatgpt", "OPENAI_API_KEY": null, "tokens": null}"#;
    for (text, code) in [
        ("{\"auth_mode\":", "not_json"),
        (logged_out, "no_tokens"),
        (&expired, "expired"),
        (r#"{"OPENAI_API_KEY": "sk-x"}"#, "api_key"),
    ] {
        fs::write(&path, text).unwrap();
        assert_eq!(kept(&mut follower), code);
        // The same again is the same state, also where it is written anew.
        fs::write(&path, format!("{text} ")).unwrap();
        assert!(follower.next(NOTHING).is_none(), "{code}");
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(kept(&mut follower), "missing");
    let token = write_login(&path, 3600, "three");
    renewed(&mut follower, &token);
    // A state that comes back is told again.
    fs::remove_file(&path).unwrap();
    assert_eq!(kept(&mut follower), "missing");
}

#[test]
fn a_file_that_is_written_in_pieces_is_only_told_of_when_it_is_whole() {
    use std::io::Write as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    write_login(&path, 3600, "one");
    let mut follower = follower(&path);
    let (text, token) = login(3600, "two");
    let (first, second) = text.split_at(text.len() / 2);
    let mut file = fs::File::create(&path).unwrap();
    assert!(follower.next(Duration::from_millis(20)).is_none());
    file.write_all(first.as_bytes()).unwrap();
    assert!(follower.next(Duration::from_millis(20)).is_none());
    file.write_all(second.as_bytes()).unwrap();
    renewed(&mut follower, &token);
}

#[test]
fn the_same_login_written_again_is_no_change() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    write_login(&path, 3600, "one");
    let text = fs::read(&path).unwrap();
    let mut follower = follower(&path);
    fs::write(&path, text).unwrap();
    assert!(follower.next(NOTHING).is_none());
}

#[test]
fn a_change_between_the_reading_and_the_following_is_found_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    write_login(&path, 3600, "one");
    let login = Login::read(&path, SystemTime::now()).unwrap();
    let token = write_login(&path, 3601, "two");
    let mut follower = Follower::new(&login);
    match follower.next(Duration::ZERO) {
        Some(Change::Renewed(login)) => assert_eq!(login.token().expose(), token),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_way_to_another_login_is_followed() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let at = |name: &str| root.join(name);
    for name in ["home", "dotfiles", "others"] {
        fs::create_dir(at(name)).unwrap();
    }
    // ~/.codex is a link, and auth.json in it is one into yet another directory.
    symlink("../dotfiles", at("home/.codex")).unwrap();
    symlink("../others/login.json", at("dotfiles/auth.json")).unwrap();
    write_login(&at("others/login.json"), 3600, "one");
    let mut follower = follower(&at("home/.codex/auth.json"));

    let token = write_login(&at("others/login.json"), 3600, "replaced-where-it-is");
    renewed(&mut follower, &token);
    let (text, token) = login(3600, "written-in-place");
    fs::write(at("others/login.json"), text).unwrap();
    renewed(&mut follower, &token);

    let token = write_login(&at("others/second.json"), 3600, "another-link");
    symlink("../others/second.json", at("dotfiles/staged")).unwrap();
    fs::rename(at("dotfiles/staged"), at("dotfiles/auth.json")).unwrap();
    renewed(&mut follower, &token);

    let token = write_login(
        &at("dotfiles/auth.json"),
        3600,
        "a-file-in-place-of-the-link",
    );
    renewed(&mut follower, &token);

    fs::create_dir(at("fresh")).unwrap();
    let token = write_login(&at("fresh/auth.json"), 3600, "another-directory");
    fs::rename(at("dotfiles"), at("old")).unwrap();
    fs::rename(at("fresh"), at("dotfiles")).unwrap();
    renewed(&mut follower, &token);
    let token = write_login(&at("dotfiles/auth.json"), 3600, "within-that-directory");
    renewed(&mut follower, &token);

    fs::create_dir(at("home/made")).unwrap();
    let token = write_login(&at("home/made/auth.json"), 3600, "a-directory-for-the-link");
    fs::remove_file(at("home/.codex")).unwrap();
    fs::rename(at("home/made"), at("home/.codex")).unwrap();
    renewed(&mut follower, &token);
}

#[test]
fn the_tick_finds_what_nobody_tells() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    write_login(&path, 3600, "one");
    let mut follower = follower(&path);
    follower.watch.deafen();
    let token = write_login(&path, 3600, "two");
    renewed(&mut follower, &token);
}

#[test]
fn a_thread_tells_of_changes_until_it_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    write_login(&path, 3600, "one");
    let (told, changes) = mpsc::channel();
    let following = follower(&path)
        .spawn(move |change| told.send(change).unwrap())
        .unwrap();
    let token = write_login(&path, 3600, "two");
    match changes.recv_timeout(SOON) {
        Ok(Change::Renewed(login)) => assert_eq!(login.token().expose(), token),
        other => panic!("{other:?}"),
    }
    drop(following);
    // The thread has gone, and its end of the channel with it.
    assert!(matches!(
        changes.try_recv(),
        Err(mpsc::TryRecvError::Disconnected)
    ));
}
