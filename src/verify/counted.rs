//! The API's own count while the cases are played, and why it is no longer relied on.

use std::time::Duration;

use tokio::time::sleep;

use super::answer::ClientOutcome;
use super::case::VerifyCase;
use super::client::ApiClient;
use super::counter::{CountChange, EffectCounter, IDLE};
use super::error::VerifyError;
use super::played::PlayedCases;
use super::player::Player;
use super::request::{CountRequest, VerifyRequest};

/// The count, as long as it is relied on.
pub(super) struct TrustedCount<'a> {
    request: &'a VerifyRequest,
    counter: Option<EffectCounter<'a>>,
    /// Why not.
    pub(super) instead: Option<String>,
}

/// Why a count that was relied on is not to be trusted at the end.
enum CountDoubt {
    /// It did not rise for one more.
    Unchanged,
    /// It rose by itself, or otherwise than by one.
    Otherwise,
    /// It cannot be read, or no more is created, for this reason.
    NotTold(String),
}

const UNRELIABLE: &str = "the count cannot be relied on";

impl<'a> TrustedCount<'a> {
    pub(super) async fn open(request: &'a VerifyRequest, client: &'a ApiClient) -> Result<Self, VerifyError> {
        let mut count = Self { request, counter: None, instead: None };
        if let Some(asked) = &request.count {
            let opened = EffectCounter::open(request, asked, client).await;
            let path = || asked.target.path().to_owned();
            count.counter = opened.map_err(|why| VerifyError::Count { path: path(), why })?;
            if count.counter.is_none() {
                count.instead = Some(format!("the count at GET {} changes by itself", path()));
            }
        }
        Ok(count)
    }

    /// What is relied on now.
    pub(super) fn request(&self) -> Option<&'a CountRequest> {
        self.counter.as_ref().and(self.request.count.as_ref())
    }

    fn give_up(&mut self, why: impl FnOnce(&str) -> String) {
        self.counter = None;
        self.instead = self.request.count.as_ref().map(|count| why(count.target.path()));
    }

    /// After one request of the control: a count that has not risen by one is not relied on.
    pub(super) async fn rises(&mut self) {
        let Some(counter) = &mut self.counter else { return };
        if !counter.rises().await.is_ok_and(|change| change == CountChange::ByOne) {
            self.give_up(|path| format!("the count at GET {path} did not rise by one when one was created"));
        }
    }

    /// How long it takes to see an effect.
    pub(super) fn delay(&self) -> Duration {
        self.counter.as_ref().map_or(Duration::ZERO, |counter| counter.delay * 2)
    }

    /// Plays a case, counts its effects, and plays it once more where only the count tells of a doubled one.
    pub(super) async fn play(
        &mut self,
        case: VerifyCase,
        player: &mut Player<'_>,
        played: &mut PlayedCases,
    ) -> Result<(), VerifyError> {
        self.begin(case, played).await;
        let outcomes = player.play(case).await?;
        let risen = self.end(case, &outcomes, player, played).await;
        played.insert(case, outcomes, risen);
        if played.rests_on_count(case) {
            // Others who create something are noticed, or come once more.
            sleep(IDLE).await;
            self.begin(case, played).await;
            // It is not relied on if they were noticed.
            if played.rests_on_count(case) {
                let (outcomes, risen) = match &self.counter {
                    None => (Vec::new(), None),
                    Some(_) => {
                        let outcomes = player.play(case).await?;
                        let risen = self.end(case, &outcomes, player, played).await;
                        (outcomes, risen)
                    }
                };
                played.tried_again(case, &outcomes, risen);
            }
        }
        Ok(())
    }

    async fn begin(&mut self, case: VerifyCase, played: &mut PlayedCases) {
        let Some(counter) = self.counter.as_mut().filter(|_| case.is_counted()) else { return };
        match counter.begin().await {
            Ok(true) => {}
            // Others create something, or an effect came later than it could be waited for.
            Ok(false) => {
                let name = case.name();
                self.give_up(|path| {
                    format!("the count at GET {path} changed while nothing was sent, before the case {name}")
                });
                played.distrust_last(UNRELIABLE);
            }
            Err(why) => {
                self.give_up(|path| unreadable(path, &why));
                played.distrust_harmless(UNRELIABLE);
            }
        }
    }

    /// By how much it has risen.
    async fn end(
        &mut self,
        case: VerifyCase,
        outcomes: &[ClientOutcome],
        player: &Player<'_>,
        played: &mut PlayedCases,
    ) -> Option<u64> {
        let counter = self.counter.as_mut()?;
        if !case.is_counted() {
            counter.forget();
            return None;
        }
        player.quiet(outcomes).await;
        match counter.risen().await {
            Ok(by) => by,
            Err(why) => {
                self.give_up(|path| unreadable(path, &why));
                played.distrust_harmless(UNRELIABLE);
                None
            }
        }
    }

    /// A list in pages rises until its first page is full: one more is created at the end.
    pub(super) async fn close(&mut self, player: &mut Player<'_>, played: &mut PlayedCases) {
        let Some(counter) = &mut self.counter else { return };
        let Err(doubt) = is_still_right(counter, player).await else { return };
        match doubt {
            CountDoubt::Unchanged => played.distrust_harmless(UNRELIABLE),
            CountDoubt::Otherwise | CountDoubt::NotTold(_) => played.distrust_all(UNRELIABLE),
        }
        self.give_up(|path| match doubt {
            CountDoubt::Unchanged | CountDoubt::Otherwise => {
                format!("at the end, the count at GET {path} did not rise by one when one was created")
            }
            CountDoubt::NotTold(why) => format!("at the end, the count at GET {path} could not be tried: {why}"),
        });
    }
}

fn unreadable(path: &str, why: &str) -> String {
    format!("the count at GET {path} could not be read each time: {why}")
}

/// Whether the count is as it was, and rises by one when one more is created.
async fn is_still_right(counter: &mut EffectCounter<'_>, player: &mut Player<'_>) -> Result<(), CountDoubt> {
    if !counter.begin().await.map_err(CountDoubt::NotTold)? {
        return Err(CountDoubt::Otherwise);
    }
    player.one_more().await.map_err(|error| CountDoubt::NotTold(error.to_string()))?;
    match counter.rises().await.map_err(CountDoubt::NotTold)? {
        CountChange::ByOne => Ok(()),
        CountChange::Unchanged => Err(CountDoubt::Unchanged),
        CountChange::Otherwise => Err(CountDoubt::Otherwise),
    }
}
