//! Plays the cases, one after the other, and has them judged.

use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::answer::{AnswerClass, ApiAnswer, ClientOutcome, in_words};
use super::case::{Act, CaseKind, FOLLOWED, Manner, SentKey, Variation, VerifyCase};
use super::client::ApiClient;
use super::counter::{CountChange, EffectCounter};
use super::effects::Baseline;
use super::judge::{KeyForm, KeySupport, control};
use super::key_position::{KeyPosition, KeyPositionError, KeyValue};
use super::played::PlayedCases;
use super::request::{CaseKeys, VerifyRequest, new_key};
use super::verdict::{CaseResult, EffectBasis, Judgement, VerifyReport};
use crate::clock;

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The key cannot be put where it should go.
    #[error(transparent)]
    Key(#[from] KeyPositionError),
    /// The server cannot be named, or not be trusted.
    #[error("{0}")]
    Server(String),
    /// No answer at all.
    #[error("the request gets no answer: {0}")]
    NoAnswer(String),
    /// The first request is refused.
    #[error("the request is refused with {0}, without a case being tried")]
    Refused(StatusCode),
    /// The second one, with another key, is refused.
    #[error("the same request with another key is refused with {0}: no case can be told from another")]
    SecondRefused(StatusCode),
    /// The count cannot be read.
    #[error("the effects cannot be counted at {path}: {why}")]
    Count {
        /// Without the query, which may hold a credential.
        path: String,
        /// Why not.
        why: String,
    },
}

/// No wait is longer than this.
const MOST_WAIT: Duration = Duration::from_secs(30);
/// `Retry-After` is followed up to this.
const MOST_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Servers notice late that a client has left.
const LEAST_QUIET: Duration = Duration::from_millis(500);

struct Player<'a> {
    request: &'a VerifyRequest,
    client: ApiClient,
    form: KeyForm,
    /// The keys of the control.
    first_key: String,
    second_key: String,
    /// How long the fastest answer takes once its request is sent.
    fastest: Duration,
    /// How long the slowest exchange takes.
    slowest: Duration,
    requests: usize,
}

/// Plays all cases for which the request has what is needed. `progress` is called with each case before it is played.
pub async fn verify(
    request: &VerifyRequest,
    progress: &mut dyn FnMut(VerifyCase),
) -> Result<VerifyReport, VerifyError> {
    request.check()?;
    let client = ApiClient::new(&request.url, request.timeout).map_err(VerifyError::Server)?;
    let counting = client.clone();
    let (first_key, second_key, form) = (new_key(), new_key(), KeyForm::Bare);
    let mut player = Player {
        request,
        client,
        form,
        first_key,
        second_key,
        fastest: Duration::MAX,
        slowest: Duration::ZERO,
        requests: 0,
    };

    progress(VerifyCase::Control);
    let mut instead = None;
    let mut counter = match &request.count {
        None => None,
        Some(count) => {
            let opened = EffectCounter::open(request, count, &counting).await;
            let opened = opened.map_err(|why| VerifyError::Count { path: count.target.path().to_owned(), why })?;
            if opened.is_none() {
                instead = Some(format!("the count at GET {} changes by itself", count.target.path()));
            }
            opened
        }
    };
    let first = player.first().await?;
    if !rises(&mut counter).await {
        (counter, instead) = (None, not_by_one(request));
    }
    let second = player.another(&player.second_key.clone()).await?;
    if !rises(&mut counter).await {
        (counter, instead) = (None, not_by_one(request));
    }

    let both = [ClientOutcome::Answered(first.clone()), ClientOutcome::Answered(second.clone())];
    let baseline = Baseline::new(first, second, request.url.path());
    let controlled = (in_words(&both), control(&baseline, counter.as_ref().map(|_| 2)));
    let mut played = PlayedCases::new(baseline, player.form);
    for case in VerifyCase::ALL.into_iter().filter(|case| case.kind() == CaseKind::Played) {
        progress(case);
        let is_unheeded = case.is_about_keys() && played.support() == KeySupport::Ignored;
        if is_unheeded || request.why_not(case).is_some() {
            continue;
        }
        let is_counted = case.is_counted();
        if let Some(begun) = counter.as_mut().filter(|_| is_counted) {
            match begun.begin().await {
                Ok(true) => {}
                // Others create something, or an effect came later than it could be waited for.
                Ok(false) => {
                    (counter, instead) = (None, disturbed(request, case));
                    played.distrust_last(NOT_GONE_BY);
                }
                Err(why) => {
                    (counter, instead) = (None, unreadable(request, &why));
                    played.distrust_harmless(NOT_GONE_BY);
                }
            }
        }
        let outcomes = player.play(case).await?;
        let mut risen = None;
        if let Some(counting) = counter.as_mut().filter(|_| is_counted) {
            player.quiet(&outcomes).await;
            match counting.risen().await {
                Ok(by) => risen = by,
                Err(why) => {
                    (counter, instead) = (None, unreadable(request, &why));
                    played.distrust_harmless(NOT_GONE_BY);
                }
            }
        } else if let Some(counter) = &mut counter {
            counter.forget();
        }
        played.insert(case, outcomes, risen);
    }
    // A list in pages rises until its first page is full.
    if let Some(count) = &mut counter
        && let Err(distrusted) = player.is_count_still_right(count).await
    {
        match distrusted {
            CountDoubt::Unchanged => played.distrust_harmless(NOT_GONE_BY),
            CountDoubt::Otherwise | CountDoubt::NotTold(_) => played.distrust_all(NOT_GONE_BY),
        }
        (counter, instead) = (None, not_at_the_end(request, &distrusted));
    }
    let cases = VerifyCase::ALL.into_iter().map(|case| {
        let (came, judgement) = match case {
            VerifyCase::Control => controlled.clone(),
            _ => played.row(case, request.why_not(case)),
        };
        row(case, sent(case, request), came, judgement)
    });
    let target = format!("{} {}", request.method, shown_url(request));
    let effects = match (&counter, &request.count) {
        (Some(_), Some(count)) => EffectBasis::Count { request: format!("GET {}", count.target.path()) },
        _ => EffectBasis::of_names(played.baseline().source.as_ref(), instead),
    };
    Ok(VerifyReport { target, effects, requests: player.requests, cases: cases.collect() })
}

