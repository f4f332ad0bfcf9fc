//! The parts of a file that may contain a secret. Messages do not show them.
//!
//! Secrets are found by the names of keys and the form of values, not by what the reader accepts. So a secret is hidden
//! under a misspelt key too, and in a file that does not parse.

use strsim::damerau_levenshtein;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::ByteRange;

/// The parts to hide, in order, without overlaps. `broken`: the file is not TOML, and `table` is what the parser recovered.
pub(super) fn find(text: &str, table: &DeTable<'_>, broken: bool) -> Vec<ByteRange> {
    let mut spans = secrets(table);
    if broken {
        spans.extend(secret_lines(text));
    }
    merged(spans)
}

/// The same parts in order, without overlaps.
pub(super) fn merged(mut spans: Vec<ByteRange>) -> Vec<ByteRange> {
    spans.sort_by_key(|span| span.start);
    spans.dedup_by(|next, span| {
        let overlap = next.start <= span.end;
        if overlap {
            span.end = span.end.max(next.end);
        }
        overlap
    });
    spans
}

/// The values of a parsed file that may hold a secret.
fn secrets(table: &DeTable<'_>) -> Vec<ByteRange> {
    let mut spans = Vec::new();
    for (key, value) in table {
        collect(key.get_ref(), value, &mut spans);
    }
    spans
}

fn collect(key: &str, value: &Spanned<DeValue<'_>>, spans: &mut Vec<ByteRange>) {
    match value.get_ref() {
        // What stands directly in a table of secrets is one, whatever its name: `tokens = { alice = "…" }`.
        DeValue::Table(table) => table.iter().for_each(|(name, value)| match value.get_ref() {
            DeValue::Table(_) => collect(name.get_ref(), value, spans),
            _ if is_secret_name(key) => collect(key, value, spans),
            _ => collect(name.get_ref(), value, spans),
        }),
        DeValue::Array(array) => array.iter().for_each(|value| collect(key, value, spans)),
        DeValue::String(text) if text.starts_with("env:") => {}
        DeValue::String(text) if is_secret_name(key) || has_credentials(key, text) || text.contains(PEM) => {
            spans.push(value.span());
        }
        DeValue::Integer(_) | DeValue::Float(_) if is_secret_name(key) => spans.push(value.span()),
        DeValue::String(_) | DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => {}
    }
}

/// The lines of a file that does not parse that may contain a secret or a part of one.
fn secret_lines(text: &str) -> Vec<ByteRange> {
    let mut spans = Vec::new();
    let mut within = Within::Nothing;
    // Whether the last header names secrets, as `[admin.tokens]` does.
    let mut in_table = false;
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let (start, end) = (offset, offset + line.trim_end().len());
        offset += line.len();
        if line.contains(PEM) {
            within = if line.contains("-----END") { Within::Nothing } else { Within::String("-----END") };
            spans.push(start..end);
            continue;
        }
        if let Within::String(quotes) = within {
            spans.push(start..end);
            if line.contains(quotes) {
                within = Within::Nothing;
            }
            continue;
        }
        if let Some(header) = line.trim().strip_prefix('[') {
            in_table = header.trim_end_matches(']').rsplit('.').next().is_some_and(is_secret_name);
        }
        let is_secret = |name: &str, at: usize| is_secret_name(name) || has_credentials(name, &line[at..]);
        let secret = names(line).find(|(name, at)| in_table || is_secret(name, *at)).map(|(_, at)| at);
        if let Some(at) = secret.or_else(|| secret_of_another_notation(line)) {
            spans.push(start + at..end.max(start + at));
            let open = ["\"\"\"", "'''"].into_iter().find(|quotes| line.matches(quotes).count() % 2 == 1);
            within = open.map_or(Within::Value, Within::String);
        } else if begins_anew(line) {
            within = Within::Nothing;
        } else if let Within::Value = within {
            spans.push(start..end);
        }
    }
    spans
}

/// The beginning of a key or certificate in PEM.
const PEM: &str = "-----BEGIN";

/// What a line continues.
enum Within {
    Nothing,
    /// A secret that may continue over several lines.
    Value,
    /// A secret that continues up to these quotes.
    String(&'static str),
}

/// Where a secret begins in a line that is written as in another notation: `password: x`, `token x`, or a bare URL.
fn secret_of_another_notation(line: &str) -> Option<usize> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let indented = line.len() - line.trim_start_matches([' ', '\t', '"', '\'', '-']).len();
    let name = indented + line[indented..].find(|c| !is_of_name(c)).unwrap_or(line.len() - indented);
    let after = line[name..].trim_start_matches(['"', '\'']);
    if is_secret_name(&line[indented..name])
        && after.starts_with([':', ' ', '\t'])
        && !after.trim_start().starts_with('=')
    {
        return Some(line.len() - after.len() + 1);
    }
    let mut before = line[..line.find("://")?].char_indices();
    let scheme = before.rfind(|(_, c)| !is_of_name(*c) && *c != '+').map_or(0, |(at, c)| at + c.len_utf8());
    let url = line[scheme..].trim_end().trim_end_matches([',', ';', '"', '\'']);
    has_credentials("url", url).then_some(scheme)
}

/// The words before each `=` of a line, and where what follows it begins.
fn names(line: &str) -> impl Iterator<Item = (&str, usize)> {
    line.match_indices('=').map(|(at, _)| {
        let before = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let name = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-').next().unwrap_or("");
        (name, at + 1)
    })
}

/// Whether a line cannot continue the value of the line before: a header, or a key with a value. Padding at the end of a
/// line of base64 has nothing after its `=`.
fn begins_anew(line: &str) -> bool {
    let is_key = |key: &str| key.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let line = line.trim();
    line.starts_with('[')
        || line.split_once('=').is_some_and(|(key, rest)| is_key(key.trim()) && !rest.trim_matches('=').is_empty())
}

fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["token", "secret", "pass", "digest", "encryption", "authorization", "credential", "api_key", "apikey", "private"]
        .iter()
        .any(|part| name.contains(part))
        || ["auth", "pwd", "pw", "bearer", "hmac"].contains(&&*name)
        || ["token", "secret", "password", "digest_key"].iter().any(|word| damerau_levenshtein(&name, word) <= 2)
}

/// Whether `value` is a URL with a user or password, or one that is too malformed to tell.
fn has_credentials(key: &str, value: &str) -> bool {
    // A JSON Web Key set, which may contain private keys by mistake.
    if value.contains("\"kty\"") {
        return true;
    }
    let Some((scheme, rest)) = value.split_once(':').filter(|_| key.contains("url") || value.contains("://")) else {
        return key.contains("url") && value.contains('@');
    };
    let has_users = ["redis", "valkey", "postgres"].iter().any(|name| scheme.contains(name));
    rest.contains(['@', '?']) || (has_users && !is_plain(rest))
}

/// Exactly `//host[:port][/database]`.
fn is_plain(rest: &str) -> bool {
    let Some(authority) = rest.strip_prefix("//").and_then(|rest| rest.split('/').next()) else { return false };
    match authority.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok(),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let (table, _) = DeTable::parse_recoverable(text);
        masked(text, secrets(table.get_ref()))
    }

    fn masked(text: &str, mut spans: Vec<ByteRange>) -> String {
        spans.sort_by_key(|span| std::cmp::Reverse(span.start));
        spans.into_iter().fold(text.to_owned(), |mut text, span| {
            text.replace_range(span, "*");
            text
        })
    }

    #[test]
    fn secrets_are_found_by_name_and_by_shape() {
        assert_eq!(shown("admin = { token = 'x' }"), "admin = { token = * }");
        assert_eq!(shown("[store]\ndigset_key = 'x'\nurl = 'redis://a:b@c/0'"), "[store]\ndigset_key = *\nurl = *");
        assert_eq!(shown("encryption_keys = ['x', 'y']"), "encryption_keys = [*, *]");
        assert_eq!(shown("url = 'redis://:forgot-the-host'"), "url = *");
        assert_eq!(shown("url = 'user:pw@host'"), "url = *");
        assert_eq!(shown("[admin.tokens]\nalice = 'x'\nbob = ['y']"), "[admin.tokens]\nalice = *\nbob = [*]");
        assert_eq!(shown("[admin.tokens.alice]\ntokn = 'x'\nmay = 'y'"), "[admin.tokens.alice]\ntokn = *\nmay = 'y'");
    }

    #[test]
    fn ordinary_values_are_shown() {
        for text in [
            "token = 'env:TOKEN'",
            "url = 'redis://127.0.0.1:6379/0'",
            "url = 'http://127.0.0.1:3000'",
            "url = 'embedded:/var/lib/onlyonce'",
            "key = 'header:Idempotency-Key'",
            "message = 'write to help@example.com'",
            "name = 'x'\nmode = 'x'\nhost = 'x'\nlease = 'x'\nstore = ['4xx']",
        ] {
            assert_eq!(shown(text), text);
        }
    }

    #[test]
    fn a_file_that_does_not_parse_hides_the_lines_of_a_secret() {
        let lines = |text: &str| masked(text, secret_lines(text));
        assert_eq!(lines("[admin]\ntoken = \"abc\nlisten = \"x\""), "[admin]\ntoken =*\nlisten = \"x\"");
        assert_eq!(lines("digest_key = \"\"\"\nabc=\nde\\q\n\"\"\"\nx = 1"), "digest_key =*\n*\n*\n*\nx = 1");
        assert_eq!(lines("token = '''\nx = 1\n'''\ny = 1"), "token =*\n*\n*\ny = 1");
        assert_eq!(lines("encryption_keys = [\n\"abc=\",\n]\ny = 1"), "encryption_keys =*\n*\n*\ny = 1");
        assert_eq!(
            lines("[admin.tokens]\nalice = \"x\n[log]\nlevel = 1"),
            "[admin.tokens]\nalice =*\n[log]\nlevel = 1"
        );
        assert_eq!(lines("url = \"redis://:pw"), "url =*");
        assert_eq!(lines("store = { url = redis://a:b@c }"), "store =*");
        // As in other notations.
        assert_eq!(lines("password: x"), "password:*");
        assert_eq!(lines("  \"password\": \"x\","), "  \"password\":*");
        assert_eq!(lines("- token: x\ny = 1"), "- token:*\ny = 1");
        assert_eq!(lines("token x\ny = 1"), "token *\ny = 1");
        assert_eq!(lines("token\tx"), "token\t*");
        assert_eq!(lines("pwd x"), "pwd *");
        assert_eq!(lines("url: \"redis://:x@h/0\""), "url: \"*");
        assert_eq!(lines("redis://:x@h/0"), "*");
        assert_eq!(lines("url: “redis://:x@h/0”"), "url: “*");
        assert_eq!(lines("éredis://:x@h/0"), "é*");
        assert_eq!(lines("url redis+sentinel://:x@h/0"), "url *");
        assert_eq!(lines("postgres://u:x@h/d # y"), "*");
        for line in [
            "url: \"redis://h:6379/0\"",
            "url http://127.0.0.1:3000",
            "level: info",
            "message: tell us",
            "url: “http://h”",
            "é://h",
        ] {
            assert_eq!(lines(line), line);
        }
    }
}
