//! The cases: what clients do, in the order of the table, and the requests that each case takes.

use serde::{Serialize, Serializer};

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VerifyCase {
    /// Two keys, one request each: without two effects, nothing else can be told apart.
    Control,
    /// The same request again, after the answer.
    Repeat,
    /// The status of that second answer.
    ReplayStatus,
    /// Its body.
    ReplayBody,
    /// Its `Location`.
    ReplayLocation,
    /// Its other header fields.
    ReplayHeaders,
    /// The same request many times at once.
    Concurrent,
    /// The connection is cut before the answer; the retry comes when the first must have ended.
    LostAnswer,
    /// The client gives up while the first runs, and tries again at once.
    ClientTimeout,
    /// The same key with another body.
    OtherBody,
    /// The same key with another target.
    OtherTarget,
    /// The same key from another caller.
    OtherCaller,
    /// No key at all.
    NoKey,
    /// The same key with quotes, or without them.
    QuotedKey,
    /// The same key in upper case.
    KeyCase,
    /// Two keys in one request.
    TwoKeys,
    /// An empty key.
    EmptyKey,
    /// A very long key.
    LongKey,
    /// What 409 looks like.
    ConflictAnswer,
    /// What the refusal of a reused key looks like.
    ReuseAnswer,
}

/// One request of a case, and what the client does with its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Act {
    pub(super) key: SentKey,
    pub(super) variation: Variation,
    pub(super) manner: Manner,
}

/// The key of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SentKey {
    Absent,
    /// The key of the control's first request, which has been answered.
    First,
    /// That of its second request.
    Second,
    /// A new key, the same in all requests of the case.
    Fresh,
    /// A new key that no other request of the case has.
    Other,
    /// The first key with quotes, where it was sent without them, or the other way round.
    Requoted,
    UpperCase,
    Two,
    Empty,
    /// A long key with this last character.
    Long(char),
}

/// What differs from the request that was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variation {
    AsGiven,
    Body,
    Target,
    Caller,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Waits for the answer.
    Wait,
    /// Sends it this number of times at once.
    AtOnce(usize),
    /// Closes the connection before the answer.
    GiveUp,
    /// Sends it at once, and again while the answer says that the first is still at work.
    Follow,
    /// The same, but not before the first must have ended.
    FollowLater,
}

/// What a case depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaseKind {
    /// Two requests, by which all others are judged.
    Control,
    /// Requests of its own.
    Played,
    /// One part of the answer to the repeat.
    Replay(ReplayPart),
    /// A refusal that came in another case.
    Refusal(SeenRefusal),
}

/// A part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplayPart {
    Status,
    Body,
    Location,
    Fields,
}

/// A refusal that clients must understand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SeenRefusal {
    /// 409: the first request runs.
    InFlight,
    /// 422, or what stands for it: the key was used for another request.
    Reused,
}

/// How many are sent at once.
pub(super) const AT_ONCE: usize = 10;
/// How often a retry is repeated if the answer asks for another try.
pub(super) const FOLLOWED: usize = 3;
/// The characters of the very long key. Stripe takes 255.
pub(super) const LONG: usize = 1024;

