//! What a template may not hold, found in its text before it is parsed: what grows by itself, names that are not known, and
//! what is nested deeper than parsers, which call themselves, have stack for.
//!
//! A variable set to twice itself needs forty steps to fill any memory. So nothing is set, and texts are joined only where
//! they are printed.

use super::filters::{FILTERS, TESTS};

/// Statements that are allowed.
const TAGS: &[&str] = &["for", "else", "elif", "endfor", "if", "endif", "raw", "endraw"];
/// `~` and `+` in one template.
pub const JOINS_MAX: usize = 64;
/// Loops inside each other.
pub const LOOPS_NESTED_MAX: usize = 3;
/// Conditions and loops inside each other; an `elif` is one inside the `if`.
pub const STATEMENTS_NESTED_MAX: usize = 32;
/// Brackets inside each other.
pub const BRACKETS_NESTED_MAX: usize = 16;
/// Operators, dots and filters of one expression, as far as each may hold the one before.
const OPERATORS_MAX: usize = 200;
/// Longest name.
const NAME_BYTES_MAX: usize = 128;
/// Words that are operators.
const OPERATORS: &[&str] = &["and", "or", "not", "is", "in", "if", "else"];

/// Judges a text.
///
/// # Errors
/// The first thing that may not be in it, with its line.
pub(super) fn check(source: &str) -> Result<(), String> {
    let mut scan = Scan { source, at: 0, joins: 0, loops: 0, open: Vec::new() };
    scan.run().map_err(|problem| {
        let line = source.get(..scan.at).unwrap_or(source).matches('\n').count() + 1;
        format!("{problem} (line {line})")
    })
}

struct Scan<'a> {
    source: &'a str,
    at: usize,
    joins: usize,
    loops: usize,
    /// For each statement that is open, how deep it nests the parser: 1, and 1 more for each `elif`.
    open: Vec<usize>,
}

/// How deep the expressions of a tag nest.
struct Depth(Vec<Bracket>);

/// What stands in an open bracket, or in the tag itself.
#[derive(Default)]
struct Bracket {
    /// Operators since the last comma; each may hold the one before.
    row: usize,
    /// The deepest bracket since then.
    inner: usize,
    /// The deepest of what was before.
    before: usize,
}

impl Depth {
    fn new() -> Self {
        Self(vec![Bracket::default()])
    }

    fn see(&mut self, token: Token<'_>) -> Result<(), String> {
        if matches!(token, Token::Sign(b')' | b']' | b'}')) && self.0.len() > 1 {
            let closed = self.0.pop().map_or(0, |closed| closed.before.max(closed.row + closed.inner));
            if let Some(outer) = self.0.last_mut() {
                outer.inner = outer.inner.max(closed);
            }
        } else if let Some(bracket) = self.0.last_mut() {
            match token {
                Token::Sign(b',' | b':') => {
                    let before = bracket.before.max(bracket.row + bracket.inner);
                    *bracket = Bracket { before, ..Bracket::default() };
                }
                Token::Sign(_) => bracket.row += 1,
                Token::Name(name) if OPERATORS.contains(&name) => bracket.row += 1,
                _ => {}
            }
        }
        if matches!(token, Token::Sign(b'(' | b'[' | b'{')) {
            self.0.push(Bracket::default());
        }
        if self.0.len() > BRACKETS_NESTED_MAX + 1 {
            return Err(format!("has more than {BRACKETS_NESTED_MAX} brackets inside each other"));
        }
        let deepest = self.0.iter().rev().fold(0, |inner, bracket| bracket.before.max(bracket.row + bracket.inner.max(inner)));
        if deepest > OPERATORS_MAX {
            return Err(format!("has an expression of more than {OPERATORS_MAX} operators, dots and filters"));
        }
        Ok(())
    }
}

