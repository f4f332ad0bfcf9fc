use super::body::{Body, Declared};
use super::fingerprint::{self, FingerprintedBody};
use super::jwt::Credential;
use super::select::{self, Role};
use super::{DigestKey, DigestKind, KeyError, Request};
use crate::rule::{Rule, Selector};

/// The value of each selector of a rule in a request, for `explain`. Not used for requests.
#[derive(Debug)]
pub struct Readings {
    /// In the order of the rule.
    pub scope: Vec<SelectorReading>,
    /// In the order of the rule.
    pub key: Vec<SelectorReading>,
    /// The part of the body that is in the fingerprint.
    pub body: FingerprintedBody,
}

/// What one selector finds.
#[derive(Debug)]
pub struct SelectorReading {
    /// Where it looks.
    pub selector: Selector,
    /// A short digest of what is there, never the value itself; `None`: nothing is there.
    pub found: Result<Option<String>, KeyError>,
}

/// Reads every selector by itself, so that one that fails hides no other.
pub fn readings(rule: &Rule, digest_key: &DigestKey, request: Request<'_>, body: &[u8]) -> Readings {
    let body = Body::of(rule, Declared::of(request.headers), body);
    let credential = Credential::of(rule, &request);
    let claims = credential.claims();
    let find = |selector: &Selector, role| -> Result<Option<String>, KeyError> {
        let part = match select::in_head(selector, role, &request, body.declared, &claims)? {
            Some(part) => part,
            None => select::in_body(selector, role, &body)?,
        };
        let mut digest = digest_key.digest(DigestKind::Reading);
        part.add_to(&mut digest, selector);
        Ok((!part.is_absent()).then(|| digest.short().to_string()))
    };
    let read_all = |selectors: &[Selector], role| {
        let each = |selector: &Selector| SelectorReading { selector: selector.clone(), found: find(selector, role) };
        selectors.iter().map(each).collect()
    };
    let counted = fingerprint::add(&mut digest_key.digest(DigestKind::Reading), &rule.fingerprint, &body);
    Readings { scope: read_all(&rule.scope, Role::Scope), key: read_all(&rule.key, Role::of_key(rule)), body: counted }
}
