//! The properties that hold for every key.

use std::collections::HashSet;

use crate::backend::Execution;
use crate::client::{Answer, Content};

const REFUSALS: [&str; 8] = [
    "409 in-flight",
    "409 outcome-unknown",
    "409 already-completed",
    "502 upstream-unreachable",
    "502 upstream-failed",
    "503 store-unavailable",
    "504 upstream-timeout",
    // The backend's own status.
    "500",
];

/// All successes are equal and come from an execution; everything else is an allowed refusal, and names no order that was
/// not executed.
pub fn audit(executions: &[Execution], answers: &[Answer]) {
    let successes: HashSet<_> = answers.iter().filter(|answer| answer.is_success()).map(|one| &one.content).collect();
    assert!(successes.len() <= 1, "different answers for one key: {successes:?}");
    for success in successes {
        let id = executed(success, executions).expect("every success names its order");
        assert_eq!(success.body, format!("{{\"order\":\"{id}\"}}").as_bytes());
    }
    for answer in answers.iter().filter(|answer| !answer.is_success()) {
        assert!(REFUSALS.contains(&answer.to_string().as_str()), "{answer}");
        executed(&answer.content, executions);
    }
}

/// The order that an answer names, if it names one.
fn executed<'a>(answer: &'a Content, executions: &[Execution]) -> Option<&'a str> {
    let location = answer.location.as_deref()?;
    let id = location.strip_prefix("/orders/").expect("the location of an order");
    let executed = executions.iter().any(|execution| execution.id == id);
    assert!(executed, "it was not executed: {answer:?}, {executions:?}");
    Some(id)
}