/// What stands in a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    Text,
    Sign(u8),
    End,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn run(&mut self) -> Result<(), String> {
        while let Some(found) = self.rest().find('{') {
            self.at += found;
            match self.rest().as_bytes().get(1) {
                Some(b'{') => {
                    self.at += 2;
                    self.tag(true)?;
                }
                Some(b'%') => {
                    self.at += 2;
                    self.tag(false)?;
                }
                Some(b'#') => self.skip_behind("#}"),
                _ => self.at += 1,
            }
        }
        Ok(())
    }

    fn skip_behind(&mut self, end: &str) {
        self.at += self.rest().find(end).map_or(self.rest().len(), |found| found + end.len());
    }

    /// One `{{ … }}` or `{% … %}`, its opening behind.
    fn tag(&mut self, prints: bool) -> Result<(), String> {
        if matches!(self.rest().as_bytes().first(), Some(b'-' | b'+')) {
            self.at += 1;
        }
        let close: &[u8] = if prints { b"}}" } else { b"%}" };
        let mut open = 0_usize;
        let mut before = Token::End;
        let mut is_first = true;
        let mut depth = Depth::new();
        loop {
            let token = self.token(close, open == 0);
            depth.see(token)?;
            match token {
                Token::End => return Ok(()),
                Token::Name(name) if is_first && !prints => {
                    if name == "raw" {
                        self.skip_raw();
                        return Ok(());
                    }
                    self.statement(name)?;
                }
                // `is not x` asks for the test x.
                Token::Name("not") if before == Token::Name("is") => continue,
                Token::Name(name) => check_name(name, before)?,
                Token::Sign(b'(' | b'[' | b'{') => open += 1,
                Token::Sign(b')' | b']' | b'}') => open = open.saturating_sub(1),
                Token::Sign(sign @ (b'~' | b'+')) => {
                    self.joins += 1;
                    if !prints || self.joins > JOINS_MAX {
                        let sign = char::from(sign);
                        return Err(format!("uses '{sign}' outside of {{{{ … }}}}, or more than {JOINS_MAX} times"));
                    }
                }
                Token::Sign(b'*') => return Err("uses '*', which is not known here; allowed: +, -, /, //, %, ~".to_owned()),
                Token::Sign(_) | Token::Text => {}
            }
            is_first = false;
            before = token;
        }
    }

    fn statement(&mut self, name: &str) -> Result<(), String> {
        if !TAGS.contains(&name) {
            let allowed = TAGS.join(", ");
            return Err(format!("has the statement {name:?}, which is not known; allowed: {allowed}"));
        }
        match name {
            "for" => self.loops += 1,
            "endfor" => self.loops = self.loops.saturating_sub(1),
            _ => {}
        }
        match name {
            "for" | "if" => self.open.push(1),
            "elif" => self.open.last_mut().into_iter().for_each(|open| *open += 1),
            "endfor" | "endif" => drop(self.open.pop()),
            _ => {}
        }
        if self.open.iter().sum::<usize>() > STATEMENTS_NESTED_MAX {
            return Err(format!("has more than {STATEMENTS_NESTED_MAX} conditions and loops inside each other"));
        }
        if self.loops > LOOPS_NESTED_MAX {
            return Err(format!("has more than {LOOPS_NESTED_MAX} loops inside each other"));
        }
        Ok(())
    }

    /// Everything up to the end of a raw part.
    fn skip_raw(&mut self) {
        self.skip_behind("%}");
        while let Some(found) = self.rest().find("{%") {
            self.at += found + 2;
            let inside = self.rest().trim_start_matches(['-', '+']).trim_start();
            if inside.starts_with("endraw") {
                self.skip_behind("%}");
                return;
            }
        }
        self.at = self.source.len();
    }

    fn token(&mut self, close: &[u8], may_close: bool) -> Token<'a> {
        let rest = self.rest().trim_start();
        self.at = self.source.len() - rest.len();
        let bytes = rest.as_bytes();
        let Some(&first) = bytes.first() else { return Token::End };
        let marked = matches!(first, b'-' | b'+') && bytes.get(1..).is_some_and(|rest| rest.starts_with(close));
        if may_close && (bytes.starts_with(close) || marked) {
            self.at += close.len() + usize::from(marked);
            return Token::End;
        }
        if first == b'"' || first == b'\'' {
            let mut is_escaped = false;
            let end = bytes.iter().skip(1).position(|&b| {
                let ends = b == first && !is_escaped;
                is_escaped = b == b'\\' && !is_escaped;
                ends
            });
            self.at += end.map_or(bytes.len(), |end| end + 2);
            return Token::Text;
        }
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if length > 0 {
            self.at += length;
            return Token::Name(&rest[..length]);
        }
        self.at += rest.chars().next().map_or(1, char::len_utf8);
        Token::Sign(first)
    }
}

fn check_name(name: &str, before: Token<'_>) -> Result<(), String> {
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("has a name of more than {NAME_BYTES_MAX} bytes"));
    }
    let (what, known) = match before {
        Token::Sign(b'|') => ("filter", FILTERS),
        Token::Name("is") => ("test", TESTS),
        _ if name == "recursive" => return Err("has a recursive loop, which is not allowed".to_owned()),
        _ => return Ok(()),
    };
    if known.contains(&name) {
        return Ok(());
    }
    Err(format!("uses the {what} {name:?}, which is not known; allowed: {}", known.join(", ")))
}
