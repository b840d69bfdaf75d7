//! Which directories and files are refused, and that a pair is replaced as one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

fn pair(text: &str) -> Pair {
    let text = || Zeroizing::new(text.to_owned());
    Pair {
        certificate: text(),
        key: text(),
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn reread(dir: &Path) -> Result<Option<Pair>, Error> {
    Store::open(dir)?.read()
}

/// A directory with a pair in it.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Store::open(dir.path()).unwrap().write(&pair("x")).unwrap();
    dir
}

#[test]
fn a_directory_that_others_can_write_is_refused() {
    for open in [0o770, 0o707, 0o720, 0o1777] {
        let dir = filled();
        set_mode(dir.path(), open);
        let refused = reread(dir.path());
        assert!(
            matches!(refused, Err(Error::DirectoryWritable { mode, .. }) if mode == open),
            "{open:o}"
        );
    }
}

#[test]
fn a_key_with_any_permission_for_others_is_refused() {
    for open in [0o640, 0o604, 0o610, 0o602] {
        let dir = filled();
        set_mode(&dir.path().join(KEY.name), open);
        let refused = reread(dir.path());
        assert!(
            matches!(refused, Err(Error::KeyNotPrivate { mode, .. }) if mode == open),
            "{open:o}"
        );
    }
    let dir = filled();
    set_mode(&dir.path().join(KEY.name), 0o400);
    assert!(reread(dir.path()).unwrap().is_some());
}

#[test]
fn a_certificate_that_others_can_write_is_refused() {
    let dir = filled();
    set_mode(&dir.path().join(CERTIFICATE.name), 0o664);
    assert!(matches!(
        reread(dir.path()),
        Err(Error::CertificateWritable { .. })
    ));
}

#[test]
fn files_and_directories_of_somebody_else_are_refused() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can give a file away.
    }
    let stranger = Some(rustix::fs::Uid::from_raw(12345));
    for name in [KEY.name, CERTIFICATE.name, "."] {
        let dir = filled();
        rustix::fs::chown(dir.path().join(name), stranger, None).unwrap();
        assert!(
            matches!(
                reread(dir.path()),
                Err(Error::ForeignOwner { owner: 12345, .. })
            ),
            "{name}"
        );
    }
}

#[test]
fn what_is_not_a_regular_file_is_refused() {
    for entry in [&KEY, &CERTIFICATE] {
        let dir = filled();
        let path = dir.path().join(entry.name);
        fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        symlink("elsewhere", &path).unwrap();
        assert!(
            matches!(reread(dir.path()), Err(Error::NotRegular { path: named }) if named == path)
        );
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(reread(dir.path()), Err(Error::NotRegular { .. })));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_fifo_is_refused_and_not_waited_for() {
    let dir = filled();
    let path = dir.path().join(KEY.name);
    fs::remove_file(&path).unwrap();
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert!(matches!(reread(dir.path()), Err(Error::NotRegular { .. })));
}

#[test]
fn half_a_pair_is_refused() {
    for (gone, left) in [(&KEY, &CERTIFICATE), (&CERTIFICATE, &KEY)] {
        let dir = filled();
        fs::remove_file(dir.path().join(gone.name)).unwrap();
        let Err(Error::HalfPair { present, missing }) = reread(dir.path()) else {
            panic!("without {}", gone.name);
        };
        assert_eq!(
            (present, missing),
            (dir.path().join(left.name), dir.path().join(gone.name))
        );
    }
}

#[test]
fn what_is_no_text_or_too_large_is_refused() {
    for garbage in [vec![0xff; 10], vec![b'a'; 64 * 1024 + 1]] {
        let dir = filled();
        fs::write(dir.path().join(CERTIFICATE.name), &garbage).unwrap();
        assert!(matches!(
            reread(dir.path()),
            Err(Error::BadCertificate { .. })
        ));
        let dir = filled();
        fs::write(dir.path().join(KEY.name), &garbage).unwrap();
        assert!(matches!(reread(dir.path()), Err(Error::BadKey { .. })));
    }
}

#[test]
fn a_lock_that_is_never_given_up_is_not_waited_for_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let held = Store::open(dir.path()).unwrap();
    let refused = Store::open_within(dir.path(), Duration::from_millis(20));
    assert!(matches!(refused, Err(Error::Busy { .. })));
    drop(held);
    assert!(Store::open_within(dir.path(), Duration::ZERO).is_ok());
}

#[test]
fn a_missing_directory_is_made_private_and_empty() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    assert!(Store::open(&path).unwrap().read().unwrap().is_none());
    assert_eq!((mode(&path), mode(&dir.path().join("a"))), (0o700, 0o700));
}

#[test]
fn a_written_pair_replaces_the_old_and_leaves_nothing_else() {
    let dir = filled();
    fs::write(dir.path().join(KEY.staged), "left by a crash").unwrap();
    set_mode(&dir.path().join(KEY.staged), 0o666);
    let store = Store::open(dir.path()).unwrap();
    store.write(&pair("new")).unwrap();
    let read = store.read().unwrap().unwrap();
    assert_eq!(
        (read.key.as_str(), read.certificate.as_str()),
        ("new", "new")
    );
    assert_eq!(
        (mode(&store.key_path()), mode(&store.certificate_path())),
        (0o600, 0o644)
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
}
