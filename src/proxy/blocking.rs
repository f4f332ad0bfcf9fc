//! Long bodies are digested on other threads, because the other requests of the core would wait meanwhile.

use std::future::pending;
use std::net::IpAddr;
use std::panic;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::sync::Semaphore;

use crate::key::{self, DigestKey, KeyError, KeyOutcome, Operation};
use crate::rule::LogKeys;
use crate::rule::{PathParams, Rule, Selector, Trust};

/// A longer body takes a millisecond or more; the change of threads costs some 20 microseconds.
const LONG: usize = 64 * 1024;

/// Whether it is digested on another thread.
pub(super) fn is_long(body: &[u8]) -> bool {
    body.len() > LONG
}

/// A copy of what a head says, for use after the head was forwarded.
pub(super) struct OwnedRequest {
    method: Method,
    headers: HeaderMap,
    host: Option<String>,
    path: String,
    params: PathParams<'static>,
    query: Option<String>,
    peer: Option<IpAddr>,
    now: SystemTime,
    log_keys: LogKeys,
}

/// Digests long bodies: a few at once, others wait. More would take processor time from the cores.
#[derive(Clone)]
pub struct BlockingReader(Arc<Semaphore>);

const AT_ONCE: usize = 2;

impl Default for BlockingReader {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl BlockingReader {
    /// The same as [`OwnedRequest::read`].
    pub(super) async fn read(
        &self,
        rule: &Arc<Rule>,
        digest_key: DigestKey,
        owned: OwnedRequest,
        trust: &Arc<Trust>,
        body: Bytes,
    ) -> Result<Result<Operation, Selector>, KeyError> {
        let (rule, trust) = (Arc::clone(rule), Arc::clone(trust));
        // The semaphore is never closed.
        let turn = Arc::clone(&self.0).acquire_owned().await;
        let reading = tokio::task::spawn_blocking(move || {
            // The work continues when the client leaves, and keeps its permit until it ends.
            let _turn = turn;
            owned.read(&rule, &digest_key, &trust, &body)
        });
        match reading.await {
            Ok(read) => read,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => pending().await,
            },
        }
    }
}

impl OwnedRequest {
    pub(super) fn of(request: &key::Request<'_>) -> Self {
        Self {
            method: request.method.clone(),
            headers: request.headers.clone(),
            host: request.host.map(ToOwned::to_owned),
            path: request.path.to_owned(),
            params: request.params.kept(),
            query: request.query.map(ToOwned::to_owned),
            peer: request.peer,
            now: request.now,
            log_keys: request.log_keys,
        }
    }

    /// Reads the whole request: its operation, or the part of the key that is absent.
    pub(super) fn read(
        &self,
        rule: &Rule,
        digest_key: &DigestKey,
        trust: &Trust,
        body: &[u8],
    ) -> Result<Result<Operation, Selector>, KeyError> {
        Ok(match key::read(rule, digest_key, self.request(trust), body)? {
            KeyOutcome::Operation(operation) => Ok(operation),
            KeyOutcome::Missing(selector) => Err(selector.clone()),
        })
    }

    /// The same request, borrowed.
    fn request<'a>(&'a self, trust: &'a Trust) -> key::Request<'a> {
        key::Request {
            method: &self.method,
            headers: &self.headers,
            host: self.host.as_deref(),
            path: &self.path,
            params: &self.params,
            query: self.query.as_deref(),
            peer: self.peer,
            trust,
            now: self.now,
            log_keys: self.log_keys,
        }
    }
}
