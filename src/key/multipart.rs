//! `multipart/form-data` (RFC 7578).
//!
//! Strict, and with a check for forms that other parsers may read differently ([`Multipart::oddity`]): no key or scope is
//! read from such a form. Ordinary clients do not send them.

use http::HeaderName;

use super::Digest;
use super::form::FormField;
use super::lookalike::is_lookalike;
use super::parameters::{Parameter, Quotes, is_read_alike, occurrences, parameters};

/// The parts of a form, in the order of the body.
#[derive(Debug)]
pub(super) struct Multipart<'b> {
    parts: Vec<MultipartPart<'b>>,
    oddity: Option<&'static str>,
}

#[derive(Debug)]
struct MultipartPart<'b> {
    name: Option<String>,
    is_file: bool,
    lines: Vec<PartHeader<'b>>,
    content: &'b [u8],
}

type PartHeader<'b> = (HeaderName, &'b [u8]);

/// The reasons are predicates of "a form in parts".
type Oddities = Vec<&'static str>;

impl<'b> Multipart<'b> {
    /// `None` where `content_type` has no boundary, or the body ends before its last boundary.
    pub(super) fn parse(content_type: &str, body: &'b [u8]) -> Option<Self> {
        let mut oddities = Oddities::new();
        let boundary = boundary(content_type, &mut oddities)?;
        let pieces = pieces(&format!("--{boundary}"), body, &mut oddities)?;
        let parts =
            pieces.into_iter().map(|piece| MultipartPart::parse(piece, &mut oddities)).collect::<Option<_>>()?;
        Some(Self { parts, oddity: oddities.first().copied() })
    }

    /// Why parsers may read it differently.
    pub(super) fn oddity(&self) -> Option<&'static str> {
        self.oddity
    }

    /// Whether its fields are ASCII in every charset. Files are bytes.
    pub(super) fn is_ascii(&self) -> bool {
        let is_ascii =
            |part: &MultipartPart<'_>| part.name.as_deref().is_none_or(str::is_ascii) && part.content.is_ascii();
        self.parts.iter().filter(|part| !part.is_file).all(is_ascii)
    }

    pub(super) fn field(&self, name: &str) -> FormField<'_> {
        let is_like =
            |part: &MultipartPart<'_>| part.name.as_deref().is_some_and(|own| is_lookalike(own.as_bytes(), name));
        if self.parts.iter().any(is_like) {
            return FormField::Lookalike;
        }
        let mut parts = self.parts.iter().filter(|part| part.name.as_deref() == Some(name));
        match (parts.next(), parts.next()) {
            (None, _) => FormField::Absent,
            (Some(part), None) if part.is_file => FormField::File,
            (Some(part), None) if !part.is_read_alike() => FormField::Charset,
            (Some(part), None) => FormField::Once(part.content),
            (Some(_), Some(_)) => FormField::Repeated,
        }
    }

    /// Adds each part: the lines of its head, with its name and its file's name and type, and its content. The boundary is not
    /// included: browsers choose a new one for each submission.
    pub(super) fn add_to(&self, digest: &mut Digest, counts: impl Fn(&[u8]) -> bool) {
        for part in self.parts.iter().filter(|part| part.name.as_deref().is_none_or(|name| counts(name.as_bytes()))) {
            let mut lines: Vec<_> = part.lines.iter().collect();
            // A stable sort: lines of one name keep their order.
            lines.sort_by_key(|(name, _)| name.as_str());
            digest.count(lines.len());
            for (name, value) in lines {
                digest.part(name.as_str().as_bytes());
                digest.part(value);
            }
            digest.part(part.content);
        }
    }
}

/// The text between parts.
fn boundary<'c>(content_type: &'c str, oddities: &mut Oddities) -> Option<&'c str> {
    let mut boundaries = parameters(content_type, Quotes::Escaped).filter(|parameter| parameter.is("boundary"));
    let first = boundaries.next()?;
    // PHP takes the text after the first occurrence of the word.
    let within = occurrences(first.value, "boundary");
    if boundaries.next().is_some() || occurrences(content_type, "boundary") != 1 + within || !first.is_plain() {
        oddities.push("whose boundary is given more than once, or cannot be told");
    }
    let value = Some(first.value).filter(|value| (1..=70).contains(&value.len()) && !value.ends_with(' '))?;
    Some(value)
}

/// The content between two boundaries. `delimiter` is the boundary with its two hyphens.
fn pieces<'b>(delimiter: &str, body: &'b [u8], oddities: &mut Oddities) -> Option<Vec<&'b [u8]>> {
    let mut pieces = Vec::new();
    // The beginning of the current part.
    let mut begun = None;
    for at in line_starts(body).filter(|at| body[*at..].starts_with(delimiter.as_bytes())) {
        let is_first = at == 0;
        if !is_first && !body[..at].ends_with(b"\r\n") {
            oddities.push("with a boundary that no CRLF precedes");
            continue;
        }
        match begun {
            None if !is_blank(&body[..at]) => oddities.push("with something before its first part"),
            None => {}
            Some(begun) => pieces.push(body.get(begun..at - 2)?),
        }
        let after = &body[at + delimiter.len()..];
        if let Some(epilogue) = after.strip_prefix(b"--") {
            if !is_blank(epilogue) {
                oddities.push("with something behind its last part");
            }
            return Some(pieces);
        }
        after.strip_prefix(b"\r\n")?;
        begun = Some(at + delimiter.len() + 2);
    }
    None
}

