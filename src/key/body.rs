use std::cell::OnceCell;

use http::{HeaderMap, header};

use super::BodyFault;
use super::form::{FormField, UrlEncodedForm};
use super::json::Json;
use super::multipart::Multipart;
use super::parameters::is_read_alike;
use crate::list;
use crate::rule::{Rule, Selector};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The properties of the body that the head declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Declared<'h> {
    pub(super) media: Media,
    /// The only `Content-Type` line, where it is text.
    pub(super) content_type: Option<&'h str>,
    /// There is more than one `Content-Type` line, or more than one type in it. Backends differ in which one they use.
    pub(super) several_types: bool,
    /// There is a `Content-Encoding` other than `identity` (RFC 9110, 8.4), so that its bytes are not of the media type.
    pub(super) encoded: bool,
}

/// How a body can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// `application/json`, any type with the suffix `+json` (RFC 6839, 3.1), `text/json`, `application/x-amz-json-1.1`.
    Json,
    /// `application/x-www-form-urlencoded`
    Form,
    /// `multipart/form-data`
    Multipart,
    /// Other `multipart/`, `image/`, `audio/` and `video/`: large, and never JSON.
    Stream,
    /// Any other type, or none. Selectors of JSON read it as JSON if it parses.
    Other,
}

/// A body, parsed on demand and at most once.
pub(super) struct Body<'b> {
    pub(super) bytes: &'b [u8],
    pub(super) declared: Declared<'b>,
    /// A part of the key or the scope is read from it as JSON.
    by_json: bool,
    json: OnceCell<Option<Json<'b>>>,
    form: OnceCell<Option<AnyForm<'b>>>,
}

/// A form, however it is encoded.
#[derive(Debug)]
pub(super) enum AnyForm<'b> {
    Urlencoded(UrlEncodedForm<'b>),
    Multipart(Multipart<'b>),
}

impl AnyForm<'_> {
    pub(super) fn field(&self, name: &str) -> FormField<'_> {
        match self {
            Self::Urlencoded(form) => form.field(name),
            Self::Multipart(form) => form.field(name),
        }
    }
}

impl<'h> Declared<'h> {
    pub(super) fn of(headers: &'h HeaderMap) -> Self {
        let encoded = headers.contains_key(header::CONTENT_ENCODING) && is_encoded(headers);
        let mut lines = headers.get_all(header::CONTENT_TYPE).into_iter().map(http::HeaderValue::as_bytes);
        let (first, has_more) = (lines.next(), lines.next().is_some());
        let line = first.filter(|_| !has_more);
        // The common values need no parsing.
        if line == Some(b"application/json") {
            let content_type = Some("application/json");
            return Self { media: Media::Json, content_type, several_types: false, encoded };
        }
        let content_type = line.and_then(|line| str::from_utf8(line).ok());
        let essence = content_type.and_then(|value| value.split(';').next());
        let several_types = has_more || essence.is_some_and(|essence| essence.contains(','));
        Self { media: line.map_or(Media::Other, Media::of), content_type, several_types, encoded }
    }
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let coding = |name: &[u8]| !name.is_empty() && !name.eq_ignore_ascii_case(b"identity");
    list::members(headers, &header::CONTENT_ENCODING).any(coding)
}

impl Media {
    /// Parameters and case are ignored (RFC 9110, 8.3.1). Two `Content-Type` lines declare nothing: backends differ in which
    /// one they use.
    fn of(line: &[u8]) -> Self {
        let essence = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let Some(slash) = essence.iter().position(|byte| *byte == b'/') else { return Self::Other };
        let (kind, subtype) = (&essence[..slash], &essence[slash + 1..]);
        let is_kind = |name: &[u8]| kind.eq_ignore_ascii_case(name);
        let is_both = |one: &[u8], other: &[u8]| is_kind(one) && subtype.eq_ignore_ascii_case(other);
        let is = |name: &[u8]| is_both(b"application", name);
        let has_suffix = subtype.last_chunk().is_some_and(|suffix: &[u8; 5]| suffix.eq_ignore_ascii_case(b"+json"));
        const OF_AWS: &[u8] = b"x-amz-json-";
        let begins =
            |prefix: &[u8]| subtype.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        if is(b"json") || has_suffix || is_both(b"text", b"json") || is_kind(b"application") && begins(OF_AWS) {
            Self::Json
        } else if is(b"x-www-form-urlencoded") {
            Self::Form
        } else if is_both(b"multipart", b"form-data") {
            Self::Multipart
        } else if [&b"multipart"[..], b"image", b"audio", b"video"].into_iter().any(is_kind) {
            Self::Stream
        } else {
            Self::Other
        }
    }
}

impl<'b> Body<'b> {
    /// The body of a request, on this rule's route.
    pub(super) fn of(rule: &Rule, declared: Declared<'b>, bytes: &'b [u8]) -> Self {
        let by_json = rule.key.iter().chain(&rule.scope).any(|selector| matches!(selector, Selector::Json(_)));
        Self { by_json, ..Self::new(declared, bytes) }
    }

