//! Plays the cases, one after the other, and has them judged.

use std::time::Duration;

use super::answer::{ClientOutcome, in_words};
use super::case::{CaseKind, VerifyCase};
use super::client::ApiClient;
use super::counted::TrustedCount;
use super::effects::Baseline;
use super::error::VerifyError;
use super::judge::{KeySupport, control};
use super::plan::sent;
use super::played::PlayedCases;
use super::player::Player;
use super::request::VerifyRequest;
use super::verdict::{CaseResult, EffectBasis, Judgement, VerifyReport};

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerifyProgress {
    /// This case is played now.
    Case(VerifyCase),
    /// The control's answers are there: all others take about so long.
    Expected(Duration),
}

/// Plays all cases for which the request has what is needed. `progress` is told of each case before it is played.
pub async fn verify(
    request: &VerifyRequest,
    progress: &mut dyn FnMut(VerifyProgress),
) -> Result<VerifyReport, VerifyError> {
    request.check()?;
    let client = ApiClient::new(&request.url, request.timeout).map_err(VerifyError::Server)?;
    let counting = client.clone();
    let mut player = Player::new(request, client);

    progress(VerifyProgress::Case(VerifyCase::Control));
    let mut count = TrustedCount::open(request, &counting).await?;
    let first = player.first().await?;
    count.rises().await;
    let second = player.second().await?;
    count.rises().await;

    let both = [ClientOutcome::Answered(first.clone()), ClientOutcome::Answered(second.clone())];
    let baseline = Baseline::new(first, second, request.url.path());
    let controlled = (in_words(&both), control(&baseline, count.request().map(|_| 2)));
    let mut played = PlayedCases::new(baseline, player.form);
    let played_cases = || VerifyCase::ALL.into_iter().filter(|case| case.kind() == CaseKind::Played);
    let sent_cases = || played_cases().filter(|case| request.why_not(*case).is_none());
    progress(VerifyProgress::Expected(sent_cases().map(|case| player.expected(case) + count.delay()).sum()));
    for case in played_cases() {
        progress(VerifyProgress::Case(case));
        let is_unheeded = case.is_about_keys() && played.support() == KeySupport::Ignored;
        if !is_unheeded && request.why_not(case).is_none() {
            count.play(case, &mut player, &mut played).await?;
        }
    }
    count.close(&mut player, &mut played).await;

    let cases = VerifyCase::ALL.into_iter().map(|case| {
        let (came, judgement) = match case {
            VerifyCase::Control => controlled.clone(),
            _ => played.row(case, request.why_not(case)),
        };
        row(case, sent(case, request), came, judgement)
    });
    let target = format!("{} {}", request.method, shown_url(request));
    let effects = match count.request() {
        Some(count) => EffectBasis::Count { request: format!("GET {}", count.target.path()) },
        None => EffectBasis::of_names(played.baseline().sources.first(), count.instead.clone()),
    };
    Ok(VerifyReport { target, effects, requests: player.requests, cases: cases.collect() })
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
