//! Server-sent events: the decoder of `text/event-stream` bodies and the encoder of our own.
//!
//! Spec: HTML, "Server-sent events".

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{BLOCK_OVERHEAD_BYTES, RETRY_MS_MAX, SseDecoder, SseEvent, SseItem};
pub use encode::{write_block, write_comment, write_heartbeat};