const NOT_GONE_BY: &str = "the count cannot be gone by";

/// Why a count that was gone by is not to be trusted at the end.
enum CountDoubt {
    /// It did not rise for one more.
    Unchanged,
    /// It rose by itself, or otherwise than by one.
    Otherwise,
    /// It cannot be read, or no more is created, for this reason.
    NotTold(String),
}

/// Whether the count has risen by one, where effects are counted; a count that cannot be read has not.
async fn rises(counter: &mut Option<EffectCounter<'_>>) -> bool {
    match counter {
        None => true,
        Some(counter) => counter.rises().await.is_ok_and(|change| change == CountChange::ByOne),
    }
}

fn not_by_one(request: &VerifyRequest) -> Option<String> {
    let count = request.count.as_ref()?;
    Some(format!("the count at GET {} did not rise by one when one was created", count.target.path()))
}

fn disturbed(request: &VerifyRequest, case: VerifyCase) -> Option<String> {
    let path = request.count.as_ref()?.target.path();
    Some(format!("the count at GET {path} changed while nothing was sent, before the case {}", case.name()))
}

fn not_at_the_end(request: &VerifyRequest, doubt: &CountDoubt) -> Option<String> {
    let path = request.count.as_ref()?.target.path();
    Some(match doubt {
        CountDoubt::Unchanged | CountDoubt::Otherwise => {
            format!("at the end, the count at GET {path} did not rise by one when one was created")
        }
        CountDoubt::NotTold(why) => format!("at the end, the count at GET {path} could not be tried: {why}"),
    })
}

fn unreadable(request: &VerifyRequest, why: &str) -> Option<String> {
    let path = request.count.as_ref()?.target.path();
    Some(format!("the count at GET {path} could not be read each time: {why}"))
}

/// Without user, password, and the values of the query.
fn shown_url(request: &VerifyRequest) -> String {
    let scheme = request.url.scheme_str().unwrap_or_default();
    let host = request.url.authority().map(|authority| {
        let text = authority.as_str();
        text.rsplit_once('@').map_or(text, |(_, host)| host)
    });
    let query = if request.url.query().is_some() { "?..." } else { "" };
    format!("{scheme}://{}{}{query}", host.unwrap_or_default(), request.url.path())
}