/// Lines also end at a CR, as in lenient parsers.
fn line_starts(body: &[u8]) -> impl Iterator<Item = usize> {
    let ends = body.iter().enumerate().filter(|(_, byte)| matches!(byte, b'\r' | b'\n'));
    std::iter::once(0).chain(ends.map(|(at, _)| at + 1))
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(u8::is_ascii_whitespace)
}

impl<'b> MultipartPart<'b> {
    fn parse(piece: &'b [u8], oddities: &mut Oddities) -> Option<Self> {
        let (head, content) = match piece.strip_prefix(b"\r\n") {
            Some(content) => {
                oddities.push("with a part that has no head");
                (&piece[..0], content)
            }
            None => {
                let end = piece.windows(4).position(|four| four == b"\r\n\r\n")?;
                (&piece[..end], &piece[end + 4..])
            }
        };
        let lines = lines(head)?;
        if lines.iter().any(|(_, value)| value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t')) {
            oddities.push("with a part whose head has a control character within a line");
        }
        let mut part = Self { name: None, is_file: false, lines, content };
        (part.name, part.is_file) = part.disposition(oddities);
        part.inspect(oddities);
        Some(part)
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &'b [u8]> {
        self.lines.iter().filter(move |(own, _)| own.as_str() == name).map(|(_, value)| *value)
    }

    /// Its name, and whether it is a file.
    fn disposition(&self, oddities: &mut Oddities) -> (Option<String>, bool) {
        let mut dispositions = self.values("content-disposition");
        let Some(disposition) = dispositions.next() else { return (None, false) };
        if dispositions.next().is_some() {
            oddities.push("with a part that has two Content-Disposition lines");
        }
        let Ok(disposition) = str::from_utf8(disposition) else {
            oddities.push("with a part whose Content-Disposition is not UTF-8");
            return (None, false);
        };
        let kind = disposition.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("form-data") {
            oddities.push("with a part that is not form-data");
        }
        let names = |quotes| parameters(disposition, quotes).filter(|parameter| is_kind_of(parameter, "name"));
        let files = || parameters(disposition, Quotes::Escaped).filter(|parameter| is_kind_of(parameter, "filename"));
        let is_right = |name: &Parameter<'_>| name.name == "name" && name.is_plain();
        let is_right_file = |file: &Parameter<'_>| matches!(file.name, "filename" | "filename*");
        if !names(Quotes::Escaped).all(|name| is_right(&name)) || names(Quotes::Escaped).count() > 1 {
            oddities.push("with a part whose name is given twice, or in a way that readers differ in");
        }
        if !names(Quotes::Escaped).eq(names(Quotes::Plain)) {
            oddities.push("with a part in whose Content-Disposition a quote is missing or too much");
        }
        if !files().all(|file| is_right_file(&file)) || files().filter(|file| file.name == "filename").count() > 1 {
            oddities.push("with a part whose file name is given twice, or in a way that readers differ in");
        }
        (names(Quotes::Escaped).next().map(|name| name.value.to_owned()), files().next().is_some())
    }

    fn inspect(&self, oddities: &mut Oddities) {
        let is_one_of =
            |value: &[u8], words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
        if !self.values("content-transfer-encoding").all(|value| is_one_of(value, &["7bit", "8bit", "binary"])) {
            oddities.push("with a part that has a Content-Transfer-Encoding");
        }
        if !self.values("content-encoding").all(|value| is_one_of(value, &["identity"])) {
            oddities.push("with a part that has a Content-Encoding");
        }
        let length = self.content.len().to_string();
        if !self.values("content-length").all(|value| value == length.as_bytes()) {
            oddities.push("with a part whose Content-Length is not its length");
        }
        // The charset of all fields (RFC 7578, 4.6).
        if self.name.as_deref() == Some("_charset_") && !is_one_of(self.content, &["utf-8", "utf8"]) {
            oddities.push("whose fields are in another charset than UTF-8");
        }
    }

    fn is_read_alike(&self) -> bool {
        let mut types = self.values("content-type");
        match (types.next(), types.next()) {
            (None, _) => true,
            (Some(only), None) => str::from_utf8(only).is_ok_and(|only| is_read_alike(only, self.content.is_ascii())),
            (Some(_), Some(_)) => false,
        }
    }
}

/// `name`, and parameters that parsers may take for it: `NAME`, `name*`, `name*0`.
fn is_kind_of(parameter: &Parameter<'_>, name: &str) -> bool {
    let extends = |own: &str| own.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('*'));
    extends(&parameter.name.to_ascii_lowercase())
}

/// The lines of a part's head. `None` where one has no name.
fn lines(head: &[u8]) -> Option<Vec<PartHeader<'_>>> {
    let mut lines = Vec::new();
    let mut rest = head;
    while !rest.is_empty() {
        let end = rest.windows(2).position(|two| two == b"\r\n").unwrap_or(rest.len());
        let line = &rest[..end];
        let colon = line.iter().position(|byte| *byte == b':')?;
        lines.push((HeaderName::from_bytes(&line[..colon]).ok()?, trimmed(&line[colon + 1..])));
        rest = rest.get(end + 2..).unwrap_or_default();
    }
    Some(lines)
}

/// Removes the white space around a value (RFC 9110, 5.5), but no other characters: a carriage return before the end of a
/// line is odd.
fn trimmed(value: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let Some(start) = value.iter().position(is_text) else { return &[] };
    let end = value.iter().rposition(is_text).map_or(start, |last| last + 1);
    &value[start..end]
}

#[cfg(test)]
mod tests;
