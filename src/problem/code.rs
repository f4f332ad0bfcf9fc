use http::StatusCode;

/// What went wrong: the `code` member, and the end of `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// The first request with this key is still running.
    InFlight,
    /// The key was used for another request.
    KeyReused,
    /// The same, where the route asks for 409 (`on_mismatch = "conflict"`).
    KeyReusedConflict,
    /// The outcome of an earlier attempt is unknown.
    OutcomeUnknown,
    /// It was completed, but its answer is not stored.
    AlreadyCompleted,
    /// The route requires a key.
    MissingKey,
    /// The key is invalid.
    InvalidKey,
    /// The key is older than any record.
    KeyExpired,
    /// The bearer token that identifies the caller is not verified.
    InvalidToken,
    /// The body that contains the key or scope does not parse.
    InvalidBody,
    /// The request cannot be forwarded safely.
    BadRequest,
    /// The target is too long.
    TargetTooLong,
    /// The body is too large to be guarded.
    RequestTooLarge,
    /// The body came too slowly.
    RequestTimeout,
    /// TRACE, which this proxy does not forward.
    MethodNotAllowed,
    /// The request needs a feature that this proxy does not have.
    NotImplemented,
    /// `Expect` with anything but `100-continue`.
    ExpectationFailed,
    /// The store of the records does not answer.
    StoreUnavailable,
    /// There is a record, but it cannot be read.
    RecordUnreadable,
    /// Too much work at once.
    Overloaded,
    /// Nobody says whether the caller may see the recorded answer (`replay_auth`).
    ReplayRefused,
    /// The backend could not be reached; nothing was sent.
    UpstreamUnreachable,
    /// The backend broke off its answer.
    UpstreamFailed,
    /// The backend took too long.
    UpstreamTimeout,
}

impl Code {
    pub(super) fn describe(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::InFlight => (StatusCode::CONFLICT, "in-flight", "The first request is still running"),
            Self::KeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "key-reused", "The key was used for another request"),
            Self::KeyReusedConflict => (StatusCode::CONFLICT, "key-reused", "The key was used for another request"),
            Self::OutcomeUnknown => {
                (StatusCode::CONFLICT, "outcome-unknown", "The outcome of an earlier attempt is not known")
            }
            Self::AlreadyCompleted => (StatusCode::CONFLICT, "already-completed", "This was done already"),
            Self::MissingKey => (StatusCode::BAD_REQUEST, "missing-key", "An idempotency key is required"),
            Self::InvalidKey => (StatusCode::BAD_REQUEST, "invalid-key", "The idempotency key is not valid"),
            Self::KeyExpired => (StatusCode::GONE, "key-expired", "The idempotency key is too old"),
            Self::InvalidToken => (StatusCode::UNAUTHORIZED, "invalid-token", "The bearer token is not valid"),
            Self::InvalidBody => (StatusCode::BAD_REQUEST, "invalid-body", "The body cannot be read"),
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad-request", "The request cannot be forwarded safely"),
            Self::TargetTooLong => (StatusCode::URI_TOO_LONG, "target-too-long", "The request target is too long"),
            Self::RequestTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "request-too-large", "The request body is too large")
            }
            Self::RequestTimeout => {
                (StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request body came too slowly")
            }
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method is not allowed")
            }
            Self::NotImplemented => (StatusCode::NOT_IMPLEMENTED, "not-implemented", "Not supported here"),
            Self::ExpectationFailed => {
                (StatusCode::EXPECTATION_FAILED, "expectation-failed", "The expectation cannot be met")
            }
            Self::StoreUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "Requests cannot be guarded just now")
            }
            Self::RecordUnreadable => {
                (StatusCode::SERVICE_UNAVAILABLE, "record-unreadable", "The record of this request cannot be read")
            }
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many requests at once"),
            Self::ReplayRefused => {
                (StatusCode::SERVICE_UNAVAILABLE, "replay-refused", "The recorded answer cannot be shown just now")
            }
            Self::UpstreamUnreachable => {
                (StatusCode::BAD_GATEWAY, "upstream-unreachable", "The backend cannot be reached")
            }
            Self::UpstreamFailed => (StatusCode::BAD_GATEWAY, "upstream-failed", "The backend broke off"),
            Self::UpstreamTimeout => (StatusCode::GATEWAY_TIMEOUT, "upstream-timeout", "The backend took too long"),
        }
    }

    /// The `code` member.
    pub fn name(self) -> &'static str {
        self.describe().1
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        self.describe().0
    }

    /// Whether the same request with the same key may get another answer later, without intervention.
    pub(super) fn may_pass(self) -> bool {
        match self {
            Self::InFlight | Self::StoreUnavailable | Self::RecordUnreadable | Self::Overloaded => true,
            Self::ReplayRefused => true,
            Self::UpstreamUnreachable | Self::UpstreamTimeout => true,
            Self::KeyReused | Self::KeyReusedConflict | Self::OutcomeUnknown | Self::AlreadyCompleted => false,
            Self::MissingKey | Self::InvalidKey | Self::KeyExpired | Self::InvalidToken => false,
            Self::InvalidBody | Self::BadRequest | Self::TargetTooLong | Self::RequestTooLarge => false,
            Self::RequestTimeout | Self::MethodNotAllowed | Self::NotImplemented | Self::ExpectationFailed => false,
            Self::UpstreamFailed => false,
        }
    }

    /// Whether it concerns the key or its earlier use.
    pub(super) fn is_about_key(self) -> bool {
        match self {
            Self::InFlight | Self::KeyReused | Self::KeyReusedConflict | Self::OutcomeUnknown => true,
            Self::AlreadyCompleted | Self::MissingKey | Self::InvalidKey | Self::KeyExpired => true,
            Self::InvalidBody | Self::BadRequest | Self::TargetTooLong | Self::RequestTooLarge => false,
            Self::InvalidToken | Self::RequestTimeout | Self::MethodNotAllowed => false,
            Self::NotImplemented | Self::ExpectationFailed => false,
            Self::StoreUnavailable | Self::RecordUnreadable | Self::Overloaded | Self::ReplayRefused => false,
            Self::UpstreamUnreachable | Self::UpstreamFailed | Self::UpstreamTimeout => false,
        }
    }
}
