//! Forwards requests of readers to the Edge API, within bounds of their own.

use std::sync::Arc;

use super::UPSTREAM_TIMEOUT;
use super::breaker::Breaker;
use super::concurrency::ConcurrencyLimit;
use crate::edge::{ByteLimit, Edge, ForwardError, Forwarded, NotRead, Query};

/// Requests in flight, and those that may wait.
const MAX_IN_FLIGHT: usize = 32;
const MAX_WAITING: usize = 128;
/// The bytes that answers may take, until their readers have taken them. One answer may have 16 MiB.
const MAX_PAGES_BYTES: usize = 32 << 20;
const MAX_STATES_BYTES: usize = 16 << 20;

/// Bounds the forwarded requests of one kind. A page that is slow or fails says nothing about the others.
pub struct Forwarding {
    edge: Edge,
    breaker: Breaker,
    limit: ConcurrencyLimit,
    bytes: ByteLimit,
}

/// A request to forward.
#[derive(Debug)]
pub struct ForwardRequest {
    /// The decoded segments of its path.
    pub segments: Vec<String>,
    pub query: Query,
    /// The processes that it came through, a `Via` list.
    pub via: String,
}

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotForwarded {
    #[error("too many requests are being forwarded")]
    Busy,
    #[error("the answers that are being forwarded have too many bytes")]
    NoRoom,
    #[error("requests to the Edge API are paused, since the last ones failed")]
    Paused,
    #[error("the Edge API does not answer")]
    Away,
}

impl Forwarding {
    /// Bounds the pages that readers ask for, for example paywalls: SDKs wait 60 s for them.
    pub fn of_pages(edge: &Edge) -> Arc<Self> {
        Arc::new(Self::new(edge.clone(), MAX_PAGES_BYTES))
    }

    /// Bounds the states that only the Edge API can tell. They end as early as loads do: SDKs wait 10 s.
    pub fn of_states(edge: &Edge) -> Arc<Self> {
        Arc::new(Self::new(edge.within(UPSTREAM_TIMEOUT), MAX_STATES_BYTES))
    }

    fn new(edge: Edge, bytes: usize) -> Self {
        Self {
            edge,
            breaker: Breaker::default(),
            limit: ConcurrencyLimit::new(MAX_IN_FLIGHT, MAX_WAITING),
            bytes: ByteLimit::new(bytes),
        }
    }

    /// Returns the `Via` entry that identifies requests of this process.
    pub fn via(&self) -> &str {
        self.edge.via()
    }

    /// Forwards a request. Once it is sent it goes on even if its reader leaves, and counts until it has ended.
    pub async fn forward(
        self: &Arc<Self>,
        request: ForwardRequest,
    ) -> Result<Forwarded, NotForwarded> {
        let Some(permit) = self.limit.take().await else {
            return Err(NotForwarded::Busy);
        };
        let forwarding = self.clone();
        let sent = tokio::spawn(async move {
            let _permit = permit;
            forwarding.send(&request).await
        });
        sent.await.unwrap_or(Err(NotForwarded::Away))
    }

    async fn send(&self, request: &ForwardRequest) -> Result<Forwarded, NotForwarded> {
        let Some(attempt) = self.breaker.admit() else {
            return Err(NotForwarded::Paused);
        };
        let (segments, query) = (&request.segments, &request.query);
        let answer = self
            .edge
            .forward(segments, query, &request.via, &self.bytes)
            .await;
        match answer {
            Ok(answer) if answer.status < 500 && answer.status != 429 => {
                attempt.succeeded();
                Ok(answer)
            }
            Ok(answer) => {
                attempt.failed(answer.retry_after);
                Ok(answer)
            }
            // The attempt has no verdict: the Edge API began to answer.
            Err(ForwardError::Body(NotRead::NoRoom)) => Err(NotForwarded::NoRoom),
            Err(error) => {
                attempt.failed(None);
                tracing::debug!(%error, "the Edge API does not answer");
                Err(NotForwarded::Away)
            }
        }
    }
}