    pub(super) fn new(declared: Declared<'b>, bytes: &'b [u8]) -> Self {
        Self { bytes, declared, by_json: false, json: OnceCell::new(), form: OnceCell::new() }
    }

    /// The type by which it is compared. A body whose key is read as JSON is JSON, whatever is declared.
    pub(super) fn media(&self) -> Media {
        match self.declared.media {
            Media::Form | Media::Other if self.by_json && self.json().is_some() => Media::Json,
            declared => declared,
        }
    }

    /// Whether it is empty, except for a byte order mark.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() || self.bytes == BYTE_ORDER_MARK
    }

    /// Whether it has been parsed.
    #[cfg(test)]
    pub(super) fn is_parsed(&self) -> bool {
        self.json.get().is_some() || self.form.get().is_some()
    }

    /// The body as JSON, whatever is declared; `None` where it is not JSON.
    pub(super) fn json(&self) -> Option<&Json<'b>> {
        self.json.get_or_init(|| Some(self.bytes).filter(|_| !self.declared.encoded).and_then(Json::parse)).as_ref()
    }

    /// Whether all parsers agree on its characters and parts.
    pub(super) fn is_read_alike(&self) -> Result<(), BodyFault> {
        let form = match self.declared.media {
            Media::Form | Media::Multipart => self.form(),
            Media::Json | Media::Stream | Media::Other => None,
        };
        let is_ascii = match form {
            Some(AnyForm::Urlencoded(form)) if form.names_other_charset() => return Err(BodyFault::Charset),
            Some(AnyForm::Urlencoded(form)) => form.is_ascii(),
            Some(AnyForm::Multipart(form)) => {
                form.oddity().map_or(Ok(()), |what| Err(BodyFault::Odd(what)))?;
                form.is_ascii()
            }
            None => self.bytes.is_ascii(),
        };
        let is_read_alike = self.declared.content_type.is_none_or(|value| is_read_alike(value, is_ascii));
        if is_read_alike { Ok(()) } else { Err(BodyFault::Charset) }
    }

    /// The body as a form: `multipart/form-data` where it is declared, else urlencoded, whatever is declared. `None` where it
    /// is not a form.
    pub(super) fn form(&self) -> Option<&AnyForm<'b>> {
        let parse = |bytes| match self.declared {
            Declared { media: Media::Multipart, content_type, .. } => {
                Multipart::parse(content_type?, bytes).map(AnyForm::Multipart)
            }
            Declared { media: Media::Json | Media::Form | Media::Stream | Media::Other, .. } => {
                UrlEncodedForm::parse(bytes).map(AnyForm::Urlencoded)
            }
        };
        self.form.get_or_init(|| Some(self.bytes).filter(|_| !self.declared.encoded).and_then(parse)).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn declared(lines: &[(HeaderName, &'static str)]) -> (Media, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, HeaderValue::from_static(value));
        }
        let Declared { media, encoded, .. } = Declared::of(&headers);
        (media, encoded)
    }

    #[test]
    fn media_types_are_told_apart() {
        for (value, media) in [
            ("application/json", Media::Json),
            ("Application/JSON ; charset=utf-8", Media::Json),
            ("application/vnd.api+json;x=\"a;b\"", Media::Json),
            ("image/x+JSON", Media::Json),
            ("application/x-www-form-urlencoded", Media::Form),
            ("application/X-WWW-Form-Urlencoded;charset=UTF-8", Media::Form),
            ("text/json", Media::Json),
            ("Text/JSON;charset=utf-8", Media::Json),
            ("application/x-amz-json-1.1", Media::Json),
            ("application/X-AMZ-JSON-1.0", Media::Json),
            ("text/x-amz-json-1.0", Media::Other),
            ("application/x-amz-cbor-1.1", Media::Other),
            ("text/plain;charset=UTF-8", Media::Other),
            ("application/octet-stream", Media::Other),
            ("image/png", Media::Stream),
            ("AUDIO/ogg", Media::Stream),
            ("video/mp4", Media::Stream),
            ("multipart/related; boundary=x", Media::Stream),
            ("application/jsonp", Media::Other),
            ("application/x-ndjson", Media::Other),
            ("multipart/form-data; boundary=x", Media::Multipart),
            ("multipart/mixed; boundary=x", Media::Stream),
            ("application/form-data", Media::Other),
            ("json", Media::Other),
            ("", Media::Other),
        ] {
            assert_eq!(declared(&[(header::CONTENT_TYPE, value)]).0, media, "{value}");
        }
        assert_eq!(declared(&[]).0, Media::Other);
        let twice = [(header::CONTENT_TYPE, "application/json"), (header::CONTENT_TYPE, "application/json")];
        assert_eq!(declared(&twice).0, Media::Other);
    }

    #[test]
    fn identity_is_no_encoding() {
        for (value, encoded) in [("gzip", true), ("identity", false), ("Identity, br", true), ("", false), (",", false)]
        {
            assert_eq!(declared(&[(header::CONTENT_ENCODING, value)]).1, encoded, "{value}");
        }
        let lines = [(header::CONTENT_ENCODING, "identity"), (header::CONTENT_ENCODING, "zstd")];
        assert!(declared(&lines).1);
    }
}
