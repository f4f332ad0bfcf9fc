//! The last requests that were refused, and why: for operators who look. Bounded, and no request waits for it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError, TryLockError};

/// One refusal. Nothing of the request is in it but what its client was told, too.
#[derive(Debug, Clone)]
pub struct Refused {
    /// By the wall clock, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The route's name.
    pub route: String,
    /// The problem's code.
    pub code: &'static str,
    /// The status that the client got.
    pub status: u16,
    /// Why, in plain words.
    pub detail: Cow<'static, str>,
    /// The record that it is about, where there is one.
    pub record: Option<String>,
}

/// The last of them, numbered since the start.
#[derive(Debug, Default)]
pub struct LastRefused(Mutex<Last>);

#[derive(Debug, Default)]
struct Last {
    count: u64,
    refused: VecDeque<(u64, Refused)>,
}

/// How many are kept.
const MOST: usize = 100;

impl LastRefused {
    /// Keeps one. Where another thread is at it, this one is not kept: they come faster than anybody reads.
    pub fn push(&self, refused: impl FnOnce() -> Refused) {
        let mut last = match self.0.try_lock() {
            Ok(last) => last,
            Err(TryLockError::Poisoned(last)) => last.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        last.count += 1;
        let number = last.count;
        last.refused.push_front((number, refused()));
        last.refused.truncate(MOST);
    }

    /// The latest first, each with its number.
    pub fn all(&self) -> Vec<(u64, Refused)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).refused.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_are_kept_and_no_more() {
        let last = LastRefused::default();
        for at in 0..250 {
            let code = "missing-key";
            last.push(|| Refused { at, route: "a".into(), code, status: 400, detail: "b".into(), record: None });
        }
        let all = last.all();
        assert_eq!((all.len(), all[0].0, all[0].1.at, all[99].1.at), (100, 250, 249, 150));
        // A reader who holds it is in nobody's way.
        let held = last.0.lock().expect("no panic");
        last.push(|| panic!("it is not even made"));
        drop(held);
    }
}
