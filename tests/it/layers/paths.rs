//! The paths that Rust code (cleaned) names, and what its `use` lines call them. Knows nothing of files and rules.

/// One path as written, groups and globs spelt out: `use a::{b, c::*}` is `a::b` and `a::c::*`, `use a::{self}` is `a`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) line: usize,
    pub(super) segments: Vec<String>,
    /// How many inline `mod x { … }` of the file surround it.
    pub(super) depth: usize,
    /// What a `use` makes of it; none where a path is merely named.
    pub(super) import: Option<Import>,
}

/// A name that a `use` gives: that after `as`, or the last segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) name: String,
    /// It is passed on to other crates.
    pub(super) is_public: bool,
    /// It stands outside every brace, so that it is a name of the file.
    pub(super) is_outermost: bool,
}

impl Path {
    pub(super) fn is_glob(&self) -> bool {
        self.segments.last().is_some_and(|last| last == "*")
    }
}

struct Token<'a> {
    text: &'a str,
    line: usize,
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let (mut list, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let length = match bytes[at] {
            b'\n' => {
                line += 1;
                0
            }
            byte if byte.is_ascii_whitespace() || !byte.is_ascii() => 0,
            byte if is_word(&byte) => bytes[at..].iter().take_while(|byte| is_word(byte)).count(),
            b':' if bytes.get(at + 1) == Some(&b':') => 2,
            _ => 1,
        };
        if length > 0 {
            list.push(Token { text: &code[at..at + length], line });
        }
        at += length.max(1);
    }
    list
}

fn is_name(token: &Token<'_>) -> bool {
    token.text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
}

/// Every path of more than one segment in `code`, and every one in a `use`, in order.
pub(super) fn paths(code: &str) -> Vec<Path> {
    let tokens = tokens(code);
    let is_at = |at: usize, text: &str| tokens.get(at).is_some_and(|token| token.text == text);
    let (mut found, mut at) = (Vec::new(), 0);
    let mut open: Vec<bool> = Vec::new();
    while at < tokens.len() {
        let depth = open.iter().filter(|is_module| **is_module).count();
        match tokens[at].text {
            "{" => open.push(at >= 2 && tokens[at - 2].text == "mod"),
            "}" => {
                open.pop();
            }
            // `impl Trait + use<'a>` imports nothing.
            "use" if !is_at(at + 1, "<") => {
                let import =
                    Import { name: String::new(), is_public: at > 0 && is_at(at - 1, "pub"), is_outermost: open.is_empty() };
                at = Reader { tokens: &tokens, depth, import: Some(import), found: &mut found }.tree(at + 1, &[]);
                continue;
            }
            "::" => {}
            _ if is_name(&tokens[at]) && is_at(at + 1, "::") => {
                at = Reader { tokens: &tokens, depth, import: None, found: &mut found }.tree(at, &[]);
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Reads one path with its groups.
struct Reader<'a> {
    tokens: &'a [Token<'a>],
    depth: usize,
    import: Option<Import>,
    found: &'a mut Vec<Path>,
}

impl Reader<'_> {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    /// Reads the path, group or glob at `at`, keeps what it names, and returns where it ends.
    fn tree(&mut self, mut at: usize, prefix: &[String]) -> usize {
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        let mut segments = prefix.to_vec();
        if self.text(at) == "::" {
            at += 1;
        }
        while let Some(token) = self.tokens.get(at) {
            match token.text {
                "{" => return self.group(at + 1, &segments),
                "*" => segments.push("*".to_owned()),
                _ if is_name(token) => segments.push(token.text.to_owned()),
                _ => break,
            }
            at += 1;
            if self.text(at) != "::" {
                break;
            }
            at += 1;
        }
        if self.import.is_some() && segments.len() > 1 && segments.last().is_some_and(|last| last == "self") {
            segments.pop();
        }
        let mut import = self.import.clone();
        if let (Some(import), Some(last)) = (&mut import, segments.last()) {
            let is_renamed = self.text(at) == "as";
            import.name = if is_renamed { self.text(at + 1).to_owned() } else { last.clone() };
            at += if is_renamed { 2 } else { 0 };
        }
        if segments.len() > 1 || (import.is_some() && !segments.is_empty()) {
            self.found.push(Path { line, segments, depth: self.depth, import });
        }
        at
    }

    fn group(&mut self, mut at: usize, prefix: &[String]) -> usize {
        while let Some(token) = self.tokens.get(at) {
            match token.text {
                "}" => return at + 1,
                "{" | "*" | "::" => at = self.tree(at, prefix),
                _ if is_name(token) => at = self.tree(at, prefix),
                _ => at += 1,
            }
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(code: &str) -> Vec<String> {
        paths(code).into_iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn groups_globs_and_aliases_are_spelt_out() {
        let names = named("use crate::{a::{self, B as C}, d::*, e};\nuse std::fs;\nuse {f::g, ::h::i};\nuse j;");
        assert_eq!(names, ["crate::a", "crate::a::B", "crate::d::*", "crate::e", "std::fs", "f::g", "h::i", "j"]);
    }

    #[test]
    fn a_use_tells_the_name_it_gives() {
        let code = "use crate as k; pub use b::B as Bee; pub(crate) use c::{self, D as _}; fn f() { use e::{self as g}; h::i as u32 }\n\
                    fn j() -> impl K + use<'_> { l::m() }";
        let given: Vec<_> = paths(code).into_iter().filter_map(|path| path.import).collect();
        let import = |name: &str, is_public, is_outermost| Import { name: name.to_owned(), is_public, is_outermost };
        let expected = [import("k", false, true), import("Bee", true, true), import("c", false, true), import("_", false, true)];
        assert_eq!(given, [expected.as_slice(), &[import("g", false, false)]].concat());
        assert_eq!(named(code)[4..], ["e", "h::i", "l::m"]);
    }

    #[test]
    fn a_path_knows_its_line_and_its_inline_modules() {
        let code = "fn a() { b::c() }\nmod d {\n  fn e() { super::f() }\n}\ng::h!();";
        let found: Vec<_> = paths(code).into_iter().map(|path| (path.line, path.depth, path.segments.join("::"))).collect();
        assert_eq!(found, [(1, 0, "b::c".into()), (3, 1, "super::f".into()), (5, 0, "g::h".into())]);
    }
}
