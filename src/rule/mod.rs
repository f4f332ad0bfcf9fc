//! The rules: which requests a route guards, where the key and the caller of a request are read, and what happens to a
//! response by its status. Plain data and pure functions; [`config`](crate::config) reads a file into them.
//!
//! [`Rule`] is one `[[route]]`; [`Selector`] says where one part of a key or scope is read; [`PolicyTable`] says what happens
//! to a response by its status; [`Routes`] finds the rule that guards a request.

mod field;
mod jwt;
mod naming;
mod path_pattern;
mod pointer;
mod policy;
mod preset;
mod probe;
mod public_key;
mod replay_auth;
mod routes;
mod selector;
mod spelling;
mod trust;
mod words;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

pub use field::{is_foldable, is_per_hop, is_same_field, may_begin_with};
pub use jwt::{ExpectedClaims, Jwt, TokenKey, Unverified, Verification};
pub use naming::{ChangedSetting, FORGOTTEN, ForgottenRoute, Naming, NamingChange, forgotten};
pub use path_pattern::{PathPattern, is_parameter_name};
pub use pointer::JsonPointer;
pub use policy::{Disposition, Policy, PolicyTable, StatusSet};
pub use preset::Preset;
pub use probe::{BY_PROBE, ProbeAnswer, ProbePath, ProbePiece, ProbeRule, ProbeSign, ProbeWitness};
pub use public_key::{RSA_BITS, Unusable, unusable};
pub use replay_auth::{AuthServer, ReplayAuth};
pub use routes::{PathParams, RouteConflict, RouteMatch, RouteTarget, Routes, Unguarded};
pub use selector::{Period, Selector};
pub use trust::{Trust, TrustedProxies};
pub use words::Words;
pub(crate) use words::words;

/// One `[[route]]`, with its defaults filled in.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Unique; the metrics label, and the space of the route's records.
    pub name: Arc<str>,
    /// The path pattern as written: `/orders`, `/tenants/{tenant}/orders`, `/v1/{*rest}`.
    pub path: String,
    /// The methods it guards.
    pub methods: Vec<Method>,
    /// Only for this host (lower case, without port); any host when `None`.
    pub host: Option<String>,
    /// Whether it guards at all.
    pub mode: Mode,
    /// The preset that it uses. Its settings are in the other fields.
    pub preset: Option<Preset>,

    /// The parts of the idempotency key; all of them together are the key. Never empty.
    pub key: Vec<Selector>,
    /// What to do with a request without a key.
    pub on_missing_key: OnMissingKey,
    /// Bytes of one part of the key, without its quotes.
    pub key_max_length: usize,
    /// What a key must look like.
    pub key_format: KeyFormat,
    /// Whether a key that contains its creation time is refused when it is older than the retention.
    pub refuse_expired_keys: bool,
    /// Whose key it is. Empty: all callers share one space.
    pub scope: Vec<Selector>,
    /// How two payloads are compared.
    pub fingerprint: FingerprintMode,
    /// Parameters of the query that do not count.
    pub ignore_query: Vec<String>,
    /// Whether path and query are part of the record's name, so that one key may be used for several of them.
    pub target_in_name: bool,
    /// What to do with a key that is reused with another body.
    pub on_mismatch: OnMismatch,

    /// What to do with a repeat while the first request is running.
    pub on_concurrent: OnConcurrent,
    /// The longest that a repeat waits for the first.
    pub wait_timeout: Duration,
    /// Repeats waiting at once on this route.
    pub max_waiters: usize,

    /// What happens to a response, by its status.
    pub policy: PolicyTable,
    /// What happens to the key when the outcome of an attempt is unknown.
    pub on_unknown: OnUnknown,
    /// How long an unknown outcome blocks the key. At most the retention.
    pub hold_for: Duration,
    /// How long an owner may stay silent before it counts as lost.
    pub lease: Duration,
    /// How long a record is kept, counted from the claim and again from the settlement.
    pub retention: Duration,
    /// Whether the file or the preset sets the retention.
    pub retention_given: bool,

    /// The largest request body, in bytes. A larger one gets 413.
    pub max_request_body: u64,
    /// The largest stored response body, in bytes. A larger one is streamed to the first caller and recorded as
    /// unreplayable.
    pub max_response_body: u64,
    /// When the first caller gets the answer.
    pub response: Delivery,
    /// Whether replays carry the stored `Set-Cookie` lines.
    pub replay_set_cookie: bool,
    /// Other fields that replays omit.
    pub replay_omit: Vec<HeaderName>,
    /// Who is asked before a caller is shown what another request has recorded. `None`: nobody.
    pub replay_auth: Option<ReplayAuth>,
    /// What to do with its requests while the store is certainly unreachable.
    pub on_error: OnStoreError,
    /// The origins whose pages may read our own answers and replays.
    pub cors_origins: Vec<HeaderValue>,
    /// Replaces the `detail` of the problems `in-flight`, `key-reused`, `outcome-unknown` and `already-completed`.
    pub message: Option<String>,
    /// A URL, or a path of this host, with documentation: the `Link` of the proxy's own answers.
    pub help: Option<String>,
    /// How the backend is asked about an unknown outcome.
    pub probe: Option<Arc<ProbeRule>>,
    /// `accept`: names of warnings that the operator has accepted.
    pub accept: Vec<&'static str>,
}

