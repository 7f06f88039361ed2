//! WebSocket messages out of chunks, whole and to be kept, and frames into bytes, for either side of a connection.
//!
//! Reads frames as the network cut them, puts fragments together, undoes masks and caps what a message may hold: one over the
//! cap is left out, not held. What breaks the protocol is a [`WsFault`] with the close code that answers it. Extensions are
//! not known, so a reserved bit is a fault. Whether and when a ping is answered is not its business.
//! Spec: RFC 6455 §5, §7.4, §8.1.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::{CONTROL_BYTES_MAX, Opcode};
use crate::codec::SkipReason;

/// Most frames a message may be made of.
pub const FRAGMENTS_MAX: u32 = 131_072;
/// Longest head of a frame: two bytes, a length, a mask.
const HEAD_BYTES_MAX: usize = 14;
/// Kept of a message over the cap, in bytes.
const SKIPPED_HEAD_BYTES: usize = 256;

/// Which side of a connection is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// Frames of a server: never masked.
    Server,
    /// Frames of a client: always masked.
    Client,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WsItem {
    /// A whole text, checked to be UTF-8; a slice of the chunk when it lies in one frame inside one.
    Text(Bytes),
    /// Whole bytes.
    Binary(Bytes),
    /// A ping, to be answered with the same bytes.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// The other side closes, with its code if it gave one; nothing follows.
    Close(Option<u16>, String),
    /// A message that is left out, and its beginning.
    Skipped(SkipReason, Bytes),
}

/// The other side broke the protocol; the connection cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WsFault {
    /// Against the rules for frames.
    #[error("the frames break the protocol: {0}")]
    Protocol(&'static str),
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// A message of more than [`FRAGMENTS_MAX`] frames.
    #[error("a message has more than {FRAGMENTS_MAX} frames")]
    Fragments,
}

impl WsFault {
    /// The close code that answers it.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::Utf8 => 1007,
            Self::Fragments => 1009,
        }
    }
}

/// Reads the frames of one side.
#[derive(Debug)]
pub struct WsDecoder {
    sender: Sender,
    message_bytes_max: usize,
    /// The head of the next frame, as far as it came.
    head: Vec<u8>,
    frame: Option<Frame>,
    /// Payload of the control frame that is being read.
    control: BytesMut,
    message: Option<Message>,
}

/// The frame whose payload is being read.
#[derive(Debug)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    /// Bytes of the payload to come.
    left: u64,
    mask: Option<[u8; 4]>,
    /// Bytes of the payload that came.
    taken: usize,
}

/// The message that is being put together.
#[derive(Debug)]
struct Message {
    is_text: bool,
    fragments: u32,
    data: BytesMut,
    is_too_large: bool,
}

impl WsDecoder {
    /// A decoder that leaves messages over `message_bytes_max` out.
    #[must_use]
    pub fn new(sender: Sender, message_bytes_max: usize) -> Self {
        let head = Vec::with_capacity(HEAD_BYTES_MAX);
        Self { sender, message_bytes_max, head, frame: None, control: BytesMut::new(), message: None }
    }

    /// The next item complete inside `chunk`; `None` when the chunk is used up.
    ///
    /// # Errors
    /// [`WsFault`]; nothing more can be read after it.
    pub fn next(&mut self, chunk: &mut Bytes) -> Result<Option<WsItem>, WsFault> {
        loop {
            let Some(frame) = &mut self.frame else {
                if self.read_head(chunk)? {
                    continue;
                }
                return Ok(None);
            };
            let length = usize::try_from(frame.left).unwrap_or(usize::MAX).min(chunk.len());
            let mut part = chunk.split_to(length);
            frame.left -= length as u64;
            if let Some(mask) = frame.mask {
                part = unmasked(&part, mask, frame.taken);
            }
            // Only the last two bits of it are used.
            frame.taken = frame.taken.wrapping_add(length);
            let (opcode, is_final, is_whole) = (frame.opcode, frame.is_final, frame.left == 0);
            if is_whole {
                self.frame = None;
            }
            let item = if opcode.is_control() {
                self.control.extend_from_slice(&part);
                if is_whole { Some(control_item(opcode, self.control.split().freeze())?) } else { None }
            } else {
                self.take_data(part, is_whole && is_final)?
            };
            match item {
                Some(item) => return Ok(Some(item)),
                None if is_whole => {}
                None => return Ok(None),
            }
        }
    }

