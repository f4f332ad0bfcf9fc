use std::time::Duration;

use crate::rule::Selector;
use crate::units::HumanDuration;

/// Why the operation of a request cannot be determined. The texts are for its sender. They name the selector and never
/// contain a key, a body or a credential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// 400 `invalid-key`
    #[error("{}", .why.text(.selector))]
    Key {
        /// The selector of the key or scope.
        selector: Selector,
        /// What is wrong with it.
        why: KeyFault,
    },
    /// 410 `key-expired`
    #[error(
        "The idempotency key in {selector} says that it is older than the {} for which keys are remembered here: whether \
         it was used before cannot be told. Look for its effect before you use a new key.", HumanDuration(*.retention)
    )]
    Expired {
        /// The selector of the key.
        selector: Selector,
        /// How long a record is kept.
        retention: Duration,
    },
    /// 401 `invalid-token`
    #[error(
        "The bearer token in Authorization is needed for {selector}, and it cannot be verified, or does not have this \
         claim. Send one that is valid, or no Authorization at all."
    )]
    Token {
        /// The selector of the claim.
        selector: Selector,
    },
    /// 400 `invalid-body`
    #[error("{}", .why.text(.selector))]
    Body {
        /// The selector in the body.
        selector: Selector,
        /// Why it cannot be read.
        why: BodyFault,
    },
}

/// What is wrong with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFault {
    /// Empty, or nothing but white space.
    Blank,
    /// Longer than the rule's `key_max_length`, which is given here.
    TooLong(usize),
    /// Bytes that a key in a header cannot have, or quotes that do not match.
    Characters,
    /// Not a quoted string, where one is required.
    Unquoted,
    /// Not a UUID, where one is required.
    NotUuid,
    /// Not a ULID, where one is required.
    NotUlid,
    /// More than one header line, or more than one cookie or query parameter of the name.
    Several,
    /// A percent sign in a query that starts no escape. Parsers differ in how they decode it.
    Escape,
    /// Another parameter of the query that backends may take for the selected one.
    Lookalike,
    /// A JSON object or array.
    NotScalar,
    /// A file of a form.
    File,
}

/// Why nothing can be read from a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// Declared as JSON, but invalid or nested too deeply.
    NotJson,
    /// Declared as a form, but with a percent sign that starts no escape, or with an incomplete part.
    NotForm,
    /// Has a `Content-Encoding`.
    Encoded,
    /// Contains the selected value more than once.
    Duplicate,
    /// Two `Content-Type` lines, or one with two types.
    Types,
    /// In a charset that parsers may decode differently.
    Charset,
    /// Contains another field or member that backends may take for the selected one.
    Lookalike,
    /// A multipart form that parsers may read differently: the reason.
    Odd(&'static str),
}

impl KeyFault {
    pub(super) fn of(self, selector: &Selector) -> KeyError {
        KeyError::Key { selector: selector.clone(), why: self }
    }

    fn text(self, selector: &Selector) -> String {
        match self {
            Self::Blank => format!("The idempotency key in {selector} is blank."),
            Self::TooLong(limit) => format!("The idempotency key in {selector} is longer than {limit} bytes."),
            Self::Characters => format!(
                "The idempotency key in {selector} has characters that a key cannot have there. Send visible ASCII \
                 characters without spaces, commas and quotes, or one quoted string."
            ),
            Self::Unquoted => {
                format!("The idempotency key in {selector} must be one quoted string (RFC 9651, 3.3.3): \"...\"")
            }
            Self::NotUuid => format!(
                "The idempotency key in {selector} must be a UUID (RFC 9562): 32 hexadecimal digits in groups of \
                 8-4-4-4-12."
            ),
            Self::NotUlid => {
                format!("The idempotency key in {selector} must be a ULID: 26 digits of Crockford's base 32.")
            }
            Self::Several => format!("The request has more than one {selector}; it can have one only."),
            Self::Escape => {
                format!("The value of {selector} has a percent sign that is not followed by two hex digits.")
            }
            Self::Lookalike => format!(
                "The query has a parameter that may be taken for {selector}: it differs in characters such as . [ ] _ and \
                 space, in its case, or in what stands behind a bracket or a semicolon. Send it under its right name only."
            ),
            Self::File => format!("The value of {selector} is a file; it must be a plain field of the form."),
            Self::NotScalar => {
                format!("The value of {selector} is an object or an array; it must be a string, a number or a boolean.")
            }
        }
    }
}

impl BodyFault {
    pub(super) fn of(self, selector: &Selector) -> KeyError {
        KeyError::Body { selector: selector.clone(), why: self }
    }

    fn text(self, selector: &Selector) -> String {
        match self {
            Self::NotJson => {
                format!("{selector} is needed from the body, which is declared as JSON but cannot be read as JSON.")
            }
            Self::NotForm => {
                format!("{selector} is needed from the body, which is declared as a form but cannot be read as one.")
            }
            Self::Encoded => {
                format!("{selector} is needed from the body, which cannot be read because it has a Content-Encoding.")
            }
            Self::Duplicate => format!("The body has more than one value for {selector}."),
            Self::Types => {
                format!("{selector} is needed from the body, which is declared as more than one type (Content-Type).")
            }
            Self::Charset => {
                format!("{selector} is needed from the body, which is declared in another charset than UTF-8.")
            }
            Self::Lookalike => format!(
                "The body has a name that may be taken for that of {selector}: it differs in characters such as . [ ] _ \
                 and space, in its case, or in what stands behind a bracket, a semicolon or a NUL. Send it under its right \
                 name only."
            ),
            Self::Odd(what) => {
                format!("{selector} is needed from the body, a form {what}: it can be read in two ways.")
            }
        }
    }
}
