//! The right to show a caller what another request has recorded. Pure.
//!
//! What a record holds of another request is [`Sealed`], and only a [`ReplayPermission`] opens it outside of this room.
//! There are two ways to one: the route asks nobody, or the service that it asks has answered 2xx. So no path of the
//! data path can show a stored answer and forget to ask.

use http::{HeaderValue, StatusCode};

use crate::rule::Rule;

/// The right to show what a record holds.
#[derive(Debug, Clone)]
pub struct ReplayPermission(());

/// What the answer of an authorization service means.
#[derive(Debug, Clone)]
pub enum AuthAnswer {
    /// 2xx
    Allowed(ReplayPermission),
    /// 401 or 403: the caller gets this answer instead.
    Denied,
    /// Any other status says nothing about the caller.
    Neither,
}

impl ReplayPermission {
    /// On a route without `replay_auth`, every caller of the operation may see its answer.
    pub fn without_asking(rule: &Rule) -> Option<Self> {
        rule.replay_auth.is_none().then_some(Self(()))
    }
}

impl AuthAnswer {
    /// By the status.
    pub fn of(status: StatusCode) -> Self {
        match status {
            status if status.is_success() => Self::Allowed(ReplayPermission(())),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Self::Denied,
            _ => Self::Neither,
        }
    }
}

/// What a record holds of another request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed<T>(pub(super) T);

impl<T> Sealed<T> {
    /// Shows it to a caller who has the permission.
    pub fn open(self, _permission: ReplayPermission) -> T {
        self.0
    }
}

/// The answer to a request that took effect, as far as its record has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginalAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its `Location`.
    pub location: Option<HeaderValue>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_permits_and_only_401_and_403_are_an_answer_for_the_caller() {
        for status in 100..=999 {
            let answer = AuthAnswer::of(StatusCode::from_u16(status).expect("a status"));
            match status {
                200..=299 => assert!(matches!(answer, AuthAnswer::Allowed(_)), "{status}"),
                401 | 403 => assert!(matches!(answer, AuthAnswer::Denied), "{status}"),
                _ => assert!(matches!(answer, AuthAnswer::Neither), "{status}"),
            }
        }
    }
}