impl VerifyCase {
    /// All, in the order of the table.
    pub const ALL: [Self; 20] = [
        Self::Control,
        Self::Repeat,
        Self::ReplayStatus,
        Self::ReplayBody,
        Self::ReplayLocation,
        Self::ReplayHeaders,
        Self::Concurrent,
        Self::LostAnswer,
        Self::ClientTimeout,
        Self::OtherBody,
        Self::OtherTarget,
        Self::OtherCaller,
        Self::NoKey,
        Self::QuotedKey,
        Self::KeyCase,
        Self::TwoKeys,
        Self::EmptyKey,
        Self::LongKey,
        Self::ConflictAnswer,
        Self::ReuseAnswer,
    ];

    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Control => "control",
            Self::Repeat => "repeat",
            Self::ReplayStatus => "replay-status",
            Self::ReplayBody => "replay-body",
            Self::ReplayLocation => "replay-location",
            Self::ReplayHeaders => "replay-headers",
            Self::Concurrent => "concurrent",
            Self::LostAnswer => "lost-answer",
            Self::ClientTimeout => "client-timeout",
            Self::OtherBody => "other-body",
            Self::OtherTarget => "other-target",
            Self::OtherCaller => "other-caller",
            Self::NoKey => "no-key",
            Self::QuotedKey => "quoted-key",
            Self::KeyCase => "key-case",
            Self::TwoKeys => "two-keys",
            Self::EmptyKey => "empty-key",
            Self::LongKey => "long-key",
            Self::ConflictAnswer => "conflict-answer",
            Self::ReuseAnswer => "reuse-answer",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Control => "Two requests with two keys",
            Self::Repeat => "The same request twice",
            Self::ReplayStatus => "The second answer: its status",
            Self::ReplayBody => "The second answer: its body",
            Self::ReplayLocation => "The second answer: its Location",
            Self::ReplayHeaders => "The second answer: its other fields",
            Self::Concurrent => "Ten at once",
            Self::LostAnswer => "The answer is lost, then again",
            Self::ClientTimeout => "The client times out while the first runs",
            Self::OtherBody => "The same key with another body",
            Self::OtherTarget => "The same key with another target",
            Self::OtherCaller => "The same key from another caller",
            Self::NoKey => "No key",
            Self::QuotedKey => "A quoted and a bare key",
            Self::KeyCase => "The key in lower and in upper case",
            Self::TwoKeys => "Two keys in one request",
            Self::EmptyKey => "An empty key",
            Self::LongKey => "A very long key",
            Self::ConflictAnswer => "What 409 looks like",
            Self::ReuseAnswer => "What 422 looks like",
        }
    }

    /// What is asked of an API here, and where that is written.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Control => "another key is another operation (draft 2.2)",
            Self::Repeat => "a retry gets the result of the operation that was completed (draft 2.6)",
            Self::ReplayStatus | Self::ReplayBody => {
                "the same result: Stripe saves \"the resulting status code and body of the first request\""
            }
            Self::ReplayLocation => {
                "the same result (draft 2.6), and Location names what was created (RFC 9110, 10.2.2)"
            }
            Self::ReplayHeaders => "the same result (draft 2.6); fields that describe its content belong to it",
            Self::Concurrent => "one runs; the others get 409 (draft 2.6, 2.7), or wait for its result",
            Self::LostAnswer => "a retry after a lost answer has no second effect (draft 1, 2.6)",
            Self::ClientTimeout => "a retry while the first runs gets 409 (draft 2.6, 2.7), or waits for its result",
            Self::OtherBody => {
                "422 (draft 2.7); Stripe \"errors if they're not the same to prevent accidental misuse\""
            }
            Self::OtherTarget => "a key is not used for another request (draft 2.2); no answer of another one",
            Self::OtherCaller => "keys are combined with what is known of the caller (draft 5)",
            Self::NoKey => "400 where a key is required (draft 2.7); Stripe requires none",
            Self::QuotedKey => "the draft quotes keys (2.1; RFC 9651, 3.3.3); Stripe's clients send them bare",
            Self::KeyCase => "a key is a string, whose case counts (draft 2.1; RFC 9651, 3.3.3)",
            Self::TwoKeys => "there is one key (draft 2.1); readers differ in which of two they take (RFC 9110, 5.3)",
            Self::EmptyKey => "keys are validated before a request is processed (draft 5)",
            Self::LongKey => "keys are validated (draft 5); Stripe takes \"up to 255 characters\"",
            Self::ConflictAnswer => {
                "a problem document (RFC 9457), Retry-After (RFC 9110, 10.2.3), a link to documentation (draft 2.7)"
            }
            Self::ReuseAnswer => "a problem document (RFC 9457), a link to documentation (draft 2.7)",
        }
    }

    pub(super) fn kind(self) -> CaseKind {
        match self {
            Self::Control => CaseKind::Control,
            Self::ReplayStatus => CaseKind::Replay(ReplayPart::Status),
            Self::ReplayBody => CaseKind::Replay(ReplayPart::Body),
            Self::ReplayLocation => CaseKind::Replay(ReplayPart::Location),
            Self::ReplayHeaders => CaseKind::Replay(ReplayPart::Fields),
            Self::ConflictAnswer => CaseKind::Refusal(SeenRefusal::InFlight),
            Self::ReuseAnswer => CaseKind::Refusal(SeenRefusal::Reused),
            Self::Repeat | Self::Concurrent | Self::LostAnswer | Self::ClientTimeout => CaseKind::Played,
            Self::OtherBody | Self::OtherTarget | Self::OtherCaller | Self::NoKey => CaseKind::Played,
            Self::QuotedKey | Self::KeyCase | Self::TwoKeys | Self::EmptyKey | Self::LongKey => CaseKind::Played,
        }
    }

    /// The requests of the case. Rows that look at the answers of other cases have none; the control's are planned by
    /// themselves, because all others rely on them.
    pub(super) fn acts(self) -> Vec<Act> {
        let act = |key, variation, manner| Act { key, variation, manner };
        let waiting = |key| act(key, Variation::AsGiven, Manner::Wait);
        match self {
            Self::Control | Self::ReplayStatus | Self::ReplayBody | Self::ReplayLocation | Self::ReplayHeaders => {
                vec![]
            }
            Self::ConflictAnswer | Self::ReuseAnswer => vec![],
            Self::Repeat => vec![waiting(SentKey::First)],
            Self::Concurrent => vec![act(SentKey::Fresh, Variation::AsGiven, Manner::AtOnce(AT_ONCE))],
            Self::LostAnswer => vec![
                act(SentKey::Fresh, Variation::AsGiven, Manner::GiveUp),
                act(SentKey::Fresh, Variation::AsGiven, Manner::FollowLater),
            ],
            Self::ClientTimeout => vec![
                act(SentKey::Fresh, Variation::AsGiven, Manner::GiveUp),
                act(SentKey::Fresh, Variation::AsGiven, Manner::Follow),
            ],
            // First, with a separate key: is the other body accepted at all?
            Self::OtherBody => vec![
                act(SentKey::Other, Variation::Body, Manner::Wait),
                act(SentKey::First, Variation::Body, Manner::Wait),
            ],
            // The second key first. Where names are numbers that begin anew for each caller or path, one of them may be
            // that of the first answer by chance; both cannot, in this order.
            Self::OtherTarget => vec![
                act(SentKey::Second, Variation::Target, Manner::Wait),
                act(SentKey::First, Variation::Target, Manner::Wait),
            ],
            Self::OtherCaller => vec![
                act(SentKey::Second, Variation::Caller, Manner::Wait),
                // What the other caller gets for a request that is its own.
                act(SentKey::Other, Variation::Caller, Manner::Wait),
                act(SentKey::First, Variation::Caller, Manner::Wait),
            ],
            Self::NoKey => vec![waiting(SentKey::Absent)],
            Self::QuotedKey => vec![waiting(SentKey::Requoted)],
            Self::KeyCase => vec![waiting(SentKey::UpperCase)],
            Self::TwoKeys => vec![waiting(SentKey::Two)],
            Self::EmptyKey => vec![waiting(SentKey::Empty), waiting(SentKey::Empty)],
            Self::LongKey => {
                vec![waiting(SentKey::Long('a')), waiting(SentKey::Long('a')), waiting(SentKey::Long('b'))]
            }
        }
    }

    /// The most requests that it takes.
    pub(super) fn most_requests(self) -> usize {
        if self == Self::Control {
            // One more where keys must be quoted, and one at the end, to see whether the count still rises.
            return 4;
        }
        self.acts().iter().map(|act| act.manner.most_requests()).sum()
    }

    /// Whether it depends on what the key means to the API, which must heed keys for that.
    pub(super) fn is_about_keys(self) -> bool {
        match self {
            Self::ReplayStatus | Self::ReplayBody | Self::ReplayLocation | Self::ReplayHeaders => true,
            Self::OtherBody | Self::OtherTarget | Self::OtherCaller | Self::QuotedKey | Self::KeyCase => true,
            Self::TwoKeys | Self::EmptyKey | Self::LongKey => true,
            Self::Control | Self::Repeat | Self::Concurrent | Self::LostAnswer | Self::ClientTimeout => false,
            Self::NoKey | Self::ConflictAnswer | Self::ReuseAnswer => false,
        }
    }

    /// Whether the effects that are counted at the API are those of its requests. Another target may create what the count
    /// does not hold. So may another caller: there, only a count that rose for each request is relied on.
    pub(super) fn is_counted(self) -> bool {
        self != Self::OtherTarget && !self.acts().is_empty()
    }

    /// Whether it is played once more where only the count tells of a doubled effect. Its keys are new then, or must have no
    /// effect any more.
    pub(super) fn is_tried_twice(self) -> bool {
        match self {
            Self::Repeat | Self::Concurrent | Self::LostAnswer | Self::ClientTimeout | Self::LongKey => true,
            Self::Control | Self::ReplayStatus | Self::ReplayBody | Self::ReplayLocation | Self::ReplayHeaders => false,
            // What ran with another body may be a repeat the next time.
            Self::OtherBody => false,
            Self::OtherTarget | Self::OtherCaller | Self::NoKey | Self::QuotedKey | Self::KeyCase => false,
            Self::TwoKeys | Self::EmptyKey | Self::ConflictAnswer | Self::ReuseAnswer => false,
        }
    }
}

impl Manner {
    pub(super) fn most_requests(self) -> usize {
        match self {
            Self::Wait | Self::GiveUp => 1,
            Self::AtOnce(count) => count,
            Self::Follow | Self::FollowLater => 1 + FOLLOWED,
        }
    }
}

impl Serialize for VerifyCase {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_case_is_in_the_table_once() {
        let names: HashSet<&str> = VerifyCase::ALL.iter().map(|case| case.name()).collect();
        assert_eq!(names.len(), VerifyCase::ALL.len());
    }

    #[test]
    fn the_requests_are_bounded() {
        let most: usize = VerifyCase::ALL.iter().map(|case| case.most_requests()).sum();
        assert_eq!(most, 41);
        let again = VerifyCase::ALL.iter().filter(|case| case.is_tried_twice()).map(|case| case.most_requests());
        assert_eq!(again.sum::<usize>(), 24);
    }
}
