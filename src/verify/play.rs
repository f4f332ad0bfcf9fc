//! Plays the cases, one after the other, and has them judged.

use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::answer::{AnswerClass, ApiAnswer, ClientOutcome, in_words};
use super::case::{Act, CaseKind, FOLLOWED, Manner, SeenRefusal, SentKey, Variation, VerifyCase};
use super::client::ApiClient;
use super::counter::{CountChange, EffectCounter};
use super::effects::{Baseline, Effects};
use super::judge::{KeyForm, KeySupport, Observed, control, judge, key_support};
use super::key_position::{KeyPosition, KeyPositionError, KeyValue};
use super::likeness::{refusal, replayed};
use super::request::{CaseKeys, VerifyRequest, new_key};
use super::verdict::{CaseResult, CaseVerdict, EffectBasis, Judgement, VerifyReport};

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
    #[error("the effects cannot be counted at {target}: {why}")]
    Count {
        /// Path and query.
        target: String,
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
    /// How long an answer takes.
    duration: Duration,
    requests: usize,
}

/// Plays all cases that the request has what it takes for. `progress` is told which one comes.
pub async fn verify(
    request: &VerifyRequest,
    progress: &mut dyn FnMut(VerifyCase),
) -> Result<VerifyReport, VerifyError> {
    request.check()?;
    let client = ApiClient::new(&request.url, request.timeout).map_err(VerifyError::Server)?;
    let counting = client.clone();
    let (first_key, second_key, form) = (new_key(), new_key(), KeyForm::Bare);
    let mut player = Player { request, client, form, first_key, second_key, duration: Duration::ZERO, requests: 0 };

    progress(VerifyCase::Control);
    let mut instead = None;
    let mut counter = match &request.count {
        None => None,
        Some(count) => {
            let opened = EffectCounter::open(request, count, &counting).await;
            let opened = opened.map_err(|why| VerifyError::Count { target: count.target.to_string(), why })?;
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

    let path = request.url.path();
    let both = [ClientOutcome::Answered(first.clone()), ClientOutcome::Answered(second.clone())];
    let baseline = Baseline::new(first.clone(), second, path);
    let controlled = control(&baseline, counter.as_ref().map(|_| 2));
    let mut cases = vec![row(VerifyCase::Control, sent(VerifyCase::Control, request), in_words(&both), controlled)];

    let mut support = KeySupport::NotKnown;
    let mut played: HashMap<VerifyCase, Vec<ClientOutcome>> = HashMap::new();
    for case in VerifyCase::ALL {
        progress(case);
        let what = sent(case, request);
        let (came, judgement) = match case.kind() {
            // It is the first row.
            CaseKind::Control => continue,
            CaseKind::Replay(part) => {
                let second = played.get(&VerifyCase::Repeat).and_then(|outcomes| outcomes.last());
                replayed(part, &first, second, support)
            }
            CaseKind::Refusal(SeenRefusal::InFlight) => refusal(SeenRefusal::InFlight, conflict(&played)),
            CaseKind::Refusal(SeenRefusal::Reused) => refusal(SeenRefusal::Reused, reuse(&played)),
            CaseKind::Played if request.why_not(case).is_some() => {
                let why = request.why_not(case).unwrap_or_default();
                ("nothing was sent".to_owned(), Judgement::not_known(why))
            }
            // What a key means is asked of those only who know keys.
            CaseKind::Played if case.is_about_keys() && support == KeySupport::Ignored => {
                let why = "the API does not heed the key: the same request twice ran twice";
                ("nothing was sent".to_owned(), Judgement::not_known(why))
            }
            CaseKind::Played => {
                let counted = case.is_counted();
                if let Some(begun) = counter.as_mut().filter(|_| counted)
                    && !begun.begin().await.map_err(|why| count_error(request, why))?
                {
                    // Others create something, or an effect came later than it could be waited for.
                    (counter, instead) = (None, disturbed(request, case));
                    cases.iter_mut().rfind(|row| row.case.is_counted()).filter(|row| row.by_count).map(doubt);
                }
                let outcomes = player.play(case).await?;
                let mut risen = None;
                if let Some(counter) = counter.as_mut().filter(|_| counted) {
                    player.quiet(&outcomes).await;
                    risen = counter.risen().await.map_err(|why| count_error(request, why))?;
                } else if let Some(counter) = &mut counter {
                    counter.forget();
                }
                let effects = player.effects(case, &outcomes, risen, &first, &baseline);
                let observed = Observed { outcomes: &outcomes, effects: &effects, support, form: player.form };
                let judgement = judge(case, &observed, &baseline);
                if case == VerifyCase::Repeat {
                    support = key_support(&observed);
                }
                let before = (case == VerifyCase::Repeat).then(|| ClientOutcome::Answered(first.clone()));
                let came = in_words(&before.into_iter().chain(outcomes.iter().cloned()).collect::<Vec<_>>());
                played.insert(case, outcomes);
                (came, judgement)
            }
        };
        cases.push(row(case, what, came, judgement));
    }
    // A list in pages rises until its first page is full.
    if let Some(count) = &mut counter {
        let is_same = count.begin().await.unwrap_or(false);
        player.another(&new_key()).await?;
        let change = count.rises().await.unwrap_or(CountChange::Otherwise);
        if !is_same || change != CountChange::ByOne {
            // A count that stands still has hidden effects. It has not made up any.
            let is_doubtful = |row: &&mut CaseResult| change != CountChange::Unchanged || row.harm.is_none();
            (counter, instead) = (None, not_at_the_end(request));
            cases.iter_mut().filter(|row| row.by_count && row.case.is_counted()).filter(is_doubtful).for_each(doubt);
        }
    }
    let target = format!("{} {}", request.method, shown_url(request));
    let effects = match (&counter, &request.count) {
        (Some(_), Some(count)) => EffectBasis::Count { request: format!("GET {}", count.target.path()) },
        _ => EffectBasis::of_names(baseline.source.as_ref(), instead),
    };
    Ok(VerifyReport { target, effects, requests: player.requests, cases })
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

fn not_at_the_end(request: &VerifyRequest) -> Option<String> {
    let path = request.count.as_ref()?.target.path();
    Some(format!("at the end, the count at GET {path} did not rise by one when one was created"))
}

/// The count was not to be gone by: what it told is not certain.
fn doubt(row: &mut CaseResult) {
    row.verdict = CaseVerdict::NotKnown;
    row.harm = None;
    row.because = format!("the count cannot be gone by, so this is not certain: {}", row.because);
}

fn count_error(request: &VerifyRequest, why: String) -> VerifyError {
    let target = request.count.as_ref().map(|count| count.target.to_string()).unwrap_or_default();
    VerifyError::Count { target, why }
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
    let Judgement { verdict, harm, because, by_count } = judgement;
    CaseResult { case, verdict, harm, sent, came, because, rule: case.rule(), by_count }
}

/// A 409 to a request whose first was at work; one that says when to come again, if there is one.
fn conflict(played: &HashMap<VerifyCase, Vec<ClientOutcome>>) -> Option<&ApiAnswer> {
    let cases = [VerifyCase::Concurrent, VerifyCase::ClientTimeout, VerifyCase::LostAnswer];
    let answers = || {
        let outcomes = cases.iter().filter_map(|case| played.get(case)).flatten();
        outcomes.filter_map(ClientOutcome::answer).filter(|answer| answer.status == StatusCode::CONFLICT)
    };
    answers().find(|answer| answer.retry_after().is_some()).or_else(|| answers().next())
}

fn reuse(played: &HashMap<VerifyCase, Vec<ClientOutcome>>) -> Option<&ApiAnswer> {
    let [alone, reused] = played.get(&VerifyCase::OtherBody)?.as_slice() else { return None };
    alone.answer().filter(|answer| answer.is_success())?;
    reused.answer().filter(|answer| answer.class() == AnswerClass::Refused)
}

impl Player<'_> {
    /// The control's first request. Where a bare key is refused, it is tried with quotes.
    async fn first(&mut self) -> Result<ApiAnswer, VerifyError> {
        let begun = Instant::now();
        let answer = self.control(&self.first_key.clone()).await?;
        if answer.is_success() {
            self.duration = begun.elapsed();
            return Ok(answer);
        }
        let is_in_header = matches!(self.request.key, KeyPosition::Header(_));
        if answer.class() == AnswerClass::Refused && is_in_header {
            self.form = KeyForm::Quoted;
            self.first_key = new_key();
            let begun = Instant::now();
            let quoted = self.control(&self.first_key.clone()).await?;
            if quoted.is_success() {
                self.duration = begun.elapsed();
                return Ok(quoted);
            }
        }
        Err(VerifyError::Refused(answer.status))
    }

    /// The same request with another key.
    async fn another(&mut self, key: &str) -> Result<ApiAnswer, VerifyError> {
        let begun = Instant::now();
        let answer = self.control(key).await?;
        self.duration = self.duration.max(begun.elapsed());
        if answer.is_success() { Ok(answer) } else { Err(VerifyError::SecondRefused(answer.status)) }
    }

    async fn control(&mut self, key: &str) -> Result<ApiAnswer, VerifyError> {
        let key = CaseKeys::new(key, key).value(SentKey::First, self.form);
        match self.ask(&key, Variation::AsGiven).await? {
            ClientOutcome::Answered(answer) => Ok(answer),
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
                    let after = (self.duration / 2).clamp(Duration::from_millis(5), MOST_RETRY_AFTER);
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

    /// The retry of a client, which comes again where it is told to.
    async fn follow(&mut self, key: &KeyValue, variation: Variation) -> Result<Vec<ClientOutcome>, VerifyError> {
        let mut outcomes = Vec::new();
        for _ in 0..=FOLLOWED {
            let outcome = self.ask(key, variation).await?;
            let again = outcome.answer().filter(|answer| answer.asks_to_come_again());
            let wait = again.map(|answer| match answer.retry_after() {
                Some(seconds) => Duration::from_secs(seconds).min(MOST_RETRY_AFTER),
                None => self.duration.clamp(Duration::from_millis(200), MOST_RETRY_AFTER),
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
            sleep((self.duration * 2 + LEAST_QUIET).min(MOST_WAIT)).await;
        }
    }

    /// What the outcomes tell of the effects. The first request's, too, where the key is that of the control.
    fn effects(
        &self,
        case: VerifyCase,
        outcomes: &[ClientOutcome],
        risen: Option<u64>,
        first: &ApiAnswer,
        baseline: &Baseline,
    ) -> Effects {
        if case != VerifyCase::Repeat {
            return baseline.effects(outcomes, risen);
        }
        let first = ClientOutcome::Answered(first.clone());
        baseline.effects(std::iter::once(&first).chain(outcomes), risen.map(|risen| risen + 1))
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