impl Rule {
    /// The requests that it matches: `POST|PUT /orders`, with the host where there is one.
    pub fn matches(&self) -> String {
        let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
        format!("{} {}{}", methods.join("|"), self.host.as_deref().unwrap_or_default(), self.path)
    }

    /// Whether a part of the key or scope is in the body, so that the body is read before the claim.
    pub fn reads_body(&self) -> bool {
        self.key.iter().chain(&self.scope).any(Selector::is_in_body)
    }
}

/// What `accept` may name: the warnings and notes of [`advice`](crate::advice).
pub const WARNINGS: [&str; 29] = [
    "address-as-caller",
    "anonymous-caller",
    "authorization-as-caller",
    "body-key-media-type",
    "buffer-too-small",
    "busy-503",
    "constant-key",
    "cookie-as-caller",
    "default-retention",
    "digest-key-in-store",
    "edge-not-trusted",
    "embedded-single",
    "everybody-trusted",
    "evicting-store",
    "fail-open",
    "form-reject",
    "hidden-methods",
    "jwt-unused",
    "memory-store",
    "no-caller",
    "other-hosts",
    "own-caller-rotation",
    "probe-by-status",
    "probe-owner-only",
    "probe-unquoted-key",
    "probe-without-caller",
    "short-hold",
    "short-lease",
    "short-retention",
];

words! {
    /// `mode`
    pub enum Mode {
        /// Guard.
        Enforce = "enforce",
        /// Forward everything, and report what enforcing would have done.
        Observe = "observe",
        /// Forward everything, as if there were no route.
        Off = "off",
    }
}

words! {
    /// `key_format`
    pub enum KeyFormat {
        /// Whatever the grammar allows.
        Any = "any",
        /// A UUID (RFC 9562, 4).
        Uuid = "uuid",
        /// A ULID: 26 digits of Crockford's base 32.
        Ulid = "ulid",
        /// In a header: a quoted string (RFC 9651, 3.3.3).
        Quoted = "quoted",
    }
}

/// `on_missing_key`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissingKey {
    /// Forward it unguarded.
    Forward,
    /// 400 `missing-key`.
    Reject,
    /// Scope and payload are the key, for this long (`fingerprint_window`).
    Fingerprint(Duration),
}

/// `fingerprint` and `fingerprint_ignore`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FingerprintMode {
    /// By the request's `Content-Type`: JSON by value, forms by their fields, anything else by bytes.
    Auto {
        /// Members that do not count.
        ignore: Vec<JsonPointer>,
    },
    /// By bytes.
    Raw,
    /// By JSON value, whatever the `Content-Type` says.
    Json {
        /// Members that do not count.
        ignore: Vec<JsonPointer>,
    },
    /// By the fields of a form: those of `multipart/form-data` where it is declared as that, else urlencoded, whatever
    /// the `Content-Type` says.
    Form,
    /// The body does not count.
    None,
}

words! {
    /// `on_mismatch`
    pub enum OnMismatch {
        /// 422 `key-reused`.
        Reject = "reject",
        /// 409 `key-reused`.
        Conflict = "conflict",
        /// Replay the record.
        Replay = "replay",
    }
}

words! {
    /// `on_concurrent`
    pub enum OnConcurrent {
        /// 409 `in-flight`, unless the client asks to wait (`Prefer: wait=N`, RFC 7240, 4.3).
        Reject = "reject",
        /// Hold the repeat, then replay.
        Wait = "wait",
    }
}

words! {
    /// `response`
    pub enum Delivery {
        /// When it is complete and recorded.
        Buffer = "buffer",
        /// As it arrives, except its end, which follows when it is recorded.
        Stream = "stream",
    }
}

words! {
    /// `on_unknown`
    pub enum OnUnknown {
        /// The key stays blocked until an operator settles it, or `hold_for` ends.
        Hold = "hold",
        /// A repeat takes over once the lease has run out.
        Retry = "retry",
    }
}

words! {
    /// `on_error`, of a route or of the store
    pub enum OnStoreError {
        /// 503.
        Reject = "reject",
        /// Guarded requests go through unguarded.
        Forward = "forward",
    }
}

words! {
    /// `log.keys`
    pub enum LogKeys {
        /// A short keyed digest.
        Hashed = "hashed",
        /// As the client sent it.
        Plain = "plain",
    }
}
