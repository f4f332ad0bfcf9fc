/// Why a body could not be read completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::proxy) enum BodyReadError {
    /// It is larger than the cap.
    TooLarge,
    /// It did not arrive in time.
    TimedOut,
    /// The budget has no room for it.
    NoRoom,
    /// The client aborted it.
    Broken,
}

/// Why a forwarded body was aborted.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The other side aborted it.
    #[error("the body broke off")]
    Broken(#[from] hyper::Error),
    /// It paused for too long.
    #[error("the body paused for too long")]
    Paused,
    /// It ended too early.
    #[error("the body is cut short")]
    CutShort,
}
