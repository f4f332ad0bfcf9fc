//! The properties that hold for every key.

use std::collections::HashSet;

use crate::backend::Execution;
use crate::client::Answer;

const REFUSALS: [&str; 7] = [
    "409 in-flight",
    "409 outcome-unknown",
    "409 already-completed",
    "502 upstream-unreachable",
    "502 upstream-failed",
    "503 store-unavailable",
    // The backend's own status.
    "500",
];

/// All successes are equal and come from an execution; everything else is an allowed refusal.
pub fn audit(executions: &[Execution], answers: &[Answer]) {
    let successes: HashSet<_> = answers.iter().filter(|answer| answer.is_success()).map(|one| &one.content).collect();
    assert!(successes.len() <= 1, "different answers for one key: {successes:?}");
    for success in successes {
        let id = success.location.as_deref().and_then(|location| location.strip_prefix("/orders/"));
        let executed = executions.iter().any(|execution| Some(execution.id.as_str()) == id);
        assert!(executed, "a success that was not executed: {success:?}, {executions:?}");
        let body = format!("{{\"order\":\"{}\"}}", id.expect("it was found"));
        assert_eq!(success.body, body.as_bytes());
    }
    for answer in answers.iter().filter(|answer| !answer.is_success()) {
        assert!(REFUSALS.contains(&answer.to_string().as_str()), "{answer}");
    }
}
