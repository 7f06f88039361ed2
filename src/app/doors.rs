//! Where a relay listens: bound before anything else is put together, served at the end.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use actix_web::dev::Server;

use super::AppError;
use crate::config::{Config, Limits};
use hookcast_http::{HttpState, ServerSettings};
use hookcast_streams::Egress;

mod descriptors;

/// Listeners that are bound.
pub(super) struct Doors {
    http: Door,
    plain: Option<Door>,
}

struct Door {
    key: &'static str,
    wanted: SocketAddr,
    listener: TcpListener,
    bound: SocketAddr,
}

impl Doors {
    /// Binds what `[server]` names.
    pub(super) fn bind(config: &Config) -> Result<Self, AppError> {
        let http = Door::bind("listen", config.server.listen)?;
        let plain = config.server.tcp_listen.map(|address| Door::bind("tcp_listen", address)).transpose()?;
        Ok(Self { http, plain })
    }

    /// Where HTTP is spoken, and where it is not.
    pub(super) fn addresses(&self) -> (SocketAddr, Option<SocketAddr>) {
        (self.http.bound, self.plain.as_ref().map(|door| door.bound))
    }

    /// Opens them.
    pub(super) fn serve(
        self,
        state: Arc<HttpState>,
        limits: &Limits,
        workers: usize,
        egress: &Egress,
    ) -> Result<Server, AppError> {
        let room = descriptors::room(limits, workers);
        let settings = ServerSettings { workers, room, ..ServerSettings::default() };
        let Door { key, wanted: address, listener, .. } = self.http;
        let plain = self.plain.map(|door| door.listener);
        let served = hookcast_http::serve_both(listener, plain, state, settings, egress);
        served.map_err(|source| AppError::Listen { key, address, source })
    }
}

impl Door {
    fn bind(key: &'static str, wanted: SocketAddr) -> Result<Self, AppError> {
        let (listener, bound) = listen(wanted).map_err(|source| AppError::Listen { key, address: wanted, source })?;
        Ok(Self { key, wanted, listener, bound })
    }
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}
