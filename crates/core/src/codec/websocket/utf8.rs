//! UTF-8 judged piece by piece: a character may be cut anywhere, and nothing but the beginning of one is held.

/// Judges one text after the other.
#[derive(Debug, Default)]
pub(super) struct Utf8 {
    held: [u8; 4],
    held_bytes: usize,
}

impl Utf8 {
    /// Takes the next piece; `false` once it cannot be UTF-8 any more.
    pub(super) fn push(&mut self, mut piece: &[u8]) -> bool {
        while self.held_bytes > 0 {
            let [first, rest @ ..] = piece else { return true };
            self.held[self.held_bytes] = *first;
            self.held_bytes += 1;
            piece = rest;
            match std::str::from_utf8(&self.held[..self.held_bytes]) {
                Ok(_) => self.held_bytes = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return false,
            }
        }
        match std::str::from_utf8(piece) {
            Ok(_) => true,
            Err(error) if error.error_len().is_none() => {
                let rest = &piece[error.valid_up_to()..];
                self.held[..rest.len()].copy_from_slice(rest);
                self.held_bytes = rest.len();
                true
            }
            Err(_) => false,
        }
    }

    /// Whether the text may end here.
    pub(super) fn is_whole(&self) -> bool {
        self.held_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_judged_as_the_whole(
            bytes in prop_oneof![".{0,24}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..12)],
            cuts in prop::collection::vec(1usize..4, 1..6),
        ) {
            let (mut utf8, mut rest, mut cuts) = (Utf8::default(), &bytes[..], cuts.iter().cycle());
            let mut holds = true;
            while holds && !rest.is_empty() {
                let (piece, behind) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
                holds = utf8.push(piece);
                rest = behind;
            }
            prop_assert_eq!(holds && utf8.is_whole(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
