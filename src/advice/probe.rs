//! Warnings about `[route.probe]`.

use super::{Advice, Weight, warn};
use crate::config::{StoreConfig, UpstreamConfig};
use crate::record::probe::AbsenceRule;
use crate::rule::{KeyFormat, ProbePath, ProbePiece, Rule, Selector};
use crate::units::HumanDuration;

/// A key is the key of one caller. A question with a credential of the service's own sees what every caller has made.
pub(super) fn about_probed_callers(rule: &Rule) -> Option<Advice> {
    let probe = rule.probe.as_ref().filter(|probe| probe.authorization.is_some())?;
    let is_named = |part: &Selector| {
        probe.path.pieces().iter().any(|piece| matches!(piece, ProbePiece::Value(value) if value == part))
    };
    let part = rule.scope.iter().find(|part| !is_named(part))?;
    warn(
        format!(
            "the probe asks with a credential of its own, and does not say whose key it is ({part} is in scope, and not in \
             probe.path): where two callers use the same key, what one has made counts as done for the other"
        ),
        "name the caller in probe.path, by what identifies it and is no credential; if keys are unique over all callers, as \
         UUIDs are, accept this",
    )
}

/// An ingress without a backend answers 404, and a page of maintenance 200.
pub(super) fn about_probes(rule: &Rule) -> Option<Advice> {
    let probe = rule.probe.as_ref()?;
    let (is_found, is_absent) = (probe.found.witnesses.is_empty(), probe.absent.witnesses.is_empty());
    let (sign, may) = match (is_found, is_absent) {
        (false, false) => return None,
        (true, false) => ("probe.found", "a request that never ran count as done"),
        (false, true) => ("probe.absent", "a request that did run be run again"),
        (true, true) => ("probe.found and probe.absent", "requests count as done, or be run again, wrongly"),
    };
    warn(
        format!(
            "the status alone is the sign of {sign}: an answer of something else than the application, a gateway during a \
             rollout, lets {may}"
        ),
        "name what only the application writes: json = \"/data/0/id\", json_empty = \"/data\" or header = \"X-Orders\"",
    )
}

/// The backend gets the field as its client wrote it, and is asked for the key that it holds.
pub(super) fn about_quoted_keys(rule: &Rule) -> Option<Advice> {
    let probe = rule.probe.as_ref().filter(|_| rule.key_format == KeyFormat::Quoted)?;
    let piece = unquoted_key(rule, &probe.path)?;
    Some(Advice {
        weight: Weight::Note,
        text: format!(
            "keys come in quotes (key_format), and the probe asks for {piece} without them: a backend that stores the field \
             as it came would be found to have nothing, and the request would run again"
        ),
        advice: format!(
            "have the backend store the key itself, without quotes, or ask for it with them: %22{piece}%22"
        ),
    })
}

/// A key of a header that stands in the question without quotes.
fn unquoted_key<'p>(rule: &Rule, path: &'p ProbePath) -> Option<&'p ProbePiece> {
    const QUOTE: &str = "%22";
    let is_key = |piece: &ProbePiece| match piece {
        ProbePiece::Literal(_) => false,
        ProbePiece::Key => matches!(rule.key[..], [Selector::Header(_)]),
        ProbePiece::Value(part) => matches!(part, Selector::Header(_)) && rule.key.contains(part),
    };
    let literal = |at: Option<usize>| match at.and_then(|at| path.pieces().get(at)) {
        Some(ProbePiece::Literal(text)) => text.as_str(),
        Some(ProbePiece::Key | ProbePiece::Value(_)) | None => "",
    };
    let is_quoted =
        |at: usize| literal(at.checked_sub(1)).ends_with(QUOTE) && literal(at.checked_add(1)).starts_with(QUOTE);
    path.pieces().iter().enumerate().find(|(at, piece)| is_key(piece) && !is_quoted(*at)).map(|(_, piece)| piece)
}

/// What others need to ask is kept with the record only where it is encrypted.
pub(super) fn about_lost_owners(rule: &Rule, store: &StoreConfig) -> Option<Advice> {
    rule.probe.as_ref().filter(|probe| probe.authorization.is_some() && store.encryption_keys.is_empty())?;
    Some(Advice {
        weight: Weight::Note,
        text: "where the sidecar that ran a request is lost, nobody asks the backend, and the outcome stays unknown: what others \
               need to ask is kept with the record only where it is encrypted"
            .to_owned(),
        advice: "set store.encryption_keys (`onlyonce keys generate` makes one)".to_owned(),
    })
}

/// Only with keys can others ask about an owner that was lost.
pub(super) fn about_short_holds(rule: &Rule, upstream: &UpstreamConfig, store: &StoreConfig) -> Option<Advice> {
    let probe = rule.probe.as_ref().filter(|probe| probe.authorization.is_some())?;
    let absence = AbsenceRule { after: probe.after, attempt_timeout: upstream.attempt_timeout };
    let takes = absence.frees_lost(rule.lease);
    if store.encryption_keys.is_empty() || rule.hold_for > takes {
        return None;
    }
    let (takes, hold_for) = (HumanDuration(takes), HumanDuration(rule.hold_for));
    Some(Advice {
        weight: Weight::Note,
        text: format!(
            "where the sidecar that ran a request is lost, its absence frees the key after {takes} at the earliest (lease, \
             upstream.attempt_timeout, probe.after), and time does so after {hold_for} (hold_for), whether it took effect \
             or not"
        ),
        advice: format!("hold_for longer than \"{takes}\", or a shorter upstream.attempt_timeout"),
    })
}
