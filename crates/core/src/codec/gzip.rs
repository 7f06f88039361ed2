//! The gzip content coding of a stream that may never end: pieces in, bounded pieces out, members one after the other.
//!
//! What was decoded before a fault is handed out before the fault is told. Growth is watched: a body that expands beyond
//! all reason ends with [`GzipFault::DecompressionLimit`] instead of keeping a core busy.
//!
//! Spec: RFC 1952.

use bytes::{Buf, Bytes};
use flate2::{Crc, Decompress, FlushDecompress, Status};

#[cfg(test)]
mod tests;

/// Most bytes handed out at once.
pub const PIECE_BYTES_MAX: usize = 64 * 1024;
/// Most bytes out for one byte in, once [`EXPANSION_FREE_BYTES`] are out; deflate itself reaches about 1,030.
pub const EXPANSION_MAX: u64 = 400;
/// Bytes out before the expansion is judged, because short bodies of equal records compress very well.
pub const EXPANSION_FREE_BYTES: u64 = 8 * 1024 * 1024;
/// Longest member header (name and comment included) that is read.
pub const HEADER_BYTES_MAX: usize = 4096;

const TRAILER_BYTES: usize = 8;
const FLAG_HEADER_CRC: u8 = 2;
const FLAG_EXTRA: u8 = 4;
const FLAG_NAME: u8 = 8;
const FLAG_COMMENT: u8 = 16;
const FLAGS_RESERVED: u8 = 0xe0;

/// Why a body cannot be decoded any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GzipFault {
    /// Not gzip, damaged, or a checksum that does not match.
    #[error("the gzip body is damaged")]
    Corrupt,
    /// The body ended inside a member.
    #[error("the gzip body ended before its end")]
    Truncated,
    /// Over [`EXPANSION_MAX`].
    #[error("the gzip body expands more than {EXPANSION_MAX} times")]
    DecompressionLimit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Header,
    Deflate,
    Trailer,
    Failed(GzipFault),
}

/// Decodes a gzip body piece by piece.
#[derive(Debug)]
pub struct GzipDecoder {
    stage: Stage,
    inflate: Decompress,
    crc: Crc,
    /// Header or trailer bytes that are still incomplete.
    held: Vec<u8>,
    input: Bytes,
    scratch: Box<[u8]>,
    /// Whether any byte of the body came.
    begun: bool,
    members: u64,
    /// Compressed bytes used up so far.
    bytes_in: u64,
    bytes_out: u64,
}

