//! Upstreams through the relay's gate: [`UpstreamClient`] by [`Fetcher`].

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hyper::StatusCode;

use super::connection::{BodyFault, ConnectFault, UpstreamBody, UpstreamClient, UpstreamRequest, UpstreamResponse};
use crate::net::dial::DialError;
use crate::net::fetch::{BodyError, FetchBody, FetchError, FetchRequest, Fetcher};
use crate::net::target::{Target, TargetError};

/// Time for an upstream's head, all of connecting included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

#[async_trait]
impl UpstreamClient for Fetcher {
    async fn fetch(&self, request: UpstreamRequest) -> Result<UpstreamResponse, ConnectFault> {
        let target = Target::parse(&request.url).map_err(|error| refused(&error))?;
        let asked = FetchRequest {
            method: request.method,
            target: &target,
            headers: request.headers,
            body: request.body.unwrap_or_default(),
            head_timeout: HEAD_TIMEOUT,
        };
        let response = Self::fetch(self, asked).await.map_err(|error| ConnectFault {
            slug: error.slug(),
            detail: error.to_string(),
            forbidden: matches!(error, FetchError::Dial(DialError::Refused(_))),
        })?;
        let status = StatusCode::from_u16(response.status).map_err(|_| ConnectFault {
            slug: "protocol",
            detail: format!("the status {} is none", response.status),
            forbidden: false,
        })?;
        Ok(UpstreamResponse { status, headers: response.headers, body: Box::new(Fetched(response.body)) })
    }
}

fn refused(error: &TargetError) -> ConnectFault {
    ConnectFault { slug: error.slug(), detail: error.to_string(), forbidden: true }
}

/// A body as it comes from the gate.
struct Fetched(FetchBody);

#[async_trait]
impl UpstreamBody for Fetched {
    async fn next_chunk(&mut self) -> Option<Result<Bytes, BodyFault>> {
        Some(self.0.next_chunk().await?.map_err(|error| match error {
            BodyError::Truncated => BodyFault::Truncated,
            error => BodyFault::Io(error.to_string()),
        }))
    }
}
