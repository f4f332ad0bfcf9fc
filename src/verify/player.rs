//! Sends the requests of one case: a client that waits, gives up, or sends many at once.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::answer::{AnswerClass, ApiAnswer, ClientOutcome, in_words};
use super::case::{Act, FOLLOWED, Manner, SentKey, Variation, VerifyCase};
use super::client::ApiClient;
use super::error::VerifyError;
use super::judge::KeyForm;
use super::key_position::{KeyPosition, KeyValue};
use super::request::{CaseKeys, VerifyRequest, new_key};
use crate::clock;

/// No wait is longer than this.
const MOST_WAIT: Duration = Duration::from_secs(30);
/// `Retry-After` is followed up to this.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Servers notice late that a client has left.
const LEAST_QUIET: Duration = Duration::from_millis(500);

pub(super) struct Player<'a> {
    request: &'a VerifyRequest,
    client: ApiClient,
    pub(super) form: KeyForm,
    /// The keys of the control.
    first_key: String,
    second_key: String,
    /// How long the fastest answer takes once its request is sent.
    fastest: Duration,
    /// How long the slowest exchange takes.
    slowest: Duration,
    pub(super) requests: usize,
}

impl<'a> Player<'a> {
    pub(super) fn new(request: &'a VerifyRequest, client: ApiClient) -> Self {
        Self {
            request,
            client,
            form: KeyForm::Bare,
            first_key: new_key(),
            second_key: new_key(),
            fastest: Duration::MAX,
            slowest: Duration::ZERO,
            requests: 0,
        }
    }

    /// The control's first request. Where a bare key is refused, it is tried with quotes.
    pub(super) async fn first(&mut self) -> Result<ApiAnswer, VerifyError> {
        let answer = self.control(&self.first_key.clone()).await?;
        if answer.is_success() {
            return Ok(answer);
        }
        let is_in_header = matches!(self.request.key, KeyPosition::Header(_));
        if answer.class() == AnswerClass::Refused && is_in_header {
            self.form = KeyForm::Quoted;
            self.first_key = new_key();
            let quoted = self.control(&self.first_key.clone()).await?;
            if quoted.is_success() {
                return Ok(quoted);
            }
        }
        Err(VerifyError::Refused(answer.status))
    }

    /// The control's second request.
    pub(super) async fn second(&mut self) -> Result<ApiAnswer, VerifyError> {
        self.another(&self.second_key.clone()).await
    }

    /// The same request with a key that no other has.
    pub(super) async fn one_more(&mut self) -> Result<ApiAnswer, VerifyError> {
        self.another(&new_key()).await
    }

    async fn another(&mut self, key: &str) -> Result<ApiAnswer, VerifyError> {
        let answer = self.control(key).await?;
        if answer.is_success() { Ok(answer) } else { Err(VerifyError::SecondRefused(answer.status)) }
    }

    async fn control(&mut self, key: &str) -> Result<ApiAnswer, VerifyError> {
        let key = CaseKeys::new(key, key).value(SentKey::First, self.form);
        let parts = self.request.with(&key, Variation::AsGiven)?;
        self.requests += 1;
        let begun = Instant::now();
        let (outcome, took) = self.client.timed(&self.request.method, parts).await;
        match outcome.without_key(&key) {
            ClientOutcome::Answered(answer) => {
                if answer.is_success() {
                    self.fastest = self.fastest.min(took);
                    self.slowest = self.slowest.max(begun.elapsed());
                }
                Ok(answer)
            }
            other => Err(VerifyError::NoAnswer(in_words(&[other]))),
        }
    }

