//! What an owner knows of its own lease. Pure: [`Lease`](super::lease::Lease) keeps it behind a lock.

use crate::record::Token;

/// Who owns the record, as far as this process knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Holder {
    /// The owner.
    #[default]
    Owner,
    /// Another owner, or nobody.
    Lost,
    /// Nobody: an operator or a probe freed the key.
    Freed,
}

/// Whether the request was allowed to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum SendPermission {
    #[default]
    NotAsked,
    Granted,
    Refused {
        /// It was granted for an earlier connection.
        after_grant: bool,
    },
}

/// The last write of an attempt to its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum FinalWrite {
    #[default]
    NotBegun,
    /// The outcome is sent to the store, and may have been written.
    Settle,
    /// The key is being freed.
    Release,
    /// The same, and a try has no answer: the key may be free.
    ReleaseUnanswered,
}

/// Why a request was not allowed to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendRefusal {
    /// The record has another owner, or none.
    Replaced,
    /// The lease was too old, and could not be renewed.
    InDoubt,
}

#[derive(Debug, Default)]
pub(super) struct LeaseState {
    holder: Holder,
    permission: SendPermission,
    final_write: FinalWrite,
    /// Later claims of this process that the store granted because it had lost the record. They are deleted.
    given_back: Vec<Token>,
}

impl LeaseState {
    /// The record has another owner. Returns whether this is new.
    pub(super) fn lose(&mut self) -> bool {
        let is_news = self.holder == Holder::Owner;
        if is_news {
            self.holder = Holder::Lost;
        }
        is_news
    }

    /// An operator or a probe has freed the key. Returns whether the loss of the record is new.
    pub(super) fn free(&mut self) -> bool {
        let is_news = self.holder == Holder::Owner;
        self.holder = Holder::Freed;
        is_news
    }

    pub(super) fn is_lost(&self) -> bool {
        self.holder != Holder::Owner
    }

    pub(super) fn is_freed(&self) -> bool {
        self.holder == Holder::Freed
    }

    /// Allows the request to be sent if the lease is fresh and the record is the owner's. An owner that has heard of
    /// another never sends: the store lost the record, or an operator or a probe freed it.
    pub(super) fn grant_send(&mut self, is_fresh: bool) -> bool {
        let granted = is_fresh && !self.is_lost();
        self.permission = match self.permission {
            _ if granted => SendPermission::Granted,
            SendPermission::NotAsked => SendPermission::Refused { after_grant: false },
            SendPermission::Granted => SendPermission::Refused { after_grant: true },
            refused @ SendPermission::Refused { .. } => refused,
        };
        granted
    }

    /// Whether the request may have been sent.
    pub(super) fn may_have_sent(&self) -> bool {
        match self.permission {
            SendPermission::NotAsked => false,
            SendPermission::Granted => true,
            SendPermission::Refused { after_grant } => after_grant,
        }
    }

    /// `None`: it was not refused.
    pub(super) fn send_refusal(&self) -> Option<SendRefusal> {
        match self.permission {
            SendPermission::NotAsked | SendPermission::Granted => None,
            SendPermission::Refused { .. } if self.is_lost() => Some(SendRefusal::Replaced),
            SendPermission::Refused { .. } => Some(SendRefusal::InDoubt),
        }
    }

    /// From now on, the owner may have settled the record itself.
    pub(super) fn begin_settle(&mut self) {
        self.final_write = FinalWrite::Settle;
    }

    /// From now on, the owner may have freed the key itself.
    pub(super) fn begin_release(&mut self) {
        if self.final_write != FinalWrite::ReleaseUnanswered {
            self.final_write = FinalWrite::Release;
        }
    }

    /// A release has no answer.
    pub(super) fn may_be_released(&mut self) {
        self.final_write = FinalWrite::ReleaseUnanswered;
    }

    pub(super) fn may_have_released(&self) -> bool {
        self.final_write == FinalWrite::ReleaseUnanswered
    }

    pub(super) fn is_settling(&self) -> bool {
        self.final_write == FinalWrite::Settle
    }

    pub(super) fn is_releasing(&self) -> bool {
        matches!(self.final_write, FinalWrite::Release | FinalWrite::ReleaseUnanswered)
    }

    /// The store granted this claim to a request of this process, which was answered from memory instead.
    pub(super) fn give_back(&mut self, token: Token) {
        self.given_back.push(token);
    }

    pub(super) fn has_given_back(&self, token: Token) -> bool {
        self.given_back.contains(&token)
    }

    pub(super) fn has_given_back_any(&self) -> bool {
        !self.given_back.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_news_once() {
        let mut state = LeaseState::default();
        assert!(state.lose());
        assert!(!state.lose() && !state.free());
        assert!(state.is_lost() && state.is_freed());
        let mut freed = LeaseState::default();
        assert!(freed.free() && !freed.lose());
        assert!(freed.is_freed());
    }

    #[test]
    fn a_refusal_names_its_reason_and_forgets_no_grant() {
        let mut state = LeaseState::default();
        assert_eq!((state.may_have_sent(), state.send_refusal()), (false, None));
        assert!(!state.grant_send(false));
        assert_eq!((state.may_have_sent(), state.send_refusal()), (false, Some(SendRefusal::InDoubt)));
        assert!(state.grant_send(true));
        assert_eq!((state.may_have_sent(), state.send_refusal()), (true, None));
        state.lose();
        assert!(!state.grant_send(true));
        assert!(!state.grant_send(true));
        assert_eq!((state.may_have_sent(), state.send_refusal()), (true, Some(SendRefusal::Replaced)));
    }
}