    /// Whether a message or a frame was begun and is not whole.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.frame.is_some() || self.message.is_some() || !self.head.is_empty()
    }

    /// Reads the head of a frame; `false` = the chunk is used up.
    fn read_head(&mut self, chunk: &mut Bytes) -> Result<bool, WsFault> {
        loop {
            let wanted = match self.head.as_slice() {
                [] | [_] => 2,
                [first, second, ..] => {
                    check_start(*first, *second, self.sender)?;
                    head_length(*second)
                }
            };
            if self.head.len() == wanted && wanted >= 2 {
                break;
            }
            if chunk.is_empty() {
                return Ok(false);
            }
            self.head.push(chunk.get_u8());
        }
        let frame = frame_of(&self.head)?;
        self.head.clear();
        self.begin(&frame)?;
        self.frame = Some(frame);
        Ok(true)
    }

    /// A data frame begins or continues a message.
    fn begin(&mut self, frame: &Frame) -> Result<(), WsFault> {
        match (frame.opcode, &mut self.message) {
            (opcode, _) if opcode.is_control() => Ok(()),
            (Opcode::Continuation, None) => Err(WsFault::Protocol("a continuation of nothing")),
            (Opcode::Continuation, Some(message)) => {
                message.fragments += 1;
                if message.fragments > FRAGMENTS_MAX { Err(WsFault::Fragments) } else { Ok(()) }
            }
            (_, Some(_)) => Err(WsFault::Protocol("a message inside another")),
            (opcode, none) => {
                let is_text = opcode == Opcode::Text;
                *none = Some(Message { is_text, fragments: 1, data: BytesMut::new(), is_too_large: false });
                Ok(())
            }
        }
    }

    fn take_data(&mut self, part: Bytes, is_end: bool) -> Result<Option<WsItem>, WsFault> {
        let message = self.message.as_mut().expect("invariant: a data frame belongs to a message");
        let room = self.message_bytes_max - message.data.len().min(self.message_bytes_max);
        if !message.is_too_large && part.len() > room {
            message.is_too_large = true;
            // What is kept for a look is copied, so that the rest of the buffer goes.
            let mut head = BytesMut::with_capacity(SKIPPED_HEAD_BYTES);
            head.extend_from_slice(&message.data[..message.data.len().min(SKIPPED_HEAD_BYTES)]);
            message.data = head;
        }
        if message.is_too_large {
            let left = SKIPPED_HEAD_BYTES - message.data.len();
            message.data.extend_from_slice(&part[..part.len().min(left)]);
        } else if !(is_end && message.data.is_empty()) {
            message.data.extend_from_slice(&part);
        }
        if !is_end {
            return Ok(None);
        }
        let message = self.message.take().expect("invariant: a data frame belongs to a message");
        if message.is_too_large {
            return Ok(Some(WsItem::Skipped(SkipReason::EventTooLarge, message.data.freeze())));
        }
        // Nothing was held: the message lies in this part as a whole.
        let data = if message.data.is_empty() { part } else { message.data.freeze() };
        match message.is_text {
            true if std::str::from_utf8(&data).is_err() => Err(WsFault::Utf8),
            true => Ok(Some(WsItem::Text(data))),
            false => Ok(Some(WsItem::Binary(data))),
        }
    }
}

