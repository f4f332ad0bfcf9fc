//! Detects that a server has lost writes.

use std::time::Duration;

use tokio::time::Instant;

use super::command_error::CommandError;
use super::connected::Connected;
use crate::record::Hex;
use crate::store::store_state::StoreState;

/// A number that this process writes repeatedly, increased by one each time. A server with an older number is not the
/// one that accepted the last write: it was restored, or it was a replica that lagged.
pub(super) struct Canary {
    name: String,
    next: u64,
    /// The last number that was certainly written, and the time of that write.
    taken: Option<(u64, Instant)>,
}

/// The time to live of a canary. A canary that may have expired proves nothing.
const CANARY_LIVES: Duration = Duration::from_secs(86_400);

impl Canary {
    pub(super) fn new(name: String) -> Self {
        Self { name, next: 1, taken: None }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Forgets the last write. Its loss is already known.
    pub(super) fn forget(&mut self) {
        self.taken = None;
    }

    /// Writes the next number. Returns whether the server has lost the last one.
    pub(super) async fn is_outdated(&mut self, connected: &Connected, deadline: Instant) -> Result<bool, CommandError> {
        let number = self.next;
        self.next += 1;
        let before = match connected.set_and_get(&self.name, number, CANARY_LIVES, deadline).await {
            Ok(before) => before,
            // The server refuses writes now, or is too old to return the previous value. This proves nothing.
            Err(fault @ CommandError::Refused(..)) => {
                if fault.refuses_renewals() {
                    connected.usable_since.note_break();
                }
                return Ok(false);
            }
            Err(fault) => return Err(fault),
        };
        let taken = self.taken.replace((number, Instant::now()));
        // Numbers without a reply may have been written too, so a later number is fine.
        Ok(taken
            .is_some_and(|(taken, at)| at.elapsed() < CANARY_LIVES / 2 && before.is_none_or(|before| before < taken)))
    }
}

/// The start of the names of this process's canaries.
pub(super) fn canary_base(prefix: &str) -> String {
    format!("{prefix}:canary:{}", random_id())
}

/// A random ID. Without random bytes, other processes share it, and a loss of data may not be detected.
pub(super) fn random_id() -> String {
    let mut id = [0; 8];
    let _ = getrandom::fill(&mut id);
    Hex::of(&id).to_string()
}

/// Reports that a server has lost writes.
pub(super) fn report_outdated(state: &StoreState) {
    state.count_loss();
    tracing::error!(
        "Redis has an older state than it had: what was recorded last is gone, and those operations run again when they are \
         repeated"
    );
}
