//! How a session asks its upstream: under the watch, with the source's credentials, for a body or for another protocol.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::HeaderMap;

use super::Session;
use crate::connection::{self, ConnectFault, UpstreamPipe, UpstreamRequest, UpstreamResponse};
use crate::credentials::Shown;
use crate::reconnect::{Ending, EndingClass};
use crate::request::request;
use hookcast_supervise::deadline::within;

impl Session {
    /// Sends the source's request and waits for a 200 or 204.
    ///
    /// # Errors
    /// The [`Ending`] that any other answer, none within the idle timeout, or being stopped means.
    pub async fn request(&mut self, accept: &'static str) -> Result<UpstreamResponse, Ending> {
        let request = request(&self.upstream.spec, accept, self.resume.as_ref());
        let response = self.exchange(request).await?;
        match connection::refusal(response.status, &response.headers, self.context.clock.now()) {
            Some(ending) => Err(ending),
            None => Ok(response),
        }
    }

    /// Sends a request with the source's credentials and waits for whatever is answered; once more when the upstream refuses a
    /// token that was held.
    ///
    /// # Errors
    /// The [`Ending`] that no answer within the idle timeout, no token, or being stopped means.
    pub async fn exchange(&mut self, request: UpstreamRequest) -> Result<UpstreamResponse, Ending> {
        let client = Arc::clone(&self.context.client);
        self.ask(request, |request| client.fetch(request), |response| response.status).await
    }

    /// Sends the source's request with `more` headers, which ask for another protocol, and waits for a 101.
    ///
    /// # Errors
    /// The [`Ending`] that any other answer, none within the idle timeout, or being stopped means.
    pub(crate) async fn upgrade(&mut self, more: HeaderMap) -> Result<(Box<dyn UpstreamPipe>, HeaderMap), Ending> {
        let mut request = request(&self.upstream.spec, "*/*", self.resume.as_ref());
        request.headers.extend(more);
        let client = Arc::clone(&self.context.client);
        let answer = self.ask(request, |request| client.upgrade(request), |answer| answer.status).await?;
        if let Some(pipe) = answer.pipe {
            return Ok((pipe, answer.headers));
        }
        Err(connection::refusal(answer.status, &answer.headers, self.context.clock.now()).unwrap_or_else(|| {
            let detail = format!("the upstream does not change the protocol ({})", answer.status.as_u16());
            Ending::new(EndingClass::Failed, "handshake", detail)
        }))
    }

    async fn ask<T, A>(
        &mut self,
        mut request: UpstreamRequest,
        asking: impl Fn(UpstreamRequest) -> A + Send + Sync,
        status: impl Fn(&T) -> StatusCode + Send + Sync,
    ) -> Result<T, Ending>
    where
        A: Future<Output = Result<T, ConnectFault>> + Send,
    {
        let stop = self.stop.clone();
        loop {
            let now = self.context.clock.now();
            let shown = stop.run_until_cancelled(self.credentials.show(&self.upstream.spec, &mut request.headers, now));
            let shown = shown.await.ok_or_else(Ending::cancelled)??;
            let answer = within(self.idle_timeout(), asking(request.clone()));
            let answer = stop.run_until_cancelled(answer).await.ok_or_else(Ending::cancelled)?;
            let answer = answer.ok_or_else(|| Ending::new(EndingClass::Failed, "timeout", "the upstream does not answer"))?;
            let answer = answer.map_err(|fault| {
                let class = if fault.forbidden { EndingClass::Denied } else { EndingClass::Failed };
                Ending::new(class, fault.slug, fault.detail)
            })?;
            if status(&answer) != StatusCode::UNAUTHORIZED {
                return Ok(answer);
            }
            self.credentials.refused();
            if shown == Shown::Fixed {
                return Ok(answer);
            }
        }
    }

    /// Writes to a connection that has left HTTP behind.
    ///
    /// # Errors
    /// The [`Ending`] when it broke, takes nothing for the idle timeout, or the source is stopped.
    pub(crate) async fn write(&self, pipe: &mut dyn UpstreamPipe, bytes: &[u8]) -> Result<(), Ending> {
        let written = within(self.idle_timeout(), pipe.write(bytes));
        let written = self.stop.run_until_cancelled(written).await.ok_or_else(Ending::cancelled)?;
        let written = written.ok_or_else(|| Ending::new(EndingClass::Lost, "idle", "the upstream takes nothing"))?;
        written.map_err(|fault| Ending::new(EndingClass::Lost, fault.slug, fault.detail))
    }
}
