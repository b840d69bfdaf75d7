//! A tar archive in memory, as `docker cp -` takes it: files and directories with an owner and a mode (POSIX ustar).

/// An archive under construction.
#[derive(Debug, Default)]
pub(super) struct Tar(Vec<u8>);

/// Whose an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

pub(super) const ROOT: Owner = Owner { uid: 0, gid: 0 };

impl Tar {
    /// Adds a directory. Its parents have to be there, or have been added.
    pub(super) fn directory(&mut self, path: &str, mode: u32, owner: Owner) -> Result<(), TooLong> {
        self.header(&format!("{path}/"), mode, owner, 0, b'5')
    }

    /// Adds a file.
    pub(super) fn file(
        &mut self,
        path: &str,
        mode: u32,
        owner: Owner,
        contents: &[u8],
    ) -> Result<(), TooLong> {
        self.header(path, mode, owner, contents.len(), b'0')?;
        self.0.extend_from_slice(contents);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    /// The archive: two empty blocks end it.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }

    fn header(
        &mut self,
        path: &str,
        mode: u32,
        owner: Owner,
        size: usize,
        kind: u8,
    ) -> Result<(), TooLong> {
        let (prefix, name) = split(path).ok_or_else(|| TooLong(path.into()))?;
        let mut block = Vec::with_capacity(BLOCK);
        let mut field = |text: &str, width: usize| {
            block.extend_from_slice(text.as_bytes());
            block.resize(block.len() + width - text.len(), 0);
        };
        field(name, 100);
        field(&format!("{:07o}", mode & 0o7777), 8);
        field(&format!("{:07o}", owner.uid), 8);
        field(&format!("{:07o}", owner.gid), 8);
        field(&format!("{size:011o}"), 12);
        field("00000000000", 12);
        // The sum is over a field of blanks in its own place.
        field("        ", 8);
        field(&char::from(kind).to_string(), 1);
        field("", 100);
        field("ustar", 6);
        field("00", 2);
        field("", 32 + 32 + 8 + 8);
        field(prefix, 155);
        field("", 12);
        let sum: u32 = block.iter().copied().map(u32::from).sum();
        let sum = format!("{sum:06o}\0 ");
        self.0
            .extend_from_slice(block.get(..148).unwrap_or_default());
        self.0.extend_from_slice(sum.as_bytes());
        self.0
            .extend_from_slice(block.get(156..).unwrap_or_default());
        Ok(())
    }
}

const BLOCK: usize = 512;

/// A path that the format has no room for.
#[derive(Debug, thiserror::Error)]
#[error("the path {0} is too long")]
pub struct TooLong(String);

/// The prefix and the name of a path: 100 bytes at most for the name, 155 for what stands before it.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_start_matches('/');
    if path.len() <= 100 {
        return Some(("", path));
    }
    path.match_indices('/')
        .filter_map(|(at, _)| Some((path.get(..at)?, path.get(at + 1..)?)))
        .find(|(prefix, name)| prefix.len() <= 155 && (1..=100).contains(&name.len()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use super::{Owner, ROOT, Tar};

    #[test]
    fn a_real_tar_reads_it() {
        let long = format!("home/{}/{}", "d".repeat(90), "f".repeat(90));
        let mut tar = Tar::default();
        let node = Owner {
            uid: 1000,
            gid: 1001,
        };
        tar.directory("/home/node/.codex", 0o700, node)
            .expect("it fits");
        tar.file("home/node/.codex/auth.json", 0o600, node, b"{}")
            .expect("it fits");
        tar.file(&long, 0o644, ROOT, &[b'x'; 512]).expect("it fits");
        assert!(tar.file(&"x".repeat(300), 0o644, ROOT, b"").is_err());
        let mut child = Command::new("tar")
            .args(["--numeric-owner", "-tv"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tar runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(&tar.finish()).expect("tar reads");
        drop(stdin);
        let output = child.wait_with_output().expect("tar ends");
        assert!(output.status.success(), "{output:?}");
        let listed = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<Vec<&str>> = listed
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[0][..3], ["drwx------", "1000/1001", "0"]);
        assert_eq!(lines[1][..3], ["-rw-------", "1000/1001", "2"]);
        assert_eq!(lines[2][..3], ["-rw-r--r--", "0/0", "512"]);
        assert_eq!(lines[2].last(), Some(&long.as_str()));
    }
}
