//! The opening handshake: what is asked, and whether the answer may be believed.
//!
//! No extension is offered, so none may be named. Spec: RFC 6455 §4.1.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::connection::UpstreamPipe;
use crate::reconnect::{Ending, EndingClass};
use crate::{Session, runner};

/// Asks for a WebSocket; a connection that stands.
pub(super) async fn shake(session: &mut Session, subprotocols: &[String]) -> Result<Box<dyn UpstreamPipe>, Ending> {
    let key = BASE64.encode(runner::seed());
    let asked = session.upgrade(headers(&key, subprotocols)).await;
    // What is no HTTP, or too much of it, is no handshake either.
    let (pipe, answer) =
        asked.map_err(|ending| if ending.slug == "protocol" { Ending { slug: "handshake", ..ending } } else { ending })?;
    match judge(&answer, &key, subprotocols) {
        Ok(()) => Ok(pipe),
        Err(problem) => Err(Ending::new(EndingClass::Failed, "handshake", format!("the upstream's handshake {problem}"))),
    }
}

fn headers(key: &str, subprotocols: &[String]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(CONNECTION, "Upgrade");
    put(UPGRADE, "websocket");
    put(SEC_WEBSOCKET_VERSION, "13");
    put(SEC_WEBSOCKET_KEY, key);
    if !subprotocols.is_empty() {
        put(SEC_WEBSOCKET_PROTOCOL, &subprotocols.join(", "));
    }
    headers
}

fn judge(answer: &HeaderMap, key: &str, subprotocols: &[String]) -> Result<(), &'static str> {
    let text = |name: HeaderName| answer.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let names_upgrade = |value: &HeaderValue| {
        value.to_str().is_ok_and(|text| text.split(',').any(|token| token.trim().eq_ignore_ascii_case("upgrade")))
    };
    if !text(UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case("websocket")) {
        return Err("names another protocol than websocket");
    }
    if !answer.get_all(CONNECTION).iter().any(names_upgrade) {
        return Err("lacks `Connection: Upgrade`");
    }
    if text(SEC_WEBSOCKET_ACCEPT) != Some(derive_accept_key(key.as_bytes()).as_str()) {
        return Err("does not answer this key");
    }
    if answer.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().any(|value| !value.as_bytes().trim_ascii().is_empty()) {
        return Err("names an extension that was not offered");
    }
    // One that chooses none is left to those who read the messages: many servers ignore what they do not know.
    if answer.contains_key(SEC_WEBSOCKET_PROTOCOL)
        && !text(SEC_WEBSOCKET_PROTOCOL).is_some_and(|chosen| subprotocols.iter().any(|name| name == chosen))
    {
        return Err("chooses a subprotocol that was not offered");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    // Spec: RFC 6455 §1.3.
    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn judged(change: impl FnOnce(&mut HeaderMap)) -> Result<(), &'static str> {
        let mut answer = HeaderMap::new();
        answer.insert(UPGRADE, HeaderValue::from_static("WebSocket"));
        answer.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        answer.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        change(&mut answer);
        judge(&answer, KEY, &["a.v1".to_owned(), "b".to_owned()])
    }

    #[test]
    fn only_a_whole_handshake_is_believed() {
        assert_eq!(judged(|_| ()), Ok(()));
        assert!(judged(|answer| drop(answer.remove(UPGRADE))).is_err());
        assert!(judged(|answer| drop(answer.remove(CONNECTION))).is_err());
        assert!(judged(|answer| drop(answer.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_static("x")))).is_err());
        let extension = HeaderValue::from_static("permessage-deflate");
        assert!(judged(|answer| drop(answer.insert(SEC_WEBSOCKET_EXTENSIONS, extension))).is_err());
        let chosen =
            |name: &'static str| judged(|answer| drop(answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name))));
        assert_eq!(chosen("b"), Ok(()));
        assert!(chosen("c").is_err());
        assert!(chosen("a.v1, b").is_err());
    }
}
