//! Warnings about `[route.probe]`.

use super::{Advice, warn};
use crate::rule::{ProbePiece, Rule, Selector};

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
        "name the caller in probe.path; if keys are unique over all callers, as UUIDs are, accept this",
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
