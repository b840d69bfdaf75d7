//! The lists of attacks under `tests/data/attack`: one a line, its columns between ` | `, `#` before a comment.
//!
//! Bytes are written as text with `⏎` for CR LF, `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH`, and `\{70000 ab}` for `ab` 70,000
//! times over.

/// The rows of a list.
pub(crate) fn rows<const COLUMNS: usize>(list: &str) -> Vec<[String; COLUMNS]> {
    let lines = list
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|line| {
            let mut columns = line
                .splitn(COLUMNS, " | ")
                .map(|column| column.trim().to_owned());
            std::array::from_fn(|_| {
                columns
                    .next()
                    .unwrap_or_else(|| panic!("{COLUMNS} columns: {line}"))
            })
        })
        .collect()
}

/// The bytes that a text stands for.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        match char {
            '⏎' => bytes.extend(b"\r\n"),
            '\\' => match rest.next().expect("something after a backslash") {
                'r' => bytes.push(b'\r'),
                'n' => bytes.push(b'\n'),
                't' => bytes.push(b'\t'),
                '0' => bytes.push(0),
                '\\' => bytes.push(b'\\'),
                'x' => {
                    let digits: String = rest.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).expect("two hex digits"));
                }
                '{' => {
                    let inside: String = rest.by_ref().take_while(|char| *char != '}').collect();
                    let (count, what) = inside.split_once(' ').expect("a count and a text");
                    let count = count.parse().expect("a count");
                    bytes.extend(self::bytes(what).repeat(count));
                }
                other => panic!("\\{other} in {text}"),
            },
            other => bytes.extend(other.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

#[test]
fn the_notation_says_every_byte() {
    assert_eq!(
        bytes(r"a⏎\r\n\t\0\\\xff\{3 x\x00}é"),
        b"a\r\n\r\n\t\0\\\xffx\0x\0x\0\xc3\xa9"
    );
    assert_eq!(
        rows::<2>("# no row\n\nid | a | b\n"),
        [["id".to_owned(), "a | b".to_owned()]]
    );
}
