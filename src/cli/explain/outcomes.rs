//! What is compared of a repeat, and what each outcome of the attempt means for it.

use std::time::Duration;

use crate::cli::text::{labelled, ranges};
use crate::key::{FingerprintedBody, Operation};
use crate::record::UnknownPolicy;
use crate::rule::{Disposition, FingerprintMode, OnConcurrent, OnMismatch, Rule};
use crate::units::{HumanDuration, HumanSize};

/// The part of the body that is compared.
pub(super) fn covered(mode: &FingerprintMode, counted: FingerprintedBody, body: &[u8]) -> String {
    let ignored = match mode {
        FingerprintMode::Auto { ignore } | FingerprintMode::Json { ignore } => ignore.as_slice(),
        FingerprintMode::Raw | FingerprintMode::Form | FingerprintMode::None => &[],
    };
    match counted {
        FingerprintedBody::NotAtAll => "not the body (fingerprint = \"none\")".to_owned(),
        FingerprintedBody::Bytes if body.is_empty() => "the body, which is empty".to_owned(),
        FingerprintedBody::Bytes if *mode == FingerprintMode::Raw => {
            "the body, by its bytes (fingerprint = \"raw\")".to_owned()
        }
        FingerprintedBody::Bytes => "the body, by its bytes: its Content-Type is neither JSON nor a form".to_owned(),
        FingerprintedBody::Unreadable => {
            "the body, by its bytes: it cannot be read as the JSON or form that it is taken for".to_owned()
        }
        FingerprintedBody::Form => "the body as a form, by its fields".to_owned(),
        FingerprintedBody::Json if ignored.is_empty() => "the body as JSON, by value".to_owned(),
        FingerprintedBody::Json => {
            let ignored: Vec<String> = ignored.iter().map(ToString::to_string).collect();
            format!("the body as JSON, by value, without {}", ignored.join(" "))
        }
    }
}

/// What each possible outcome of the attempt means for repeats.
pub(super) fn outcomes(out: &mut String, rule: &Rule, operation: &Operation, attempt_timeout: Duration) {
    let terms = &operation.terms;
    let retention = HumanDuration(terms.retention);
    let unknown = match terms.on_unknown {
        UnknownPolicy::Hold(time) => format!("repeats get 409 outcome-unknown for {}", HumanDuration(time)),
        UnknownPolicy::Retry => {
            format!("a repeat takes over once the lease of {} has run out", HumanDuration(terms.lease))
        }
    };
    let meanwhile = match rule.on_concurrent {
        OnConcurrent::Reject => "repeats get 409 in-flight".to_owned(),
        OnConcurrent::Wait => format!(
            "repeats wait for up to {}, {} of them at once, and are then replayed; else 409 in-flight",
            HumanDuration(rule.wait_timeout),
            rule.max_waiters
        ),
    };
    let mismatch = match rule.on_mismatch {
        _ if operation.key.is_none() => "is another operation",
        _ if rule.fingerprint == FingerprintMode::None => "is a repeat all the same",
        OnMismatch::Reject => "422 key-reused",
        OnMismatch::Conflict => "409 key-reused",
        OnMismatch::Replay => "is a repeat all the same: the record wins",
    };
    let answers = |disposition| ranges(rule, disposition);
    labelled(out, "stored", &format!("answers {}: kept for {retention}, and replayed", answers(Disposition::Store)));
    let released = answers(Disposition::Release);
    labelled(out, "released", &format!("answers {released}, and what was certainly not sent: the key is free again"));
    let lost = format!("no whole answer within {}", HumanDuration(attempt_timeout));
    labelled(out, "unknown", &format!("answers {}, and {lost}: {unknown}", answers(Disposition::Hold)));
    let cap = HumanSize(rule.max_response_body);
    let unreplayable =
        format!("stored answers over {cap}, and 2xx and 3xx that break off: repeats get 409 already-completed");
    labelled(out, "unreplayable", &unreplayable);
    labelled(out, "meanwhile", &meanwhile);
    labelled(out, "other body", mismatch);
    if let Some(auth) = &rule.replay_auth {
        let again = match auth.cache {
            Duration::ZERO => "each time".to_owned(),
            cache => format!("again after {}", HumanDuration(cache)),
        };
        let asked = format!(
            "{auth} is asked first, {again}: 2xx lets a repeat see what is recorded, 401 and 403 are its answer, and all \
             else is 503 replay-refused"
        );
        labelled(out, "replay auth", &asked);
    }
}
