//! The protocol `websocket`: a message an event, resumed by what a setting points at inside messages.
//!
//! Texts are JSON if they parse, text otherwise; bytes stay bytes. Pings of the upstream are answered, but not more often than
//! [`PONGS_PER_SECOND_MAX`]; our own keep a quiet connection known to be alive. While the relay is busy nothing is read.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::connection::UpstreamPipe;
use super::reconnect::{Ending, EndingClass};
use super::record::Record;
use super::{Protocol, Session, SettingsError, Source, record_bytes_max, runner};
use hookcast_core::codec::json;
use hookcast_core::codec::pointer::Pointer;
use hookcast_core::codec::websocket::Opcode;
use hookcast_core::codec::websocket::messages::{Sender, WsDecoder, WsItem, write_close, write_frame};
use hookcast_core::model::ResumeToken;
use hookcast_core::model::source::SourceSpec;
use hookcast_core::model::source::own::OwnSettings;
use hookcast_core::model::source::own::websocket::WebSocketSettings;

mod closing;
mod handshake;

pub(super) const PROTOCOL: Protocol = Protocol { name: "websocket", check, open: |spec| Box::new(WebSocket::new(spec)) };

/// Most pings of an upstream that are answered in a second; of those in between only the last is.
const PONGS_PER_SECOND_MAX: u32 = 100;
/// Time between two pongs.
const PONG_EVERY: Duration = Duration::from_millis(1000 / PONGS_PER_SECOND_MAX as u64);
/// Time that our close frame may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// Pings that go out before silence counts as the end.
const PINGS_IN_IDLE_TIMEOUT: u32 = 3;

fn check(spec: &SourceSpec) -> Result<(), SettingsError> {
    if spec.settings.method != "GET" {
        return Err(SettingsError { pointer: "/settings/method", problem: "a WebSocket is asked for by GET".to_owned() });
    }
    if let OwnSettings::WebSocket(own) = &spec.settings.own
        && let Some(Err(error)) = own.resume.as_deref().map(Pointer::parse)
    {
        return Err(SettingsError { pointer: "/settings/resume", problem: error.to_string() });
    }
    Ok(())
}

struct WebSocket {
    settings: WebSocketSettings,
    position: Option<Pointer>,
    message_bytes_max: usize,
}

impl WebSocket {
    fn new(spec: &SourceSpec) -> Self {
        let settings = match &spec.settings.own {
            OwnSettings::WebSocket(settings) => (**settings).clone(),
            _ => WebSocketSettings::default(),
        };
        let position = settings.resume.as_deref().and_then(|text| Pointer::parse(text).ok());
        Self { settings, position, message_bytes_max: record_bytes_max(&spec.settings) }
    }
}

#[async_trait]
impl Source for WebSocket {
    async fn run(&mut self, session: &mut Session) -> Ending {
        let pipe = match handshake::shake(session, &self.settings.subprotocols).await {
            Ok(pipe) => pipe,
            Err(ending) => return ending,
        };
        session.connected().await;
        let mut talk = Talk::new(pipe, self, session.idle_timeout());
        let ending = talk.hold(session).await;
        talk.say_goodbye(&ending).await;
        match session.flush().await {
            Ok(()) => ending,
            Err(stopped) => stopped,
        }
    }
}

/// One connection, from the handshake to the close.
struct Talk<'a> {
    source: &'a WebSocket,
    pipe: Box<dyn UpstreamPipe>,
    decoder: WsDecoder,
    idle_timeout: Duration,
    ping_every: Duration,
    /// When something last came, or was handed on.
    heard_at: Instant,
    ping_at: Instant,
    /// The last ping that was not answered.
    owed: Option<Bytes>,
    /// No pong goes out before.
    pong_at: Instant,
    /// What our close frame says; `None` = the other side is gone or said it first, with nothing to repeat.
    goodbye: Option<u16>,
}

impl<'a> Talk<'a> {
    fn new(pipe: Box<dyn UpstreamPipe>, source: &'a WebSocket, idle_timeout: Duration) -> Self {
        let now = Instant::now();
        let ping_every = source.settings.ping.min(idle_timeout / PINGS_IN_IDLE_TIMEOUT);
        Self {
            source,
            pipe,
            decoder: WsDecoder::new(Sender::Server, source.message_bytes_max),
            idle_timeout,
            ping_every,
            heard_at: now,
            ping_at: now + ping_every,
            owed: None,
            pong_at: now,
            goodbye: None,
        }
    }

