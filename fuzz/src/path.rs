//! Paths, read the plain way: cut at slashes, decode each segment once.

use egress::route::path::EncodedSlash;

/// The segments after the first slash, each decoded once; the last one is empty where the path ends with a slash.
/// `None` for a path that two servers may read in different ways.
pub fn segments(path: &str, encoded_slash: EncodedSlash) -> Option<Vec<Vec<u8>>> {
    let segments: Vec<Vec<u8>> = path
        .strip_prefix('/')?
        .split('/')
        .map(decoded)
        .collect::<Option<_>>()?;
    let (_, inner) = segments.split_last()?;
    if inner.iter().any(Vec::is_empty) {
        return None;
    }
    let whole = segments.join(&b'/');
    let text = std::str::from_utf8(&whole).ok()?;
    // A server that decodes before it cuts.
    let parts: Vec<&str> = text.split('/').collect();
    let (_, inner) = parts.split_last()?;
    // Spaces at the end go where the server is Windows.
    let leads_elsewhere = |part: &&str| matches!(part.trim_matches(' '), "." | "..");
    if inner.contains(&"") || parts.iter().any(leads_elsewhere) {
        return None;
    }
    if parts.len() != segments.len() && encoded_slash == EncodedSlash::Refuse {
        return None;
    }
    if text.contains(['\\', ';']) || text.chars().any(char::is_control) {
        return None;
    }
    // A server that decodes twice.
    (!has_encoding(&whole)).then_some(segments)
}

fn decoded(segment: &str) -> Option<Vec<u8>> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    Some(decoded)
}

fn has_encoding(bytes: &[u8]) -> bool {
    bytes
        .windows(3)
        .any(|three| three[0] == b'%' && three[1..].iter().all(u8::is_ascii_hexdigit))
}

/// Whether a prefix covers a path, segment by segment.
pub fn covers(prefix: &str, path: &str) -> bool {
    let open = prefix.ends_with('/');
    let prefix: Vec<&str> = prefix.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    let whole = if open {
        &prefix[..prefix.len() - 1]
    } else {
        &prefix[..]
    };
    path.starts_with(whole) && (!open || path.len() > whole.len())
}
