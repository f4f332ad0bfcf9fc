//! The values of labels: closed sets. Each is in the order in which its counts are kept.

/// The outcome of a request: the `outcome` label of `onlyonce_requests_total`, and the word in the log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// It was forwarded, and the client got the backend's answer.
    Executed,
    /// It was answered from the record.
    Replayed,
    /// 409: the first is still running.
    InFlight,
    /// The key was used for something else.
    KeyReused,
    /// 409: the outcome of the first is unknown.
    Unknown,
    /// 409: completed, but not replayable.
    Unreplayable,
    /// 400: the route requires a key.
    MissingKey,
    /// 400: the key is invalid.
    InvalidKey,
    /// 410: a key that is older than any record.
    KeyExpired,
    /// 401: the token that identifies the caller is not verified.
    InvalidToken,
    /// 400: the body that should contain the key does not parse.
    InvalidBody,
    /// 400: the request cannot be forwarded safely.
    BadRequest,
    /// 413.
    TooLarge,
    /// 408: the body came too slowly.
    RequestTimeout,
    /// 503: the store.
    StoreUnavailable,
    /// 503: the record.
    RecordUnreadable,
    /// 503: too much work at once.
    Overloaded,
    /// The caller may not see the recorded answer, or that cannot be told (`replay_auth`).
    ReplayRefused,
    /// Forwarded unguarded.
    Unguarded,
    /// 502 or 504: the backend.
    UpstreamError,
}

impl RequestOutcome {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Executed,
        Self::Replayed,
        Self::InFlight,
        Self::KeyReused,
        Self::Unknown,
        Self::Unreplayable,
        Self::MissingKey,
        Self::InvalidKey,
        Self::KeyExpired,
        Self::InvalidToken,
        Self::InvalidBody,
        Self::BadRequest,
        Self::TooLarge,
        Self::RequestTimeout,
        Self::StoreUnavailable,
        Self::RecordUnreadable,
        Self::Overloaded,
        Self::ReplayRefused,
        Self::Unguarded,
        Self::UpstreamError,
    ];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Replayed => "replayed",
            Self::InFlight => "in_flight",
            Self::KeyReused => "key_reused",
            Self::Unknown => "unknown",
            Self::Unreplayable => "unreplayable",
            Self::MissingKey => "missing_key",
            Self::InvalidKey => "invalid_key",
            Self::KeyExpired => "key_expired",
            Self::InvalidToken => "invalid_token",
            Self::InvalidBody => "invalid_body",
            Self::BadRequest => "bad_request",
            Self::TooLarge => "too_large",
            Self::RequestTimeout => "request_timeout",
            Self::StoreUnavailable => "store_unavailable",
            Self::RecordUnreadable => "record_unreadable",
            Self::Overloaded => "overloaded",
            Self::ReplayRefused => "replay_refused",
            Self::Unguarded => "unguarded",
            Self::UpstreamError => "upstream_error",
        }
    }
}

/// A call to the store: the `op` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreOp {
    /// A claim, or a takeover.
    Claim,
    /// The body of an answer that is stored separately from its record.
    Body,
    /// A renewal.
    Renew,
    /// An outcome.
    Settle,
    /// A release.
    Release,
    /// A look-up.
    Find,
    /// A page of a list.
    List,
    /// An operator's change.
    Exchange,
}

impl StoreOp {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Claim, Self::Body, Self::Renew, Self::Settle, Self::Release, Self::Find, Self::List, Self::Exchange];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Body => "body",
            Self::Renew => "renew",
            Self::Settle => "settle",
            Self::Release => "release",
            Self::Find => "find",
            Self::List => "list",
            Self::Exchange => "exchange",
        }
    }
}

/// The new state of a record: the `state` label of `onlyonce_records_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordState {
    /// The answer is kept.
    Completed,
    /// Completed; the answer is not kept.
    Unreplayable,
    /// The outcome is unknown.
    Unknown,
    /// The key was freed.
    Released,
}

impl RecordState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Completed, Self::Unreplayable, Self::Unknown, Self::Released];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Unreplayable => "unreplayable",
            Self::Unknown => "unknown",
            Self::Released => "released",
        }
    }
}

/// What would have happened to an observed request: the `would` label of
/// `onlyonce_duplicates_observed_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShadowVerdict {
    /// It repeats a completed request.
    Replay,
    /// It repeats a request that is in flight or whose outcome is unknown.
    InFlight,
    /// Its key was used for something else.
    KeyReused,
    /// It has no key.
    MissingKey,
    /// Its key is invalid, or its body does not parse.
    InvalidKey,
    /// Its body is too large to be guarded.
    TooLarge,
}

impl ShadowVerdict {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Replay, Self::InFlight, Self::KeyReused, Self::MissingKey, Self::InvalidKey, Self::TooLarge];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::InFlight => "in_flight",
            Self::KeyReused => "key_reused",
            Self::MissingKey => "missing_key",
            Self::InvalidKey => "invalid_key",
            Self::TooLarge => "too_large",
        }
    }
}

/// What came of the question whether a caller may see a recorded answer: the `result` label of
/// `onlyonce_replay_auth_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayAuthResult {
    /// 2xx.
    Allowed,
    /// The same question was answered with 2xx a short time ago, and was not asked again.
    Cached,
    /// 401 or 403.
    Denied,
    /// Any other answer, or none.
    Failed,
}

impl ReplayAuthResult {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Allowed, Self::Cached, Self::Denied, Self::Failed];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Cached => "cached",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// The result of a reload: the `result` label of `onlyonce_config_reloads_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The new rules are in force.
    Ok,
    /// The file is invalid, and the old rules stay.
    Refused,
}

impl Reload {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ok, Self::Refused];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
        }
    }
}

/// What the form guard did: the `result` label of `onlyonce_form_guard_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormGuardResult {
    /// The script was served.
    Script,
    /// A page got the script's tag.
    Injected,
    /// A page stayed as it is: its Content-Security-Policy forbids the script.
    Policy,
    /// It does not say that it is UTF-8.
    Charset,
    /// It has a content coding.
    Encoded,
    /// It must not be changed.
    NoTransform,
    /// A page that was loaded under another configuration sent a form that nothing guards any more.
    Outdated,
}

impl FormGuardResult {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Script, Self::Injected, Self::Policy, Self::Charset, Self::Encoded, Self::NoTransform, Self::Outdated];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Script => "script",
            Self::Injected => "injected",
            Self::Policy => "policy",
            Self::Charset => "charset",
            Self::Encoded => "encoded",
            Self::NoTransform => "no_transform",
            Self::Outdated => "outdated",
        }
    }
}

/// What came of asking the backend about an unknown outcome: the `result` label of `onlyonce_probes_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// The attempt took effect.
    Found,
    /// The attempt left no trace.
    Absent,
    /// The answer tells neither.
    Inconclusive,
    /// The backend was not asked.
    NotAsked,
}

impl ProbeResult {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Found, Self::Absent, Self::Inconclusive, Self::NotAsked];

    /// The label value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Absent => "absent",
            Self::Inconclusive => "inconclusive",
            Self::NotAsked => "not_asked",
        }
    }
}
