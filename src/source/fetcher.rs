//! Connections through the relay's one gate out: fits `net::fetch` to what sources work with.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::StatusCode;

use super::connection::{BodyFault, ConnectFault, UpstreamBody, UpstreamClient, UpstreamRequest, UpstreamResponse};
use super::credentials::TokenRequest;
use crate::net::Target;
use crate::net::dial::DialError;
use crate::net::fetch::{FetchBody, FetchError, FetchRequest, Fetcher};
use crate::net::token::{Token, TokenError};

/// Longest wait for the head of an answer; the source's own idle timeout usually ends it earlier.
const HEAD_TIMEOUT: Duration = Duration::from_mins(5);
/// Longest wait for a token.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(15);

#[async_trait]
impl UpstreamClient for Fetcher {
    async fn fetch(&self, request: UpstreamRequest) -> Result<UpstreamResponse, ConnectFault> {
        let target = Target::parse_long(&request.url).map_err(|error| ConnectFault {
            slug: error.slug(),
            detail: error.to_string(),
            forbidden: true,
        })?;
        let request = FetchRequest {
            method: request.method,
            target: &target,
            headers: request.headers,
            body: request.body.unwrap_or_default(),
            head_timeout: HEAD_TIMEOUT,
        };
        let response = Self::fetch(self, request).await.map_err(|error| ConnectFault {
            slug: error.slug(),
            detail: error.to_string(),
            forbidden: matches!(error, FetchError::Dial(DialError::Refused(_))),
        })?;
        let status = StatusCode::from_u16(response.status).map_err(|_| ConnectFault {
            slug: "protocol",
            detail: "the upstream answers with a status that does not exist".to_owned(),
            forbidden: false,
        })?;
        Ok(UpstreamResponse { status, headers: response.headers, body: Box::new(response.body) })
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

#[async_trait]
impl UpstreamBody for FetchBody {
    async fn next_chunk(&mut self) -> Option<Result<Bytes, BodyFault>> {
        let next = Self::next_chunk(self).await?;
        Some(next.map_err(|error| BodyFault { slug: error.slug(), detail: error.to_string() }))
    }
}
