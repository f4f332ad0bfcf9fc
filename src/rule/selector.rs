//! Where parts of a key or of a scope are read.

use std::fmt;
use std::time::Duration;

use http::HeaderName;

use super::JsonPointer;

/// Where one part of a key or scope is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Selector {
    /// `header:NAME`: a request header with exactly one line.
    Header(HeaderName),
    /// `cookie:NAME`: one cookie of the `Cookie` header (RFC 6265, 5.4).
    Cookie(String),
    /// `query:NAME`: a parameter of the query, percent-decoded.
    Query(String),
    /// `json:/pointer`: a member of a JSON body (RFC 6901).
    Json(JsonPointer),
    /// `form:FIELD`: a field of an `application/x-www-form-urlencoded` or `multipart/form-data` body.
    Form(String),
    /// `path:PARAM`: the value of `{PARAM}` or `{*PARAM}` in the path, in normal form.
    Path(String),
    /// `host`: the host that the request is for.
    Host,
    /// `jwt:CLAIM`: a claim of the bearer token, if the token verifies.
    Jwt(JsonPointer),
    /// `ip`: the client's address.
    Ip,
    /// `date:day`, `date:month`, `date:year`: the day, month or year in which the request comes, in UTC.
    Date(Period),
}

impl Selector {
    /// Whether the body must be read for it.
    pub fn is_in_body(&self) -> bool {
        match self {
            Self::Json(_) | Self::Form(_) => true,
            Self::Header(_) | Self::Cookie(_) | Self::Query(_) | Self::Path(_) => false,
            Self::Host | Self::Jwt(_) | Self::Ip | Self::Date(_) => false,
        }
    }

    /// Whether the client chooses the value.
    pub fn is_chosen_by_client(&self) -> bool {
        match self {
            Self::Header(_) | Self::Cookie(_) | Self::Query(_) | Self::Json(_) | Self::Form(_) => true,
            Self::Path(_) | Self::Host | Self::Jwt(_) | Self::Ip | Self::Date(_) => false,
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
            Self::Form(field) => write!(f, "form:{field}"),
            Self::Path(param) => write!(f, "path:{param}"),
            Self::Host => f.write_str("host"),
            Self::Jwt(claim) => match claim.dotted() {
                Some(dotted) => write!(f, "jwt:{dotted}"),
                None => write!(f, "jwt:{claim}"),
            },
            Self::Ip => f.write_str("ip"),
            Self::Date(period) => write!(f, "date:{period}"),
        }
    }
}

/// A calendar period in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// `day`
    Day,
    /// `month`
    Month,
    /// `year`
    Year,
}

impl Period {
    /// The length of the longest one.
    pub fn longest(self) -> Duration {
        let days = match self {
            Self::Day => 1,
            Self::Month => 31,
            Self::Year => 366,
        };
        Duration::from_secs(days * 24 * 60 * 60)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::Year => "year",
        })
    }
}