fn check_start(first: u8, second: u8, sender: Sender) -> Result<(), WsFault> {
    let opcode = Opcode::parse(first & 0x0f).ok_or(WsFault::Protocol("an unknown kind of frame"))?;
    let is_masked = second & 0x80 != 0;
    match sender {
        _ if first & 0x70 != 0 => Err(WsFault::Protocol("a reserved bit is set")),
        Sender::Server if is_masked => Err(WsFault::Protocol("a masked frame from a server")),
        Sender::Client if !is_masked => Err(WsFault::Protocol("a frame from a client that is not masked")),
        _ if opcode.is_control() && first & 0x80 == 0 => Err(WsFault::Protocol("a control frame in fragments")),
        _ if opcode.is_control() && usize::from(second & 0x7f) > CONTROL_BYTES_MAX => {
            Err(WsFault::Protocol("a control frame of more than 125 bytes"))
        }
        _ => Ok(()),
    }
}

fn head_length(second: u8) -> usize {
    let length = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + length + if second & 0x80 == 0 { 0 } else { 4 }
}

/// The frame of a whole head that [`check_start`] let pass.
fn frame_of(head: &[u8]) -> Result<Frame, WsFault> {
    let mut rest = head;
    let (first, second) = (rest.get_u8(), rest.get_u8());
    let left = match second & 0x7f {
        126 => u64::from(rest.get_u16()),
        127 => rest.get_u64(),
        short => u64::from(short),
    };
    if left >> 63 != 0 {
        return Err(WsFault::Protocol("a length of 64 bits"));
    }
    let mask = <[u8; 4]>::try_from(rest).ok();
    let opcode = Opcode::parse(first & 0x0f).ok_or(WsFault::Protocol("an unknown kind of frame"))?;
    Ok(Frame { opcode, is_final: first & 0x80 != 0, left, mask, taken: 0 })
}

fn unmasked(part: &[u8], mask: [u8; 4], offset: usize) -> Bytes {
    part.iter().enumerate().map(|(index, byte)| byte ^ mask[offset.wrapping_add(index) % 4]).collect()
}

fn control_item(opcode: Opcode, mut payload: Bytes) -> Result<WsItem, WsFault> {
    match opcode {
        Opcode::Ping => Ok(WsItem::Ping(payload)),
        Opcode::Close if payload.is_empty() => Ok(WsItem::Close(None, String::new())),
        Opcode::Close if payload.len() == 1 => Err(WsFault::Protocol("half a close code")),
        Opcode::Close => {
            let code = payload.get_u16();
            if !is_close_code(code) {
                return Err(WsFault::Protocol("a close code that may not be sent"));
            }
            let reason = std::str::from_utf8(&payload).map_err(|_| WsFault::Utf8)?;
            Ok(WsItem::Close(Some(code), reason.to_owned()))
        }
        _ => Ok(WsItem::Pong),
    }
}

/// Whether a code may stand in a close frame.
///
/// Spec: RFC 6455 §7.4.1, §7.4.2 and the IANA registry.
#[must_use]
pub const fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Appends a whole frame; `mask` for a client.
pub fn write_frame(out: &mut BytesMut, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    out.reserve(HEAD_BYTES_MAX + payload.len());
    out.put_u8(0x80 | opcode as u8);
    let bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..=125 => out.put_u8(bit | u8::try_from(short).unwrap_or(0)),
        length => {
            if let Ok(length) = u16::try_from(length) {
                out.put_u8(bit | 0x7e);
                out.put_u16(length);
            } else {
                out.put_u8(bit | 0x7f);
                out.put_u64(length as u64);
            }
        }
    }
    match mask {
        None => out.put_slice(payload),
        Some(mask) => {
            out.put_slice(&mask);
            out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
        }
    }
}

/// Appends a close frame; a reason is cut to what fits.
pub fn write_close(out: &mut BytesMut, code: u16, reason: &str, mask: Option<[u8; 4]>) {
    let mut payload = BytesMut::with_capacity(CONTROL_BYTES_MAX);
    payload.put_u16(code);
    let end = (0..=reason.len().min(CONTROL_BYTES_MAX - 2)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    payload.put_slice(&reason.as_bytes()[..end]);
    write_frame(out, Opcode::Close, &payload, mask);
}

#[cfg(test)]
mod tests;
