//! Frames of the WebSocket protocol: what a client sends, cut anywhere, and the heads of what a server sends.
//!
//! Reads as a server must: masked, unextended, in order, within bounds. Of a message it keeps as little as whoever reads it
//! needs, however long it is. Writes frames that are whole messages, unmasked. What a message means is not its business.
//!
//! Spec: RFC 6455, sections 5 and 7.4.

use bytes::{BufMut as _, BytesMut};

pub mod messages;
mod utf8;

use utf8::Utf8;

/// Largest frame and largest message that is read, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// As many bytes of a text are kept; of a longer one only its length is known.
pub const TEXT_BYTES_KEPT: usize = 256;
/// Most bytes a ping, pong or close may carry.
pub const CONTROL_BYTES_MAX: usize = 125;

/// Largest head of a frame that a server sends.
const HEAD_BYTES_MAX: usize = 10;
/// Head of a frame of 126 to 65,535 bytes, as most events are.
const USUAL_HEAD_BYTES: usize = 4;
const FIN: u8 = 0x80;
const RESERVED_BITS: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const MASK_BYTES: usize = 4;

/// What a frame carries, as its opcode says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// More of a message.
    Continuation = 0x0,
    /// Text, or its beginning.
    Text = 0x1,
    /// Bytes, or their beginning.
    Binary = 0x2,
    /// The last frame of its sender.
    Close = 0x8,
    /// To be answered.
    Ping = 0x9,
    /// An answer, or a sign of life.
    Pong = 0xa,
}

impl Opcode {
    fn parse(bits: u8) -> Option<Self> {
        let all = [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong];
        all.into_iter().find(|opcode| *opcode as u8 == bits)
    }

    fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// What a client said, once it is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text; `None` when it is longer than [`TEXT_BYTES_KEPT`].
    Text(Option<String>),
    /// Bytes, or the beginning of them: nobody waits for the rest.
    Binary,
    /// A ping and what it carries.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// The last frame, with the status code if it has one.
    Close(Option<u16>),
}

/// Why the connection has to be failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The protocol was not followed.
    #[error("{0}")]
    Protocol(&'static str),
    /// A text that is not UTF-8.
    #[error("a text that is not UTF-8")]
    NotUtf8,
    /// A frame or message over [`MESSAGE_BYTES_MAX`].
    #[error("a message over 64 KiB")]
    TooLarge,
}

impl Violation {
    /// The status code of the close frame that answers it.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Protocol(_) => 1002,
            Self::NotUtf8 => 1007,
            Self::TooLarge => 1009,
        }
    }

    /// The reason in it.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Protocol(reason) => reason,
            Self::NotUtf8 => "a text that is not UTF-8",
            Self::TooLarge => "a message over 64 KiB",
        }
    }
}

/// Reads what a client sends. After a [`Violation`] it must not be asked again.
#[derive(Debug, Default)]
pub struct Decoder {
    head: Vec<u8>,
    frame: Option<Frame>,
    /// The message of which a frame was final not yet.
    message: Option<Opcode>,
    message_bytes: usize,
    utf8: Utf8,
    /// What is kept of the message.
    text: Vec<u8>,
    /// What the control frame under way carries.
    control: Vec<u8>,
    frames: u64,
}

/// A frame whose head was read.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: Opcode,
    is_final: bool,
    mask: [u8; MASK_BYTES],
    bytes: usize,
    read: usize,
}

impl Decoder {
    /// Frames that were begun so far.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Takes bytes from the front of `input`, which it unmasks in place: how many, and what they completed. Nothing completed
    /// means that all were taken.
    ///
    /// # Errors
    /// [`Violation`]; what stands behind it cannot be read.
    pub fn next(&mut self, input: &mut [u8]) -> Result<(usize, Option<Message>), Violation> {
        let mut taken = 0;
        while taken < input.len() {
            if self.frame.is_none() {
                self.head.push(input[taken]);
                taken += 1;
                self.frame = self.parse_head()?;
                if self.frame.is_none() {
                    continue;
                }
                self.head = Vec::new();
                self.frames += 1;
            }
            let Some(mut frame) = self.frame.take() else { continue };
            let part = (frame.bytes - frame.read).min(input.len() - taken);
            let payload = &mut input[taken..taken + part];
            for (at, byte) in payload.iter_mut().enumerate() {
                *byte ^= frame.mask[(frame.read + at) % MASK_BYTES];
            }
            taken += part;
            frame.read += part;
            self.keep(frame.opcode, payload)?;
            if frame.read < frame.bytes {
                self.frame = Some(frame);
            } else if let Some(message) = self.complete(frame)? {
                return Ok((taken, Some(message)));
            }
        }
        Ok((taken, None))
    }

