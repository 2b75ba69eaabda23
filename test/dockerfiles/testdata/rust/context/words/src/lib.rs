/// The path of a request's first line.
pub fn path(line: &str) -> Option<&str> {
    line.split_whitespace().nth(1)
}

#[test]
fn finds_the_path() {
    assert_eq!(path("GET /here HTTP/1.1"), Some("/here"));
    assert_eq!(path("GET"), None);
}
