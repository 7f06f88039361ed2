//! A message an event; pings and the close of the client are answered, what else it says is not listened to.
//!
//! Spec: RFC 6455 §4.2.2, §5.5.

use actix_web::http::StatusCode;
use actix_web::http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::{self, Stream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::protocol::{Protocol, Way};
use hookcast_core::codec::websocket::Opcode;
use hookcast_core::codec::websocket::messages::{Sender, WsDecoder, WsItem, write_close, write_frame};

pub(super) const PROTOCOL: Protocol = Protocol {
    name: "websocket",
    content_type: "",
    way: Way::WebSocket,
    write: |record, _, out| {
        let opcode = if std::str::from_utf8(&record.data).is_ok() { Opcode::Text } else { Opcode::Binary };
        write_frame(out, opcode, &record.data, None);
    },
};

/// Longest message of a client that is read, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Answers to a client that wait to be sent.
const REPLIES_MAX: usize = 16;

/// Answers a handshake and sends `events`, which are frames, until they or the client end.
pub(super) fn talk(
    request: &HttpRequest,
    payload: web::Payload,
    events: impl Stream<Item = Result<Bytes, std::io::Error>> + 'static,
) -> HttpResponse {
    let Some(key) = request.headers().get(SEC_WEBSOCKET_KEY) else {
        return HttpResponse::UpgradeRequired().insert_header(("upgrade", "websocket")).body("this is a WebSocket\n");
    };
    let accept = derive_accept_key(key.as_bytes());
    let (replies, mut waiting) = mpsc::channel(REPLIES_MAX);
    actix_web::rt::spawn(listen(payload, replies));
    let goodbye = stream::once(async {
        let mut frame = BytesMut::new();
        write_close(&mut frame, 1000, "the recording is over", None);
        Ok(frame.freeze())
    });
    // Once the client is gone there is nothing to be answered, and nobody to answer.
    let answers = stream::poll_fn(move |context| waiting.poll_recv(context)).map(Ok);
    let mut events = Box::pin(events.chain(goodbye));
    let mut answers = Box::pin(answers);
    let frames = stream::poll_fn(move |context| match answers.poll_next_unpin(context) {
        std::task::Poll::Pending => events.poll_next_unpin(context),
        ready @ std::task::Poll::Ready(_) => ready,
    });
    HttpResponse::build(StatusCode::SWITCHING_PROTOCOLS)
        .upgrade("websocket")
        .insert_header((SEC_WEBSOCKET_ACCEPT, accept))
        .streaming(frames)
}

/// Reads what a client says, to its close.
async fn listen(mut payload: web::Payload, replies: mpsc::Sender<Bytes>) {
    let mut decoder = WsDecoder::new(Sender::Client, MESSAGE_BYTES_MAX);
    while let Some(Ok(mut chunk)) = payload.next().await {
        loop {
            let mut frame = BytesMut::new();
            let is_last = match decoder.next(&mut chunk) {
                Ok(None) => break,
                Ok(Some(WsItem::Ping(data))) => {
                    write_frame(&mut frame, Opcode::Pong, &data, None);
                    false
                }
                Ok(Some(WsItem::Close(code, _))) => {
                    write_close(&mut frame, code.unwrap_or(1000), "", None);
                    true
                }
                Ok(Some(_)) => continue,
                Err(fault) => {
                    write_close(&mut frame, fault.code(), "", None);
                    true
                }
            };
            if replies.send(frame.freeze()).await.is_err() || is_last {
                return;
            }
        }
    }
}