    pub(super) async fn play(&mut self, case: VerifyCase) -> Result<Vec<ClientOutcome>, VerifyError> {
        let keys = CaseKeys::new(&self.first_key, &self.second_key);
        let mut outcomes = Vec::new();
        for Act { key, variation, manner } in case.acts() {
            let key = keys.value(key, self.form);
            match manner {
                Manner::Wait => outcomes.push(self.ask(&key, variation).await?),
                Manner::AtOnce(count) => outcomes.extend(self.at_once(&key, variation, count).await?),
                Manner::GiveUp => {
                    let parts = self.request.with(&key, variation)?;
                    self.requests += 1;
                    let outcome = self.client.give_up(&self.request.method, parts, self.patience()).await;
                    outcomes.push(outcome.without_key(&key));
                }
                Manner::Follow => outcomes.extend(self.follow(&key, variation).await?),
                Manner::FollowLater => {
                    self.quiet(&outcomes).await;
                    outcomes.extend(self.follow(&key, variation).await?);
                }
            }
        }
        Ok(outcomes)
    }

    async fn ask(&mut self, key: &KeyValue, variation: Variation) -> Result<ClientOutcome, VerifyError> {
        let parts = self.request.with(key, variation)?;
        self.requests += 1;
        Ok(self.client.ask(&self.request.method, parts).await.without_key(key))
    }

    async fn at_once(
        &mut self,
        key: &KeyValue,
        variation: Variation,
        count: usize,
    ) -> Result<Vec<ClientOutcome>, VerifyError> {
        let mut asking = JoinSet::new();
        for _ in 0..count {
            let parts = self.request.with(key, variation)?;
            let (client, method) = (self.client.clone(), self.request.method.clone());
            asking.spawn(async move { client.ask(&method, parts).await });
        }
        self.requests += count;
        Ok(asking.join_all().await.into_iter().map(|outcome| outcome.without_key(key)).collect())
    }

    /// The retry of a client, which is repeated if the answer asks for another try.
    async fn follow(&mut self, key: &KeyValue, variation: Variation) -> Result<Vec<ClientOutcome>, VerifyError> {
        let mut outcomes = Vec::new();
        for _ in 0..=FOLLOWED {
            let outcome = self.ask(key, variation).await?;
            let again = outcome.answer().filter(|answer| answer.asks_to_come_again());
            let wait = again.map(|answer| match answer.retry_after(clock::wall()) {
                Some(wait) => wait.min(MOST_RETRY_AFTER),
                None => self.slowest.clamp(Duration::from_millis(200), MOST_RETRY_AFTER),
            });
            outcomes.push(outcome);
            match wait {
                Some(wait) if outcomes.len() <= FOLLOWED => sleep(wait).await,
                Some(_) | None => break,
            }
        }
        Ok(outcomes)
    }

    /// Until a request that no client waits for must have ended.
    pub(super) async fn quiet(&self, outcomes: &[ClientOutcome]) {
        if outcomes.iter().any(|outcome| outcome.answer().is_none()) {
            sleep(self.silence()).await;
        }
    }

    /// How long a client waits that gives up: late enough for the request to be at work, and early enough for it to be at
    /// work still.
    fn patience(&self) -> Duration {
        (self.fastest / 2).clamp(Duration::from_millis(1), MOST_RETRY_AFTER)
    }

    fn silence(&self) -> Duration {
        (self.slowest * 2 + LEAST_QUIET).min(MOST_WAIT)
    }

    /// How long a case takes if its answers take as long as the slowest so far, and ten at once no longer than one.
    pub(super) fn expected(&self, case: VerifyCase) -> Duration {
        let one = |manner| match manner {
            Manner::Wait | Manner::AtOnce(_) => self.slowest,
            // It comes again once.
            Manner::Follow => self.slowest * 2,
            Manner::GiveUp => self.patience(),
            Manner::FollowLater => self.silence() + self.slowest,
        };
        let acts = case.acts();
        let is_left = acts.iter().any(|act| act.manner == Manner::GiveUp);
        let end = if is_left { self.silence() } else { Duration::ZERO };
        acts.iter().map(|act| one(act.manner)).sum::<Duration>() + end
    }
}
