//! Judges whether bytes are JSON, without building it: one pass for UTF-8, one for depth, one for the grammar.

use serde::de::IgnoredAny;

use super::SkipReason;

/// Deepest nesting of arrays and objects that is taken.
pub const DEPTH_MAX: usize = 128;

/// What is wrong with bytes that should be JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonFault {
    /// Not UTF-8.
    #[error("not valid UTF-8")]
    BadUtf8,
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
    /// Against the grammar of JSON.
    #[error("not valid JSON")]
    Malformed,
}

impl From<JsonFault> for SkipReason {
    fn from(fault: JsonFault) -> Self {
        match fault {
            JsonFault::BadUtf8 => Self::BadUtf8,
            JsonFault::TooDeep => Self::TooDeep,
            JsonFault::Malformed => Self::BadJson,
        }
    }
}

/// Checks that `bytes` are exactly one JSON text and gives it as text.
///
/// # Errors
/// The first [`JsonFault`] in the order UTF-8, depth, grammar.
///
/// Spec: RFC 8259.
pub fn check(bytes: &[u8]) -> Result<&str, JsonFault> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonFault::BadUtf8)?;
    if is_too_deep(bytes) {
        return Err(JsonFault::TooDeep);
    }
    match serde_json::from_str::<IgnoredAny>(text) {
        Ok(_) => Ok(text),
        Err(_) => Err(JsonFault::Malformed),
    }
}

fn is_too_deep(bytes: &[u8]) -> bool {
    // Fewer opening brackets than the limit, wherever they stand, cannot nest too deep: the usual case, and it vectorises.
    if brackets(bytes) <= DEPTH_MAX {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// Opening brackets and braces; counted in bytes as long as they cannot overflow, which takes many at a time.
fn brackets(bytes: &[u8]) -> usize {
    let in_chunk = |chunk: &[u8]| chunk.iter().fold(0_u8, |count, byte| count + u8::from(byte | 0x20 == b'{'));
    bytes.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(in_chunk(chunk))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_its_name() {
        assert_eq!(check(b"{\"a\":\"\xff\"}"), Err(JsonFault::BadUtf8));
        assert_eq!(check(b"{\"a\":\"\0\"}"), Err(JsonFault::Malformed));
        assert_eq!(check(br#"{"a":1}{"a":2}"#), Err(JsonFault::Malformed));
        assert_eq!(check(b""), Err(JsonFault::Malformed));
        assert_eq!(check("[".repeat(200).as_bytes()), Err(JsonFault::TooDeep));
        assert!(check("{\"a\":\"x\u{2028}y\"}".as_bytes()).is_ok());
        assert!(check(b" 42 ").is_ok());
    }

    #[test]
    fn depth_counts_nesting_and_not_brackets() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(check(nested(DEPTH_MAX).as_bytes()).is_ok());
        assert_eq!(check(nested(DEPTH_MAX + 1).as_bytes()), Err(JsonFault::TooDeep));
        let wide = format!("[{}{{}}]", "[],".repeat(500));
        assert!(check(wide.as_bytes()).is_ok());
        let text = format!("[\"\\\"{}\"]", "[{".repeat(300));
        assert!(check(text.as_bytes()).is_ok());
    }
}