fn row(case: VerifyCase, sent: String, came: String, judgement: Judgement) -> CaseResult {
    let Judgement { verdict, harm, because } = judgement;
    CaseResult { case, verdict, harm, sent, came, because, rule: case.rule() }
}

impl Player<'_> {
    /// The control's first request. Where a bare key is refused, it is tried with quotes.
    async fn first(&mut self) -> Result<ApiAnswer, VerifyError> {
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

    /// The same request with another key.
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
        match outcome {
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

    async fn play(&mut self, case: VerifyCase) -> Result<Vec<ClientOutcome>, VerifyError> {
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
                    // Late enough for the request to be at work, and early enough for it to be at work still.
                    let after = (self.fastest / 2).clamp(Duration::from_millis(1), MOST_RETRY_AFTER);
                    outcomes.push(self.client.give_up(&self.request.method, parts, after).await);
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
        Ok(self.client.ask(&self.request.method, parts).await)
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
        Ok(asking.join_all().await)
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
    async fn quiet(&self, outcomes: &[ClientOutcome]) {
        let is_abandoned = outcomes.iter().any(|outcome| outcome.answer().is_none());
        if is_abandoned {
            sleep((self.slowest * 2 + LEAST_QUIET).min(MOST_WAIT)).await;
        }
    }

    /// Whether the count is as it was, and rises by one when one more is created.
    async fn is_count_still_right(&mut self, count: &mut EffectCounter<'_>) -> Result<(), CountDoubt> {
        if !count.begin().await.map_err(CountDoubt::NotTold)? {
            return Err(CountDoubt::Otherwise);
        }
        self.another(&new_key()).await.map_err(|error| CountDoubt::NotTold(error.to_string()))?;
        match count.rises().await.map_err(CountDoubt::NotTold)? {
            CountChange::ByOne => Ok(()),
            CountChange::Unchanged => Err(CountDoubt::Unchanged),
            CountChange::Otherwise => Err(CountDoubt::Otherwise),
        }
    }
}

/// What is sent in a case, in words.
fn sent(case: VerifyCase, request: &VerifyRequest) -> String {
    match case {
        VerifyCase::Control => "two new keys, one request each".to_owned(),
        VerifyCase::Repeat => "the first of them again, after its answer".to_owned(),
        VerifyCase::ReplayStatus | VerifyCase::ReplayBody | VerifyCase::ReplayLocation | VerifyCase::ReplayHeaders => {
            "nothing new: the answer to that".to_owned()
        }
        VerifyCase::Concurrent => "a new key, ten times at once".to_owned(),
        VerifyCase::LostAnswer => "a new key, cut before the answer; again, once that must have ended".to_owned(),
        VerifyCase::ClientTimeout => "a new key, given up while it runs; again, at once".to_owned(),
        VerifyCase::OtherBody => match request.altered() {
            Some(altered) => format!("the first key with another body ({})", altered.what),
            None => "the first key with another body".to_owned(),
        },
        VerifyCase::OtherTarget => {
            let target = request.target_of(Variation::Target);
            let shown = match (&request.other_target, target.query()) {
                (None, _) => "with ?onlyonce-verify=1".to_owned(),
                (Some(_), None) => target.path().to_owned(),
                (Some(_), Some(_)) => format!("{}?...", target.path()),
            };
            format!("the second and the first key to another target ({shown})")
        }
        VerifyCase::OtherCaller => "the second and the first key, with what --other-caller says".to_owned(),
        VerifyCase::NoKey => "one request without a key".to_owned(),
        VerifyCase::QuotedKey => "the first key, with quotes around it, or without them".to_owned(),
        VerifyCase::KeyCase => "the first key in upper case".to_owned(),
        VerifyCase::TwoKeys => "one request with two new keys".to_owned(),
        VerifyCase::EmptyKey => "an empty key, twice".to_owned(),
        VerifyCase::LongKey => "1024 characters, twice; then with another last character".to_owned(),
        VerifyCase::ConflictAnswer | VerifyCase::ReuseAnswer => "nothing new: the answers above".to_owned(),
    }
}
