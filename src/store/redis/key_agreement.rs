//! The agreement between all sidecars on one digest key: a note in the store, which is read repeatedly.

use std::sync::Arc;
use std::time::Duration;

use redis::FromRedisValue;
use tokio::time::Instant;

use super::ConnectionOptions;
use super::acl::AclRule;
use super::canary::{Canary, report_outdated};
use super::command_error::CommandError;
use super::connect_error::ConnectError;
use super::connected::{Connected, ServerDuty};
use super::facts::field;
use super::write_acks::RequiredAcks;
use crate::clock::since_boot;
use crate::config;
use crate::key::DigestKey;
use crate::store::FOREVER;
use crate::store::digest_key::{
    self, Agreement, DigestKeyNote, NoteRefusal, NoteSighting, SETTLING, Settling, Wanted, configured,
};
use crate::store::store_state::StoreState;

/// Ensures that this process claims only while the store has the same digest key.
pub(super) struct KeyAgreement {
    state: Arc<StoreState>,
    prefix: String,
    rule: AclRule,
    configured: Option<DigestKey>,
    /// When this process last saw the store's note about the digest key, if it ever did: the time of the reply.
    seen: Option<Instant>,
    /// Whether looks after that have failed. They may have written the note, all the same.
    has_failed: bool,
    /// Whether the canary was outdated, which is not reported yet.
    is_outdated: bool,
    is_read_only: bool,
    /// If the server has at most this many clients, this process is alone. `None` if this is unknown: in a cluster,
    /// others may be connected to other nodes.
    own_connections: Option<u64>,
}

/// The number of connections that this process first opens to a server, without the one for acknowledgements. The
/// connections of cores are opened later. If they exist, the process does not count as alone, and waits.
const OWN_CONNECTIONS: u64 = 4;

/// Redis counts whole milliseconds: a note may look younger than it is by this.
const ROUNDING: Duration = Duration::from_millis(2);

impl KeyAgreement {
    pub(super) fn new(
        config: &config::StoreConfig,
        state: Arc<StoreState>,
        duty: ServerDuty,
        options: ConnectionOptions,
    ) -> Self {
        let own_connections = OWN_CONNECTIONS + u64::from(RequiredAcks::of(config).is_some());
        Self {
            state,
            prefix: config.prefix.clone(),
            rule: AclRule { is_node: duty != ServerDuty::Alone, ..AclRule::of(config) },
            configured: configured(config),
            seen: None,
            has_failed: false,
            is_outdated: false,
            is_read_only: options.is_read_only,
            own_connections: (duty == ServerDuty::Alone).then_some(own_connections),
        }
    }

    /// Agrees with the server on the digest key, and confirms it. Also detects a loss of data.
    pub(super) async fn agree(
        &mut self,
        connected: &Connected,
        mut canary: Option<&mut Canary>,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let name = note_name(&self.prefix);
        let wanted = Wanted::new(self.configured, self.state.digest_key()).map_err(ConnectError::Randomness)?;
        let note = wanted.note().encode();
        if self.is_read_only {
            return self.read_key(connected, &wanted, &name, deadline).await;
        }
        let (asked, begun) = (since_boot(), Instant::now());
        let (found, left, is_outdated) =
            tokio::join!(take_note(connected, &name, &note, deadline), connected.left(&name, deadline), async {
                match &mut canary {
                    Some(canary) => canary.is_outdated(connected, deadline).await,
                    None => Ok(false),
                }
            },);
        let has_failed = std::mem::replace(&mut self.has_failed, true);
        // If another command fails, the next look reports it.
        self.is_outdated |= matches!(is_outdated, Ok(true));
        let of = |fault| self.of(fault);
        let (found, left, _) = (found.map_err(of)?, left.map_err(of)?, is_outdated.map_err(of)?);
        let found = match found {
            None => None,
            Some(bytes) => Some(DigestKeyNote::decode(&bytes).ok_or(ConnectError::NotOurs { name: name.clone() })?),
        };
        let seen = NoteSighting {
            was_noted: self.seen.is_some(),
            is_young: is_young(left),
            is_rewritten: self.is_rewritten(left, begun),
        };
        let agreement = match wanted.compare(found) {
            Agreement::Agreed(key) if has_failed && seen.is_rewritten => Agreement::Founded(key),
            agreement => agreement,
        };
        let of_key = match agreement.settle(seen) {
            Ok(of_key) => of_key,
            Err(why) => {
                // Nothing is written by this look.
                self.has_failed = has_failed;
                return Err(refusal(why, &name));
            }
        };
        if of_key.replaces {
            digest_key::report_replaced(&name);
            let put = connected.put(&name, &note, FOREVER, deadline).await;
            put.map_err(|fault| self.of(fault))?;
        }
        let must_settle = match of_key.settling {
            Settling::Done => false,
            Settling::Needed => true,
            Settling::UnlessAlone => !self.is_alone(connected, &name, deadline).await?,
        };
        if must_settle {
            self.state.no_claims_for(SETTLING);
        }
        let is_of_new_data = matches!(agreement, Agreement::Founded(_) | Agreement::Adopted(_));
        if is_of_new_data && let Some(canary) = canary {
            canary.forget();
        }
        if of_key.is_loss {
            self.state.count_loss();
            digest_key::report_loss("Redis");
        } else if self.is_outdated && !is_of_new_data {
            report_outdated(&self.state);
        }
        (self.has_failed, self.is_outdated) = (false, false);
        self.seen = Some(Instant::now());
        self.state.set_digest_key(of_key.key);
        self.state.confirm(asked);
        Ok(())
    }

