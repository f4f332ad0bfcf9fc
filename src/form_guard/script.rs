//! The script as it is served: its file, with the routes of this configuration.

use std::fmt::Write;
use std::time::Duration;

use crate::rule::{KeyFormat, Mode, OnStoreError, Routes, Rule, Selector};

/// Without comments, because each page loads them. What cannot be seen in it:
///
/// - The key that is held for a form is `it`: the key, then whether it was answered, then a mark for each try. Its text is
///   the field of the request, where the commas tell the proxy that it is a repeat.
/// - It is stored under the entry of the tab's history that the form is shown in, which may change in a page that stays.
/// - A lost request waits for other tasks first: Chromium rejects a fetch that the page's policy forbids, and fires the event
///   that says so behind it.
/// - The time is looked at right before each try: a computer may have slept until the record was gone.
/// - A handler that returns false cancels its click: the button that asks is a submit button of the form.
const SCRIPT: &str = include_str!("form.js");
/// What the routes replace.
const NO_ROUTES: &str = "let routes = [],";

/// The longest time in which the script repeats a lost request by itself.
const LONGEST_REPEATS: Duration = Duration::from_secs(600);

/// The whole script, for pages of this host. It names no route of another host.
pub(super) fn text(routes: &Routes, host: Option<&str>) -> String {
    SCRIPT.replacen(NO_ROUTES, &format!("let routes = [{}],", entries(routes, host)), 1)
}

/// How long a lost request may be repeated without harm. Zero: the person decides.
///
/// Half of the time for which the record blocks the key, because a repeat may be late, too.
fn repeats(rule: &Rule) -> Duration {
    match rule.on_error {
        OnStoreError::Reject => LONGEST_REPEATS.min(rule.retention / 2).min(rule.hold_for / 2),
        OnStoreError::Forward => Duration::ZERO,
    }
}

/// The length of the script's keys, which are UUIDs.
const KEY_LENGTH: usize = 36;

/// Where the script puts the key of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPlace<'a> {
    /// In this form field.
    Field(&'a str),
    /// In a header, which the proxy writes for the script.
    Header,
}

impl<'a> KeyPlace<'a> {
    /// `None` if the script cannot make a key for this route. It ignores the route's forms then.
    pub fn of(rule: &'a Rule) -> Option<Self> {
        let fits = rule.key_format != KeyFormat::Ulid && rule.key_max_length >= KEY_LENGTH;
        if rule.mode != Mode::Enforce || !fits {
            return None;
        }
        // A part that the client does not choose is the same for every repeat.
        let mut chosen = rule.key.iter().filter(|part| part.is_chosen_by_client());
        let place = match chosen.next()? {
            Selector::Form(field) => Self::Field(field),
            Selector::Header(_) => Self::Header,
            _ => return None,
        };
        chosen.next().is_none().then_some(place)
    }
}

/// The routes of the script, for pages of this host. Each has a pattern, the field of its key, and for how many
/// milliseconds a lost request may be repeated without harm: `[/^POST\/orders\/?([?#]|$)/i,"order_key",600e3]`.
///
/// A more specific route that is not enforced is excluded from the pattern of a less specific one, as in the router.
fn entries(routes: &Routes, host: Option<&str>) -> String {
    let is_of_host = |rule: &&Rule| rule.host.as_deref().is_none_or(|own| host == Some(own));
    let mut rules: Vec<&Rule> = routes.rules().iter().map(|rule| &**rule).filter(is_of_host).collect();
    rules.sort_by_key(|rule| (rule.host.is_none(), specificity(&rule.path)));
    let mut others: Vec<(&Rule, String)> = Vec::new();
    let mut out = String::new();
    for rule in rules {
        let methods: Vec<&str> = rule.methods.iter().map(http::Method::as_str).collect();
        let methods = match methods.as_slice() {
            [one] => (*one).to_owned(),
            several => format!("({})", several.join("|")),
        };
        // A slash at the end makes no other route.
        let requests = format!("{methods}{}\\/?([?#]|$)", expression(rule.path.trim_end_matches('/')));
        let Some(place) = KeyPlace::of(rule) else {
            others.push((rule, format!("(?!{requests})")));
            continue;
        };
        let hides = |(other, _): &&(&Rule, String)| overlap(&other.path, &rule.path);
        let hidden: String = others.iter().filter(hides).map(|(_, text)| text.as_str()).collect();
        let field = match place {
            KeyPlace::Field(field) => field,
            KeyPlace::Header => "",
        };
        if !out.is_empty() {
            out.push_str(",\n");
        }
        // Writing to a String cannot fail.
        let _ = write!(out, "[/^{hidden}{requests}/i,{},{}e3]", literal(field), repeats(rule).as_secs());
    }
    out
}

