//! Whether a server has forgotten what it took.

use std::time::Duration;

use tokio::time::Instant;

use super::command_error::CommandError;
use super::connected::Connected;
use super::store_state::StoreState;
use crate::record::Hex;

/// A number that this process writes again and again, one more each time. A server that has an older one is not the one
/// that took the last: it was restored, or it was a replica that lagged behind.
pub(super) struct Canary {
    name: String,
    next: u64,
    /// What was certainly taken, and when.
    taken: Option<(u64, Instant)>,
}

/// So long a canary lives; one that may have died proves nothing.
const CANARY_LIVES: Duration = Duration::from_secs(86_400);

impl Canary {
    pub(super) fn new(name: String) -> Self {
        Self { name, next: 1, taken: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What was taken is gone with all else, as is known by now.
    pub(super) fn forget(&mut self) {
        self.taken = None;
    }

    /// Writes the next number, and says whether the server has forgotten the last.
    pub(super) async fn is_outdated(&mut self, connected: &Connected, deadline: Instant) -> Result<bool, CommandError> {
        let number = self.next;
        self.next += 1;
        let before = match connected.set_and_get(&self.name, number, CANARY_LIVES, deadline).await {
            Ok(before) => before,
            // It takes no writes now, or is too old to tell what was there: nothing is proved.
            Err(CommandError::Refused(..)) => return Ok(false),
            Err(fault) => return Err(fault),
        };
        let taken = self.taken.replace((number, Instant::now()));
        // Numbers without an answer may have been taken too, so a later one is fine.
        Ok(taken
            .is_some_and(|(taken, at)| at.elapsed() < CANARY_LIVES / 2 && before.is_none_or(|before| before < taken)))
    }
}

/// How the names of this process's canaries begin.
pub(super) fn canary_base(prefix: &str) -> String {
    format!("{prefix}:canary:{}", random_id())
}

/// Without randomness it is shared with others, and a server that lost data may go unnoticed.
pub(super) fn random_id() -> String {
    let mut id = [0; 8];
    let _ = getrandom::fill(&mut id);
    Hex::of(&id).to_string()
}

/// A server had forgotten what it took.
pub(super) fn report_outdated(state: &StoreState) {
    state.count_loss();
    tracing::error!(
        "Redis has an older state than it had: what was recorded last is gone, and those operations run again when they are \
         repeated"
    );
}
