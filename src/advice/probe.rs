//! Warnings about `[route.probe]`.

use super::{Advice, warn};
use crate::rule::Rule;

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