impl Default for GzipDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl GzipDecoder {
    /// A decoder at the beginning of a body.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stage: Stage::Header,
            inflate: Decompress::new(false),
            crc: Crc::new(),
            held: Vec::new(),
            input: Bytes::new(),
            scratch: vec![0; PIECE_BYTES_MAX].into_boxed_slice(),
            begun: false,
            members: 0,
            bytes_in: 0,
            bytes_out: 0,
        }
    }

    /// Hands in the next chunk of the body; call [`GzipDecoder::next_piece`] until it gives `None` before the next one.
    pub fn feed(&mut self, chunk: Bytes) {
        self.begun |= !chunk.is_empty();
        self.input = chunk;
    }

    /// The next decoded piece, at most [`PIECE_BYTES_MAX`] bytes and never empty; `None` when more input is needed.
    ///
    /// # Errors
    /// [`GzipFault`], from then on at every call.
    pub fn next_piece(&mut self) -> Result<Option<Bytes>, GzipFault> {
        loop {
            let step = match self.stage {
                Stage::Failed(fault) => return Err(fault),
                Stage::Header => self.read_header(),
                Stage::Trailer => self.read_trailer(),
                Stage::Deflate => match self.inflate_piece() {
                    Ok(Some(piece)) => return Ok(Some(piece)),
                    Ok(None) => Ok(self.stage != Stage::Deflate),
                    Err(fault) => Err(fault),
                },
            };
            match step {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(fault) => self.stage = Stage::Failed(fault),
            }
        }
    }

    /// The end of the body.
    ///
    /// # Errors
    /// [`GzipFault::Truncated`] inside a member, or the fault that was told before.
    pub fn finish(&self) -> Result<(), GzipFault> {
        match self.stage {
            Stage::Failed(fault) => Err(fault),
            Stage::Header if self.held.is_empty() && (self.members > 0 || !self.begun) => Ok(()),
            _ => Err(GzipFault::Truncated),
        }
    }

    /// Whether the header is complete; takes it out of the input.
    fn read_header(&mut self) -> Result<bool, GzipFault> {
        let before = self.held.len();
        let take = self.input.len().min(HEADER_BYTES_MAX - before);
        self.held.extend_from_slice(&self.input[..take]);
        if let Some(length) = header_length(&self.held)? {
            self.input.advance(length - before);
            self.held.clear();
            self.inflate.reset(false);
            self.crc.reset();
            self.stage = Stage::Deflate;
            return Ok(true);
        }
        self.input.advance(take);
        if self.held.len() == HEADER_BYTES_MAX { Err(GzipFault::Corrupt) } else { Ok(false) }
    }

    fn read_trailer(&mut self) -> Result<bool, GzipFault> {
        let take = self.input.len().min(TRAILER_BYTES - self.held.len());
        self.held.extend_from_slice(&self.input.split_to(take));
        if self.held.len() < TRAILER_BYTES {
            return Ok(false);
        }
        let (sum, amount) = self.held.split_at(4);
        if sum != self.crc.sum().to_le_bytes() || amount != self.crc.amount().to_le_bytes() {
            return Err(GzipFault::Corrupt);
        }
        self.held.clear();
        self.members += 1;
        self.stage = Stage::Header;
        Ok(true)
    }

    /// A piece, or `None` when the input is used up or the member is over.
    fn inflate_piece(&mut self) -> Result<Option<Bytes>, GzipFault> {
        loop {
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(&self.input, &mut self.scratch, FlushDecompress::None);
            let consumed = usize::try_from(self.inflate.total_in() - in_before).unwrap_or(usize::MAX);
            let written = usize::try_from(self.inflate.total_out() - out_before).unwrap_or(usize::MAX);
            self.input.advance(consumed.min(self.input.len()));
            self.bytes_in += consumed as u64;
            self.bytes_out += written as u64;
            self.crc.update(&self.scratch[..written]);
            match status {
                Ok(Status::StreamEnd) => self.stage = Stage::Trailer,
                Ok(Status::Ok | Status::BufError) => {}
                Err(_) if written == 0 => return Err(GzipFault::Corrupt),
                Err(_) => self.stage = Stage::Failed(GzipFault::Corrupt),
            }
            if self.bytes_out > EXPANSION_FREE_BYTES.saturating_add(self.bytes_in.saturating_mul(EXPANSION_MAX)) {
                return Err(GzipFault::DecompressionLimit);
            }
            if written > 0 {
                return Ok(Some(Bytes::copy_from_slice(&self.scratch[..written])));
            }
            if self.stage != Stage::Deflate || (consumed == 0 || self.input.is_empty()) {
                return Ok(None);
            }
        }
    }
}

/// Length of the member header at the start of `head`; `None` when it is not complete yet.
fn header_length(head: &[u8]) -> Result<Option<usize>, GzipFault> {
    const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
    if head.iter().zip(MAGIC).any(|(&byte, magic)| byte != magic) {
        return Err(GzipFault::Corrupt);
    }
    let Some(&flags) = head.get(3) else { return Ok(None) };
    if flags & FLAGS_RESERVED != 0 {
        return Err(GzipFault::Corrupt);
    }
    let mut length = 10;
    if flags & FLAG_EXTRA != 0 {
        let Some(size) = head.get(length..length + 2) else { return Ok(None) };
        length += 2 + usize::from(u16::from_le_bytes([size[0], size[1]]));
    }
    for flag in [FLAG_NAME, FLAG_COMMENT] {
        if flags & flag != 0 {
            let Some(end) = head.get(length..).and_then(|rest| memchr::memchr(0, rest)) else { return Ok(None) };
            length += end + 1;
        }
    }
    if flags & FLAG_HEADER_CRC != 0 {
        length += 2;
    }
    Ok((head.len() >= length).then_some(length))
}
