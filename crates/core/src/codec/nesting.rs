//! How deep inside a JSON text a reader is: enough to know where one may end, without judging it.

/// How deep inside a JSON text a reader is, without judging the text.
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each says something of its own about the place")]
pub(super) struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
    began: bool,
    /// Whether the last thing seen was the end of an object, an array or a string.
    closed: bool,
}

impl Nesting {
    /// Goes on with these bytes.
    pub(super) fn look_at(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.in_string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => (self.in_string, self.closed) = (false, true),
                    _ => {}
                }
            } else if !byte.is_ascii_whitespace() {
                (self.began, self.closed) = (true, false);
                match byte {
                    b'"' => self.in_string = true,
                    b'{' | b'[' => self.depth += 1,
                    b'}' | b']' => (self.depth, self.closed) = (self.depth.saturating_sub(1), true),
                    _ => {}
                }
            }
        }
    }

    /// Whether a line feed here may end a text.
    pub(super) fn is_complete(self) -> bool {
        self.began && self.depth == 0 && !self.in_string
    }

    /// Whether the text shows by itself that it is whole.
    pub(super) fn is_closed(self) -> bool {
        self.is_complete() && self.closed
    }

    /// Whether a text has begun that is not complete.
    pub(super) fn is_inside(self) -> bool {
        self.depth > 0 || self.in_string
    }
}
