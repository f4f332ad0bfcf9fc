use super::Secret;
use crate::rule::words;

/// `admin.token`, or one of `[admin.tokens]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// For the audit.
    pub name: String,
    /// The token itself.
    pub token: Secret,
    /// What it is good for.
    pub may: AdminRight,
}

/// The name of `admin.token` in the audit.
pub const UNNAMED_TOKEN: &str = "admin.token";

words! {
    /// `may`, of one of `[admin.tokens]`
    pub enum AdminRight {
        /// See records, their stories and their stored answers.
        Read = "read",
        /// Release and complete them, too.
        Change = "change",
    }
}