/// The order of routes, segment by segment: a literal, a literal with a parameter, a parameter, the rest of the path.
fn specificity(path: &str) -> Vec<u8> {
    let rank = |segment: &str| match segment {
        rest if rest.starts_with("{*") => 3,
        parameter if parameter.starts_with('{') && parameter.ends_with('}') => 2,
        mixed if mixed.contains('{') => 1,
        _ => 0,
    };
    path.split('/').skip(1).map(rank).collect()
}

/// Whether any path may match both patterns.
fn overlap(one: &str, other: &str) -> bool {
    let mut segments = (one.split('/'), other.split('/'));
    loop {
        match (segments.0.next(), segments.1.next()) {
            (None, None) => return true,
            (Some(rest), Some(_)) | (Some(_), Some(rest)) if rest.starts_with("{*") => return true,
            (Some(a), Some(b)) if a == b || a.contains('{') || b.contains('{') => {}
            _ => return false,
        }
    }
}

/// A JavaScript regular expression for a path.
fn expression(path: &str) -> String {
    let mut out = String::new();
    let mut rest = path;
    loop {
        let (text, tail) = rest.split_once('{').unwrap_or((rest, ""));
        for c in text.chars() {
            if !c.is_alphanumeric() && !matches!(c, '_' | '-' | '~' | '%') {
                out.push('\\');
            }
            out.push(c);
        }
        let Some((name, behind)) = tail.split_once('}') else { return out };
        out.push_str(if name.starts_with('*') { "[^?#]+" } else { "[^/?#]+" });
        rest = behind;
    }
}