    /// The head, once it is whole; judged as early as its bytes allow.
    fn parse_head(&mut self) -> Result<Option<Frame>, Violation> {
        let head = &self.head;
        let [first, second, ref rest @ ..] = head[..] else { return Ok(None) };
        if first & RESERVED_BITS != 0 {
            return Err(Violation::Protocol("reserved bits without an extension"));
        }
        let opcode = Opcode::parse(first & OPCODE).ok_or(Violation::Protocol("an unknown opcode"))?;
        let (is_final, short) = (first & FIN != 0, usize::from(second & !MASKED));
        if second & MASKED == 0 {
            return Err(Violation::Protocol("an unmasked frame"));
        }
        if opcode.is_control() && !(is_final && short <= CONTROL_BYTES_MAX) {
            return Err(Violation::Protocol("a control frame that is long or fragmented"));
        }
        match (opcode, self.message) {
            (Opcode::Continuation, None) => return Err(Violation::Protocol("a continuation of nothing")),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(Violation::Protocol("a message inside another")),
            _ => {}
        }
        let length_bytes = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some((length, mask)) = rest.split_at_checked(length_bytes) else { return Ok(None) };
        let length = length.iter().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
        let bytes = match length_bytes {
            0 => short,
            2 if length < 126 => return Err(Violation::Protocol("a length in more bytes than it needs")),
            8 if u16::try_from(length).is_ok() => return Err(Violation::Protocol("a length in more bytes than it needs")),
            _ => usize::try_from(length).unwrap_or(usize::MAX),
        };
        let before = if opcode.is_control() { 0 } else { self.message_bytes };
        if bytes > MESSAGE_BYTES_MAX - before {
            return Err(Violation::TooLarge);
        }
        let mask = <[u8; MASK_BYTES]>::try_from(mask).ok();
        Ok(mask.map(|mask| Frame { opcode, is_final, mask, bytes, read: 0 }))
    }

    /// Takes what is unmasked.
    fn keep(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), Violation> {
        if opcode.is_control() {
            self.control.extend_from_slice(payload);
            return Ok(());
        }
        self.message = self.message.or(Some(opcode));
        self.message_bytes += payload.len();
        if self.message == Some(Opcode::Text) {
            if !self.utf8.push(payload) {
                return Err(Violation::NotUtf8);
            }
            if self.message_bytes <= TEXT_BYTES_KEPT {
                self.text.extend_from_slice(payload);
            }
        }
        Ok(())
    }

    /// What a frame that is whole completes.
    fn complete(&mut self, frame: Frame) -> Result<Option<Message>, Violation> {
        let message = match frame.opcode {
            Opcode::Ping => Message::Ping(std::mem::take(&mut self.control)),
            Opcode::Pong => {
                self.control = Vec::new();
                Message::Pong
            }
            Opcode::Close => Message::Close(close_code(&std::mem::take(&mut self.control))?),
            _ if self.message == Some(Opcode::Binary) => Message::Binary,
            _ if frame.is_final => {
                if !self.utf8.is_whole() {
                    return Err(Violation::NotUtf8);
                }
                let text = String::from_utf8(std::mem::take(&mut self.text)).ok();
                Message::Text(text.filter(|_| self.message_bytes <= TEXT_BYTES_KEPT))
            }
            _ => return Ok(None),
        };
        if frame.is_final && !frame.opcode.is_control() {
            (self.message, self.message_bytes) = (None, 0);
        }
        Ok(Some(message))
    }
}

/// The status code of a close frame.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Violation> {
    match payload {
        [] => Ok(None),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                return Err(Violation::Protocol("a close code that must not be sent"));
            }
            if std::str::from_utf8(reason).is_err() {
                return Err(Violation::NotUtf8);
            }
            Ok(Some(code))
        }
        [_] => Err(Violation::Protocol("half a close code")),
    }
}

/// Appends a frame that carries what `write` appends.
pub fn write_frame(out: &mut BytesMut, opcode: Opcode, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    // Room for the head that most frames have; the others are moved once they are known.
    out.put_bytes(0, USUAL_HEAD_BYTES);
    write(out);
    let length = out.len() - start - USUAL_HEAD_BYTES;
    let mut head = [0; HEAD_BYTES_MAX];
    head[0] = FIN | opcode as u8;
    let head_bytes = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if usize::from(short) <= CONTROL_BYTES_MAX => {
            head[1] = short;
            2
        }
        (_, Ok(medium)) => {
            head[1] = 126;
            head[2..4].copy_from_slice(&medium.to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            10
        }
    };
    let payload = start + USUAL_HEAD_BYTES;
    if head_bytes > USUAL_HEAD_BYTES {
        out.put_bytes(0, head_bytes - USUAL_HEAD_BYTES);
    }
    if head_bytes != USUAL_HEAD_BYTES {
        out.copy_within(payload..payload + length, start + head_bytes);
    }
    out[start..start + head_bytes].copy_from_slice(&head[..head_bytes]);
    out.truncate(start + head_bytes + length);
}

/// Appends a close frame; a reason needs a code and is cut to what fits.
pub fn write_close(out: &mut BytesMut, code: Option<u16>, reason: &str) {
    write_frame(out, Opcode::Close, |out| {
        let Some(code) = code else { return };
        out.put_u16(code);
        out.put_slice(&reason.as_bytes()[..reason.floor_char_boundary(CONTROL_BYTES_MAX - 2)]);
    });
}

#[cfg(test)]
mod tests;
