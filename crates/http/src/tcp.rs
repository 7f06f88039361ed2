//! The door without HTTP: two lines in, one line of answer, then a stream of JSON forms until either side ends it.
//!
//! Served by the same workers as HTTP, under the same tokens and limits, from the same rings. Browsers can be made to send
//! their requests anywhere; none of them begins like the lines read here ([`lines`]), so that no page can speak to this door.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::HttpState;
use super::auth::Scope;
use super::connections::{NO_ROOM, Room, Seat};
use super::problem::{self, Problem};

use hookcast_streams::plain::{self, Plain};
use hookcast_streams::{Allowance, Worker, socket};
use hookcast_supervise::caught;
use hookcast_supervise::deadline::within;

mod lines;

use lines::{Ending, Lines};

/// Most bytes of the two lines together, with what ends them.
pub const LINES_BYTES_MAX: usize = 4096;
/// Time for the two lines.
const LINES_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a client to take the answer to lines that were refused.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves one accepted connection to its end. The part before the stream has a box of its own, so that a stream does not keep its
/// space.
pub(super) fn serve(
    socket: TcpStream,
    state: Arc<HttpState>,
    worker: Worker,
    room: &Room,
) -> Pin<Box<dyn Future<Output = Result<(), ()>>>> {
    let peer = socket.peer_addr().ok().map(|address| address.ip());
    let Some(seat) = room.enter(peer, Instant::now()) else {
        let parting = room.clone().part(socket, format!("error {} {NO_ROOM}\n", problem::UNAVAILABLE.slug));
        return Box::pin(async move {
            parting.await;
            Ok(())
        });
    };
    let greeting = Box::pin(greet(socket, state, worker));
    Box::pin(async move {
        let _seat: Seat = seat;
        match caught(greeting).await {
            Ok(Some((stream, socket))) => stream.write_to(socket).await,
            Ok(None) => {}
            Err(panic) => panic.tell("connection", "this connection ends, no other does"),
        }
        Ok(())
    })
}

async fn greet(mut socket: TcpStream, state: Arc<HttpState>, worker: Worker) -> Option<(Plain, TcpStream)> {
    // The connection works without these options, too; a dead peer is only noticed later.
    let _ = socket::harden(&socket);
    let peer = socket.peer_addr().ok().map(|address| address.ip());
    let mut said = Vec::new();
    let heard = match within(LINES_TIMEOUT, listen(&mut socket, &mut said)).await {
        Some(None) => return None,
        Some(Some(lines)) => lines,
        None => {
            let detail = format!("the two lines did not come within {} s", LINES_TIMEOUT.as_secs());
            Err(Problem::of_slug("lines_timeout", 408, detail))
        }
    };
    let ending = heard.as_ref().map_or(Ending::LineFeed, |lines| lines.ending);
    let opened = match heard {
        Ok(lines) => open(&state, &worker, peer, &lines).await,
        Err(problem) => Err(problem),
    };
    match opened {
        Ok(stream) => {
            let answer = format!("ok {}{}", stream.position(), ending.as_char());
            socket.write_all(answer.as_bytes()).await.ok()?;
            Some((stream, socket))
        }
        Err(problem) => {
            let detail = problem.detail().replace(char::is_control, " ");
            let answer = format!("error {} {detail}{}", problem.slug(), ending.as_char());
            let _ = tokio::time::timeout(REFUSAL_TIMEOUT, refuse(&mut socket, answer.as_bytes())).await;
            None
        }
    }
}

/// Reads until the lines are there or cannot be lines any more; `None` when the client goes before that.
async fn listen<'a>(socket: &mut TcpStream, said: &'a mut Vec<u8>) -> Option<Result<Lines<'a>, Problem>> {
    loop {
        match Lines::read(said) {
            Ok(None) => {}
            // Read again for the caller: the borrow of a loop ends with its turn.
            Ok(Some(_)) => return Lines::read(said).transpose(),
            Err(problem) => return Some(Err(problem)),
        }
        if said.len() >= LINES_BYTES_MAX {
            let detail = format!("the two lines together have at most {LINES_BYTES_MAX} bytes");
            return Some(Err(Problem::of_slug("lines_too_long", 413, detail)));
        }
        let room = (LINES_BYTES_MAX - said.len()) as u64;
        if !matches!((&mut *socket).take(room).read_buf(said).await, Ok(read) if read > 0) {
            return None;
        }
    }
}

async fn open(state: &HttpState, worker: &Worker, peer: Option<IpAddr>, lines: &Lines<'_>) -> Result<Plain, Problem> {
    let caller = state.auth.require_token(lines.token, peer, Scope::Stream)?;
    let ask = lines.ask()?;
    caller.follow(&ask.patterns)?;
    let seat = caller.seat(&state.clock)?.map(|seat| Rc::new(seat) as Rc<dyn Allowance>);
    Ok(plain::open(worker, ask, seat).await?)
}

/// Says why not, and waits for the client to go: closing over unread bytes would take the answer away from it.
async fn refuse(socket: &mut TcpStream, answer: &[u8]) -> std::io::Result<()> {
    socket.write_all(answer).await?;
    socket.shutdown().await?;
    let mut ignored = [0; 512];
    while socket.read(&mut ignored).await? > 0 {}
    Ok(())
}