/// A JavaScript string. JSON strings are valid JavaScript.
fn literal(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::config::{Config, parse};

    fn routes(text: &str, host: Option<&str>) -> String {
        entries(&config(text).routes, host)
    }

    fn config(text: &str) -> Config {
        let head = "[upstream]\nurl = \"http://b\"\n[store]\nurl = \"memory:\"\n[defaults]\nscope = []\n";
        parse("t.toml", &format!("{head}{text}"), &|_| None).unwrap_or_else(|error| panic!("{error}"))
    }

    /// In bytes, and in those of gzip.
    fn sizes(text: &str) -> (usize, usize) {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(text.as_bytes()).expect("memory");
        (text.len(), packed.finish().expect("memory").len())
    }

    #[test]
    fn it_is_small_and_readable() {
        let one = "[[route]]\nname = \"a\"\npath = \"/invoices\"\nkey = \"form:idempotency_key\"";
        let text = text(&config(one).routes, None);
        let (plain, packed) = sizes(&text);
        assert!(plain < 4096 && packed < 2048, "{plain} bytes, {packed} in gzip");
        assert!(text.lines().all(|line| line.len() < 160), "a long line");
        assert!(!text.contains("innerHTML") && !text.contains("eval(") && !text.contains("import"), "{text}");
        assert!(text.contains("let routes = [[/^POST\\/invoices\\/?([?#]|$)/i,\"idempotency_key\",600e3]],"), "{text}");
    }

    /// The list of routes is data: each has a line.
    #[test]
    fn fifty_routes_are_fifty_lines_and_cost_a_packet_more() {
        let of = |number| {
            format!(
                "[[route]]\nname = \"route-{number}\"\npath = \"/shop/section-{number}/{{item}}/orders\"\n\
                 key = \"form:idempotency_key\"\n"
            )
        };
        let one = text(&config(&of(0)).routes, None);
        let many: String = (0..50).map(of).collect();
        let many = text(&config(&many).routes, None);
        assert_eq!(many.lines().count(), one.lines().count() + 49);
        let (one, many) = (sizes(&one), sizes(&many));
        assert!(many.0 < one.0 + 50 * 84, "{one:?}, {many:?}");
        assert!(many.1 < one.1 + 400, "{one:?}, {many:?} in gzip");
    }

    #[test]
    fn a_lost_request_is_not_repeated_when_its_record_may_be_gone() {
        let seconds = |keys: &str| {
            let told = routes(&format!("[[route]]\nname = \"a\"\npath = \"/a\"\nkey = \"form:k\"\n{keys}"), None);
            told.trim_end_matches("e3]").rsplit(',').next().expect("seconds").parse::<u64>().expect("a number")
        };
        assert_eq!(seconds(""), 600);
        assert_eq!(seconds("retention = \"1h\""), 600);
        assert_eq!(seconds("retention = \"2m\"\nlease = \"10s\""), 60);
        assert_eq!(seconds("hold_for = \"5m\""), 150);
        assert_eq!(seconds("on_error = \"forward\""), 0);
    }

    #[test]
    fn it_knows_the_routes_that_it_can_make_keys_for() {
        let file = "[[route]]\nname = \"a\"\npath = \"/a/{id}/b.html\"\nkey = [\"form:k\", \"path:id\"]\n\
             [[route]]\nname = \"b\"\npath = \"/b/{*rest}\"\nmethods = [\"POST\", \"PUT\"]\non_error = \"forward\"\n\
             [[route]]\nname = \"j\"\npath = \"/j\"\nkey = \"json:/k\"\n\
             [[route]]\nname = \"n\"\npath = \"/n\"\nkey = [\"form:a\", \"form:b\"]\n\
             [[route]]\nname = \"s\"\npath = \"/s\"\nkey = \"form:k\"\nkey_max_length = 35\n\
             [[route]]\nname = \"u\"\npath = \"/u\"\nkey = \"form:k\"\nkey_format = \"ulid\"\n\
             [[route]]\nname = \"h\"\npath = \"/b/{*all}\"\nhost = \"shop.test\"\nkey = \"form:k\"\n";
        let common = "[/^POST\\/a\\/[^/?#]+\\/b\\.html\\/?([?#]|$)/i,\"k\",600e3],\n\
                      [/^(POST|PUT)\\/b\\/[^?#]+\\/?([?#]|$)/i,\"\",0e3]";
        assert_eq!(routes(file, None), common);
        // Another host's routes are not told.
        assert_eq!(routes(file, Some("other.test")), common);
        let of_host = "[/^POST\\/b\\/[^?#]+\\/?([?#]|$)/i,\"k\",600e3],\n";
        assert_eq!(routes(file, Some("shop.test")), format!("{of_host}{common}"));
    }

    #[test]
    fn a_route_that_is_not_enforced_is_taken_out_of_a_wider_one() {
        let told = routes(
            "[[route]]\nname = \"all\"\npath = \"/shop/{*rest}\"\nkey = \"form:k\"\n\
             [[route]]\nname = \"off\"\npath = \"/shop/search\"\nmode = \"off\"\n",
            None,
        );
        assert_eq!(told, "[/^(?!POST\\/shop\\/search\\/?([?#]|$))POST\\/shop\\/[^?#]+\\/?([?#]|$)/i,\"k\",600e3]");
    }
}
