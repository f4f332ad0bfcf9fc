//! The count of effects that an API itself gives.

use std::time::Duration;

use http::Method;
use http::header::CONTENT_TYPE;
use tokio::time::{Instant, sleep};

use super::client::ApiClient;
use super::key_position::{KeyValue, RequestParts};
use super::request::{CountRequest, VerifyRequest};

/// Reads the count, and says when it cannot be relied on.
pub(super) struct EffectCounter<'a> {
    request: &'a VerifyRequest,
    count: &'a CountRequest,
    client: &'a ApiClient,
    /// How long after an answer its effect was to be seen.
    pub(super) delay: Duration,
    /// The last count. `None` after requests that may have raised it, or not.
    last: Option<u64>,
}

/// How a count changes when one thing is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CountChange {
    /// By one.
    ByOne,
    /// Not at all: a list in pages, whose first page is full, for example.
    Unchanged,
    /// Otherwise: others create something, too.
    Otherwise,
}

/// A list that others change meanwhile is noticed within this time only.
pub(super) const IDLE: Duration = Duration::from_millis(300);
/// The longest wait for an effect that was answered for.
const MOST_DELAY: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_millis(100);

impl<'a> EffectCounter<'a> {
    /// The most requests that counting takes.
    pub(super) fn most_requests(cases: usize) -> usize {
        let polls = MOST_DELAY.as_millis() / EVERY.as_millis();
        2 + 2 * usize::try_from(polls).unwrap_or(usize::MAX) + 2 * cases
    }

    /// Reads it for the first time. `None` if it changes although nothing is sent.
    pub(super) async fn open(
        request: &'a VerifyRequest,
        count: &'a CountRequest,
        client: &'a ApiClient,
    ) -> Result<Option<Self>, String> {
        let mut counter = Self { request, count, client, delay: Duration::ZERO, last: None };
        counter.last = Some(counter.read().await?);
        sleep(IDLE).await;
        let is_idle = counter.last == Some(counter.read().await?);
        Ok(is_idle.then_some(counter))
    }

    /// Waits until it has risen by one.
    pub(super) async fn rises(&mut self) -> Result<CountChange, String> {
        let begun = Instant::now();
        let last = self.last.unwrap_or_default();
        loop {
            let now = self.read().await?;
            if now != last || begun.elapsed() >= MOST_DELAY {
                if begun.elapsed() > EVERY {
                    self.delay = self.delay.max(begun.elapsed());
                }
                self.last = Some(now);
                return Ok(match now.checked_sub(last) {
                    Some(0) => CountChange::Unchanged,
                    Some(1) => CountChange::ByOne,
                    Some(_) | None => CountChange::Otherwise,
                });
            }
            sleep(EVERY).await;
        }
    }

    /// Begins a case. Whether the count is what it was when the case before was over.
    pub(super) async fn begin(&mut self) -> Result<bool, String> {
        let now = self.read().await?;
        let before = self.last.replace(now);
        Ok(before.is_none_or(|before| before == now))
    }

    /// Other requests may raise it.
    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    /// By how much it has risen since. `None` if it fell.
    pub(super) async fn risen(&mut self) -> Result<Option<u64>, String> {
        sleep(self.delay * 2).await;
        let now = self.read().await?;
        let before = self.last.replace(now);
        Ok(before.and_then(|before| now.checked_sub(before)))
    }

    async fn read(&self) -> Result<u64, String> {
        let mut parts =
            self.request.with(&KeyValue::Absent, super::case::Variation::AsGiven).map_err(|error| error.to_string())?;
        parts.headers.remove(CONTENT_TYPE);
        let parts =
            RequestParts { target: self.count.target.clone(), headers: parts.headers, body: bytes::Bytes::new() };
        let outcome = self.client.ask(&Method::GET, parts).await;
        match outcome.answer() {
            Some(answer) if answer.is_success() => self.count.read(&answer.body),
            Some(answer) => Err(format!("it is answered with {}", answer.status.as_u16())),
            None => Err(super::answer::in_words(std::slice::from_ref(&outcome))),
        }
    }
}
