//! Reads Rust source far enough to judge it: code without comments, literals and tests. Knows nothing of the rules.

use std::ops::Range;

/// The code with comments and the insides of literals blanked; every line keeps its number.
pub(super) fn clean(source: &str) -> String {
    let bytes = source.as_bytes();
    let mut code = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => find(bytes, at, b"\n").unwrap_or(bytes.len()),
            b'/' if bytes.get(at + 1) == Some(&b'*') => comment_end(bytes, at),
            b'"' => string_end(bytes, at + 1),
            b'r' if !follows_word(bytes, at) && raw_string(bytes, at).is_some() => raw_string(bytes, at).unwrap_or(at + 1),
            b'b' if !follows_word(bytes, at) && bytes.get(at + 1) == Some(&b'r') && raw_string(bytes, at + 1).is_some() => {
                raw_string(bytes, at + 1).unwrap_or(at + 1)
            }
            b'\'' => char_end(bytes, at),
            other => {
                code.push(other);
                at += 1;
                continue;
            }
        };
        code.extend(bytes[at..end].iter().map(|byte| if *byte == b'\n' { b'\n' } else { b' ' }));
        at = end;
    }
    String::from_utf8(code).expect("blanking whole literals and comments keeps UTF-8")
}

fn find(bytes: &[u8], from: usize, needle: &[u8]) -> Option<usize> {
    bytes[from..].windows(needle.len()).position(|window| window == needle).map(|offset| from + offset)
}

fn follows_word(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn comment_end(bytes: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The end of the raw string whose `r` is at `start`, if one is there.
fn raw_string(bytes: &[u8], start: usize) -> Option<usize> {
    let hashes = bytes[start + 1..].iter().take_while(|byte| **byte == b'#').count();
    let open = start + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let close = [&b"\""[..], &b"#".repeat(hashes)].concat();
    Some(find(bytes, open + 1, &close).map_or(bytes.len(), |at| at + close.len()))
}

/// The end of a character literal; a lifetime ends at once.
fn char_end(bytes: &[u8], start: usize) -> usize {
    if bytes.get(start + 1) == Some(&b'\\') {
        return find(bytes, start + 3, b"'").map_or(bytes.len(), |at| at + 1);
    }
    let text = &bytes[start + 1..bytes.len().min(start + 6)];
    match text.iter().position(|byte| *byte == b'\'') {
        Some(length) if length == 1 || (length > 1 && text[0] >= 0x80) => start + length + 2,
        _ => start + 1,
    }
}

/// Where in `code` (cleaned) the items under `#[cfg(test)]` lie.
fn tests(code: &str) -> Vec<Range<usize>> {
    let (mut spans, mut from) = (Vec::new(), 0);
    while let Some(start) = code[from..].find("#[cfg(test)]").map(|offset| from + offset) {
        let end = item_end(code.as_bytes(), start);
        spans.push(start..end);
        from = end;
    }
    spans
}

/// The cleaned code with every item under `#[cfg(test)]` blanked.
pub(super) fn without_tests(code: &str) -> String {
    let mut kept = code.to_owned();
    for span in tests(code) {
        let blank: String = code[span.clone()].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect();
        kept.replace_range(span, &blank);
    }
    kept
}

/// How many lines `source` has besides its `#[cfg(test)]` items.
pub(super) fn lines_outside_tests(source: &str) -> usize {
    let code = clean(source);
    let inside: usize = tests(&code).into_iter().map(|span| code[span].lines().count()).sum();
    code.lines().count() - inside
}

/// The end of the item that begins at `start`: its closing brace, or the semicolon or comma before any brace.
fn item_end(bytes: &[u8], start: usize) -> usize {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (at, byte) in bytes.iter().enumerate().skip(start) {
        match byte {
            b'{' => braces += 1,
            b'}' if braces <= 1 => return at + 1,
            b'}' => braces -= 1,
            b'(' | b'[' => others += 1,
            b')' | b']' => others = others.saturating_sub(1),
            b';' | b',' if braces == 0 && others == 0 => return at + 1,
            _ => {}
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::super::paths::paths;
    use super::*;

    #[test]
    fn comments_and_literals_name_nothing() {
        let code = "// a::b\n/* c::d /* e::f */ g::h */ let x: &'a str = \"i::j \\\" k::l\"; r#\"m::\"n::o\"#; '\"'; '\\''; p::q";
        let named: Vec<_> = paths(&clean(code)).into_iter().map(|path| path.segments.join("::")).collect();
        assert_eq!(named, ["p::q"]);
        assert_eq!(clean(code).lines().count(), 2);
    }

    #[test]
    fn tests_are_left_out() {
        let code = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { c::d() }\n}\n#[cfg(test)]\nuse e::f;\nfn g() { h::i() }\n";
        assert_eq!(paths(&without_tests(code)).len(), 1);
        assert_eq!(lines_outside_tests(code), 2);
    }
}
