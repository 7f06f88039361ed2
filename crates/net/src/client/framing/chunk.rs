//! The chunked coding, byte by byte.
//!
//! Owns the grammar of sizes, extensions and the end; trailers are not accepted. Pure.
//! Spec: RFC 9112 §7.1.

/// What the next byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    Size { value: u64, digits: u8 },
    Extension { value: u64 },
    SizeLf { value: u64 },
    Data(u64),
    DataCr,
    DataLf,
    EndCr,
    EndLf,
}

/// Where one byte leads.
pub(super) enum Step {
    Go(Chunk),
    End,
    Broken,
}

/// One byte of chunked framing; data bytes are counted by the caller.
pub(super) fn next_chunk(chunk: Chunk, byte: u8) -> Step {
    let sized = |value| {
        if value == 0 { Chunk::EndCr } else { Chunk::Data(value) }
    };
    match (chunk, byte) {
        (Chunk::Size { digits: 1.., value } | Chunk::Extension { value }, b'\r') => Step::Go(Chunk::SizeLf { value }),
        (Chunk::Size { digits: 1.., value }, b';' | b' ' | b'\t') => Step::Go(Chunk::Extension { value }),
        (Chunk::Size { value, digits: digits @ 0..=15 }, hex) => match char::from(hex).to_digit(16) {
            Some(digit) => Step::Go(Chunk::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }),
            None => Step::Broken,
        },
        (Chunk::Extension { .. }, b'\n') => Step::Broken,
        (Chunk::Extension { value }, _) => Step::Go(Chunk::Extension { value }),
        (Chunk::SizeLf { value }, b'\n') => Step::Go(sized(value)),
        (Chunk::DataCr, b'\r') => Step::Go(Chunk::DataLf),
        (Chunk::DataLf, b'\n') => Step::Go(Chunk::Size { value: 0, digits: 0 }),
        (Chunk::EndCr, b'\r') => Step::Go(Chunk::EndLf),
        (Chunk::EndLf, b'\n') => Step::End,
        _ => Step::Broken,
    }
}