    /// Whether the store's note is younger than the last look at it: the store has lost it, and it was written again.
    fn is_rewritten(&self, left: Option<Duration>, begun: Instant) -> bool {
        let (Some(seen), Some(left)) = (self.seen, left) else { return false };
        FOREVER.abs_diff(left) + ROUNDING < begun.saturating_duration_since(seen)
    }

    /// Reads the store's digest key without changing it.
    async fn read_key(
        &self,
        connected: &Connected,
        wanted: &Wanted,
        name: &str,
        deadline: Instant,
    ) -> Result<(), ConnectError> {
        let Some(found) = connected.look(name, deadline).await.map_err(|fault| self.of(fault))? else { return Ok(()) };
        let note =
            DigestKeyNote::decode(&found.bytes).ok_or_else(|| ConnectError::NotOurs { name: name.to_owned() })?;
        let agreement = wanted.compare(Some(note));
        if matches!(agreement, Agreement::Forgotten(_)) {
            digest_key::report_unused();
        }
        self.state.set_digest_key(agreement.read().map_err(|why| refusal(why, name))?);
        Ok(())
    }

    /// Whether this process is the only client of the server, just after it wrote its key. Then no other sidecar uses
    /// another key, and no wait is necessary. In that case the note is made to look old, so that later sidecars do not
    /// wait either.
    async fn is_alone(&self, connected: &Connected, name: &str, deadline: Instant) -> Result<bool, ConnectError> {
        let Some(own) = self.own_connections else { return Ok(false) };
        let of = |fault| self.of(fault);
        let info = ask::<String>(connected, &["INFO", "clients"], deadline).await.map_err(of)?;
        let clients = info.and_then(|info| field(&info, "connected_clients")?.parse::<u64>().ok());
        let is_alone = clients.is_some_and(|clients| clients <= own);
        if is_alone {
            connected.expire(name, FOREVER - SETTLING, deadline).await.map_err(of)?;
        }
        Ok(is_alone)
    }

    fn of(&self, fault: CommandError) -> ConnectError {
        ConnectError::of(fault, || self.rule.to_string())
    }
}

/// The name of the store's note.
pub(super) fn note_name(prefix: &str) -> String {
    format!("{prefix}:digest-key")
}

fn refusal(why: NoteRefusal, name: &str) -> ConnectError {
    let name = name.to_owned();
    match why {
        NoteRefusal::Withheld => ConnectError::DigestKeyWithheld { name },
        NoteRefusal::Replaced => ConnectError::DigestKeyReplaced { name },
    }
}

/// Whether a note is new, derived from its remaining time to live. Where the server's clock was set back, that is longer than
/// at the start.
fn is_young(left: Option<Duration>) -> bool {
    left.is_some_and(|left| FOREVER.abs_diff(left) < SETTLING)
}

/// Writes the note if there is none, and otherwise reads it. Its remaining time to live tells its age.
async fn take_note(
    connected: &Connected,
    name: &str,
    note: &[u8],
    deadline: Instant,
) -> Result<Option<Vec<u8>>, CommandError> {
    let timeout = deadline.saturating_duration_since(Instant::now());
    match connected.acquire(&[name.as_bytes()], note, FOREVER, timeout).await {
        Ok(found) => Ok(found.map(Into::into)),
        Err(fault) if fault.is_elsewhere() => Err(fault),
        // The server refuses writes (its memory or disk is full, or its replicas are missing). It may still serve
        // replays.
        Err(CommandError::Refused(code, error)) => match connected.look(name, deadline).await? {
            Some(found) => Ok(Some(found.bytes.into())),
            None => Err(CommandError::Refused(code, error)),
        },
        Err(fault) => Err(fault),
    }
}

/// Sends a command that may be refused, because managed servers hide some facts.
async fn ask<T: FromRedisValue>(
    connected: &Connected,
    words: &[&str],
    deadline: Instant,
) -> Result<Option<T>, CommandError> {
    let mut question = redis::Cmd::new();
    question.arg(words);
    match connected.in_time(deadline, question.query_async(&mut connected.control.handle())).await {
        Ok(answer) => Ok(Some(answer)),
        Err(CommandError::Refused(..)) => Ok(None),
        Err(fault) => Err(fault),
    }
}
