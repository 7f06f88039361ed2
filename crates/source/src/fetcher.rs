//! Connections through the relay's one gate out: fits `net::fetch` to what sources work with.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::StatusCode;

use super::connection::{
    BodyFault, ConnectFault, UpstreamBody, UpstreamClient, UpstreamPipe, UpstreamRequest, UpstreamResponse, UpstreamUpgrade,
};
use super::credentials::TokenRequest;
use hookcast_core::model::source::own::websocket::dialled_url;
use hookcast_net::Target;
use hookcast_net::dial::DialError;
use hookcast_net::fetch::{FetchBody, FetchError, FetchRequest, Fetcher, Pipe};
use hookcast_net::token::{Token, TokenError};

/// Longest wait for the head of an answer; the source's own idle timeout usually ends it earlier.
const HEAD_TIMEOUT: Duration = Duration::from_mins(5);
/// Longest wait for a token.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(15);

#[async_trait]
impl UpstreamClient for Fetcher {
    async fn fetch(&self, request: UpstreamRequest) -> Result<UpstreamResponse, ConnectFault> {
        let target = target(&request.url)?;
        let response = Self::fetch(self, put(request, &target)).await.map_err(|error| fault(&error))?;
        let status = status(response.status)?;
        Ok(UpstreamResponse { status, headers: response.headers, body: Box::new(response.body) })
    }

    async fn upgrade(&self, request: UpstreamRequest) -> Result<UpstreamUpgrade, ConnectFault> {
        let target = target(&dialled_url(&request.url))?;
        let answer = Self::upgrade(self, put(request, &target)).await.map_err(|error| fault(&error))?;
        let pipe = answer.pipe.map(|pipe| Box::new(pipe) as Box<dyn UpstreamPipe>);
        Ok(UpstreamUpgrade { status: status(answer.status)?, headers: answer.headers, pipe })
    }

    fn with(&self, ca_pem: Option<&str>, identity: Option<(&str, &str)>) -> Result<Arc<dyn UpstreamClient>, ConnectFault> {
        let own = self.trusting(ca_pem, identity).map_err(|error| ConnectFault {
            slug: "certificate",
            detail: error.to_string(),
            forbidden: true,
        })?;
        Ok(Arc::new(own))
    }

    async fn token(&self, request: TokenRequest<'_>) -> Result<Token, TokenError> {
        let endpoint = self.token_endpoint(request.url, request.client, request.scopes, request.ca_pem)?;
        endpoint.fetch(self.gate(), TOKEN_TIMEOUT).await
    }
}

fn target(url: &str) -> Result<Target, ConnectFault> {
    Target::parse_long(url).map_err(|error| ConnectFault { slug: error.slug(), detail: error.to_string(), forbidden: true })
}

fn put(request: UpstreamRequest, target: &Target) -> FetchRequest<'_> {
    let body = request.body.unwrap_or_default();
    FetchRequest { method: request.method, target, headers: request.headers, body, head_timeout: HEAD_TIMEOUT }
}

fn fault(error: &FetchError) -> ConnectFault {
    let forbidden = matches!(error, FetchError::Dial(DialError::Refused(_)));
    ConnectFault { slug: error.slug(), detail: error.to_string(), forbidden }
}

fn status(number: u16) -> Result<StatusCode, ConnectFault> {
    StatusCode::from_u16(number).map_err(|_| ConnectFault {
        slug: "protocol",
        detail: "the upstream answers with a status that does not exist".to_owned(),
        forbidden: false,
    })
}

#[async_trait]
impl UpstreamBody for FetchBody {
    async fn next_chunk(&mut self) -> Option<Result<Bytes, BodyFault>> {
        let next = Self::next_chunk(self).await?;
        Some(next.map_err(|error| BodyFault { slug: error.slug(), detail: error.to_string() }))
    }
}

#[async_trait]
impl UpstreamBody for Pipe {
    async fn next_chunk(&mut self) -> Option<Result<Bytes, BodyFault>> {
        Some(Self::next_chunk(self).await?.map_err(|error| broken(&error)))
    }
}

#[async_trait]
impl UpstreamPipe for Pipe {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), BodyFault> {
        Self::write(self, bytes).await.map_err(|error| broken(&error))
    }
}

fn broken(error: &std::io::Error) -> BodyFault {
    BodyFault { slug: "reset", detail: format!("the connection broke: {error}") }
}
