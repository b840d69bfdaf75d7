//! Paths that readers could take differently are found, and patterns admit what they say.

use super::{EncodedSlash, Hazard, InvalidPath, PathPattern, hazard_of};

#[test]
fn hazards_are_found_after_one_decoding() {
    for (path, hazard) in [
        ("/a/../b", Hazard::DotSegment),
        ("/a/..", Hazard::DotSegment),
        ("/./a", Hazard::DotSegment),
        ("/a/%2e%2e/b", Hazard::DotSegment),
        ("/a/.%2E/b", Hazard::DotSegment),
        ("/a/..%20/b", Hazard::DotSegment),
        ("/a/%20.", Hazard::DotSegment),
        ("/a//b", Hazard::EmptySegment),
        ("//a", Hazard::EmptySegment),
        ("//", Hazard::EmptySegment),
        ("/a%2fb", Hazard::EncodedSlash),
        ("/a%2F..%2Fb", Hazard::EncodedSlash),
        ("/a%5cb", Hazard::Backslash),
        ("/a\\b", Hazard::Backslash),
        ("/a;b", Hazard::Semicolon),
        ("/..;/b", Hazard::Semicolon),
        ("/a%3bb", Hazard::Semicolon),
        ("/%252e%252e/b", Hazard::DoubleEncoding),
        ("/%25%32%65", Hazard::DoubleEncoding),
        ("/a%00", Hazard::Control),
        ("/a%0d%0ab", Hazard::Control),
        ("/a%7f", Hazard::Control),
        ("/a%c2%80", Hazard::Control),
        ("/a\tb", Hazard::Control),
        ("/%c0%af", Hazard::NotUtf8),
        ("/%e0%80%ae", Hazard::NotUtf8),
        ("/a%", Hazard::BadPercent),
        ("/a%2", Hazard::BadPercent),
        ("/a%zz", Hazard::BadPercent),
        ("/a%u002e", Hazard::BadPercent),
        ("/a b", Hazard::RawByte),
        ("/ü", Hazard::RawByte),
        ("/a#b", Hazard::Fragment),
    ] {
        assert_eq!(
            hazard_of(path, EncodedSlash::Refuse),
            Some(hazard),
            "{path}"
        );
    }
}

#[test]
fn ordinary_paths_are_free_of_hazards() {
    for path in [
        "/",
        "/a",
        "/a/",
        "/a/b.c/..d/...",
        "/@scope/name",
        "/a%20b",
        "/%20/a%20..",
        "/%C3%BC",
        "/100%25",
        "/a:b,c=d!$&'()*+~[]",
    ] {
        assert_eq!(hazard_of(path, EncodedSlash::Refuse), None, "{path}");
    }
}

#[test]
fn an_encoded_slash_is_data_where_the_route_accepts_it() {
    assert_eq!(hazard_of("/@scope%2fname", EncodedSlash::Accept), None);
    assert_eq!(
        hazard_of("/a%2f..%2fb", EncodedSlash::Accept),
        Some(Hazard::DotSegment)
    );
    assert_eq!(
        hazard_of("/a%2f%2fb", EncodedSlash::Accept),
        Some(Hazard::EmptySegment)
    );
    let pattern = PathPattern::regex("/[^/]+").unwrap();
    assert!(pattern.matches("/@scope%2fname"));
    assert!(
        !PathPattern::prefix("/@scope")
            .unwrap()
            .matches("/@scope%2fname")
    );
}

#[test]
fn a_prefix_ends_at_a_segment_border() {
    let plain = PathPattern::prefix("/a").unwrap();
    assert!(plain.matches("/a") && plain.matches("/a/") && plain.matches("/a/b"));
    assert!(!plain.matches("/ab") && !plain.matches("/A") && !plain.matches("/"));
    let below = PathPattern::prefix("/a/").unwrap();
    assert!(below.matches("/a/") && below.matches("/a/b"));
    assert!(!below.matches("/a") && !below.matches("/ab"));
    assert!(
        PathPattern::prefix("/")
            .unwrap()
            .matches("/anything/at/all")
    );
}

#[test]
fn a_regex_covers_the_whole_path() {
    let pattern = PathPattern::regex("/repos/[^/]+/pulls").unwrap();
    assert!(pattern.matches("/repos/x/pulls"));
    assert!(!pattern.matches("/evil/repos/x/pulls"));
    assert!(!pattern.matches("/repos/x/pulls/1"));
    assert!(!pattern.matches("/repos/x/y/pulls"));
    // Alternation binds inside the anchors.
    assert!(!PathPattern::regex("/a|/b").unwrap().matches("/a/evil"));
    assert!(matches!(
        PathPattern::regex("a)(b"),
        Err(InvalidPath::Regex(_))
    ));
}

#[test]
fn a_class_of_unicodes_is_refused_wherever_it_stands() {
    for source in [
        r"/\p{L}",
        r"/\pL+",
        r"/\P{Greek}",
        r"/[a-z\p{Lu}]",
        r"/[a-z&&[^\P{Nd}]]",
        r"/(?:a|(b\p{Script=Greek})?)",
    ] {
        let error = PathPattern::regex(source).unwrap_err();
        assert_eq!(error, InvalidPath::UnicodeClass, "{source}");
    }
    for source in [r"/\\p{1}", r"/[\d\w]+\s", r"/p{2}", r"/[[:alpha:]]"] {
        PathPattern::regex(source).unwrap();
    }
}

#[test]
fn a_regex_ranks_by_its_literal_prefix() {
    for (source, literal) in [
        ("^/repos/[^/]+/pulls$", "/repos/"),
        ("/v1/(chat|models)", "/v1/"),
        ("/a(/b)c.*", "/a/bc"),
        ("/a?", "/"),
        ("(?i)/a", "/"),
        ("/exact", "/exact"),
    ] {
        assert_eq!(
            PathPattern::regex(source).unwrap().literal(),
            literal,
            "{source}"
        );
    }
}

#[test]
fn a_prefix_that_nothing_can_match_is_refused() {
    assert_eq!(
        PathPattern::prefix("v1/").unwrap_err(),
        InvalidPath::NoSlash
    );
    assert_eq!(PathPattern::prefix("").unwrap_err(), InvalidPath::NoSlash);
    assert_eq!(PathPattern::prefix("/a?b").unwrap_err(), InvalidPath::Query);
    assert_eq!(
        PathPattern::prefix("/a/../b").unwrap_err(),
        InvalidPath::Hazard(Hazard::DotSegment)
    );
}