    /// Says what is to be said at the beginning, then reads to the end.
    async fn hold(&mut self, session: &mut Session) -> Ending {
        let mut opening = BytesMut::new();
        for message in self.source.settings.opening(session.resume().map(ResumeToken::as_str)) {
            write_frame(&mut opening, Opcode::Text, message.as_bytes(), Some(mask()));
        }
        if !opening.is_empty()
            && let Err(ending) = session.write(self.pipe.as_mut(), &opening).await
        {
            return ending;
        }
        loop {
            if let Err(ending) = self.step(session).await {
                return ending;
            }
        }
    }

    async fn step(&mut self, session: &mut Session) -> Result<(), Ending> {
        let wake_at = self.owed.as_ref().map_or(self.ping_at, |_| self.pong_at.min(self.ping_at));
        let came = tokio::select! {
            biased;
            chunk = session.next_chunk_by(self.pipe.as_mut(), self.heard_at + self.idle_timeout) => Some(chunk?),
            () = tokio::time::sleep_until(wake_at) => None,
        };
        match came {
            Some(Some(chunk)) => self.take(chunk, session).await?,
            Some(None) if self.decoder.is_inside() => {
                return Err(Ending::new(EndingClass::Lost, "truncated", "the connection ended inside a message"));
            }
            Some(None) => return Err(Ending::new(EndingClass::Lost, "eof", "the connection ended without a close")),
            None => {}
        }
        self.speak(session).await
    }

    async fn take(&mut self, mut chunk: Bytes, session: &mut Session) -> Result<(), Ending> {
        loop {
            match self.decoder.next(&mut chunk) {
                Ok(None) => break,
                Ok(Some(item)) => self.item(item, session)?,
                Err(fault) => {
                    self.goodbye = Some(fault.code());
                    return Err(closing::broken(fault));
                }
            }
            if session.is_full() {
                session.flush().await?;
            }
        }
        session.flush().await?;
        self.heard_at = Instant::now();
        Ok(())
    }

    fn item(&mut self, item: WsItem, session: &mut Session) -> Result<(), Ending> {
        match item {
            WsItem::Text(data) => session.record(self.text(data)),
            WsItem::Binary(data) => {
                let content_type = Some("application/octet-stream".to_owned());
                session.record(Record { data, content_type, ..Record::default() });
            }
            WsItem::Ping(payload) => self.owed = Some(payload),
            WsItem::Pong => {}
            WsItem::Skipped(reason, head) => session.skipped(reason, head),
            WsItem::Close(code, reason) => {
                self.goodbye = Some(code.unwrap_or(closing::NORMAL));
                return Err(closing::closed(code, &reason));
            }
        }
        Ok(())
    }

    fn text(&self, data: Bytes) -> Record {
        let (is_json, resume) = match json::check(&data) {
            Ok(text) => {
                let position = self.source.position.as_ref().and_then(|pointer| pointer.text(text));
                (true, position.and_then(|position| ResumeToken::parse(&position)))
            }
            Err(_) => (false, None),
        };
        Record { data, is_json, resume, ..Record::default() }
    }

    /// Sends the pong and the ping that are due.
    async fn speak(&mut self, session: &Session) -> Result<(), Ending> {
        let now = Instant::now();
        let mut frames = BytesMut::new();
        if now >= self.pong_at
            && let Some(payload) = self.owed.take()
        {
            write_frame(&mut frames, Opcode::Pong, &payload, Some(mask()));
            self.pong_at = now + PONG_EVERY;
        }
        if now >= self.ping_at {
            write_frame(&mut frames, Opcode::Ping, &[], Some(mask()));
            self.ping_at = now + self.ping_every;
        }
        if frames.is_empty() { Ok(()) } else { session.write(self.pipe.as_mut(), &frames).await }
    }

    /// Sends our close frame, if there is anybody to hear it.
    async fn say_goodbye(&mut self, ending: &Ending) {
        let code = match ending.class {
            EndingClass::Cancelled => Some(closing::GOING_AWAY),
            _ => self.goodbye,
        };
        let Some(code) = code else { return };
        let mut frame = BytesMut::new();
        write_close(&mut frame, code, "", Some(mask()));
        // Whether it arrives makes no difference any more.
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, self.pipe.write(&frame)).await;
    }
}

/// A mask nobody can foresee, so that no proxy takes what we say for something else.
fn mask() -> [u8; 4] {
    let [a, b, c, d, ..] = runner::seed();
    [a, b, c, d]
}
