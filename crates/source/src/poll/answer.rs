//! The body of one answer: read whole, gzip undone, held to a maximum.

use bytes::{Bytes, BytesMut};

use crate::Session;
use crate::connection::UpstreamResponse;
use crate::reconnect::{Ending, EndingClass};
use crate::stream::{decode_ending, is_gzip};
use hookcast_core::codec::gzip::GzipDecoder;

/// Reads the body to its end.
///
/// # Errors
/// The [`Ending`] when it breaks off, is longer than `bytes_max` once decoded, or cannot be decoded.
pub(super) async fn body(session: &mut Session, response: &mut UpstreamResponse, bytes_max: u64) -> Result<Bytes, Ending> {
    let mut gzip = is_gzip(&response.headers)?.then(GzipDecoder::new);
    let mut whole = BytesMut::new();
    while let Some(chunk) = session.next_chunk(response.body.as_mut()).await? {
        match &mut gzip {
            None => append(&mut whole, &chunk, bytes_max)?,
            Some(gzip) => {
                gzip.feed(chunk);
                while let Some(piece) = gzip.next_piece().map_err(decode_ending)? {
                    append(&mut whole, &piece, bytes_max)?;
                }
            }
        }
    }
    gzip.as_ref().map_or(Ok(()), GzipDecoder::finish).map_err(decode_ending)?;
    Ok(whole.freeze())
}

fn append(whole: &mut BytesMut, piece: &[u8], bytes_max: u64) -> Result<(), Ending> {
    if (whole.len() + piece.len()) as u64 > bytes_max {
        let detail = format!("the answer has more than {bytes_max} bytes; `max_body_bytes` may allow more");
        return Err(Ending::new(EndingClass::Failed, "body_too_large", detail));
    }
    whole.extend_from_slice(piece);
    Ok(())
}
