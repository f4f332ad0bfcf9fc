//! The script as it is served: its file, with the routes of this configuration.

use std::fmt::Write;

use crate::rule::{KeyFormat, Mode, OnStoreError, Routes, Rule, Selector};

const SCRIPT: &str = include_str!("form.js");
/// The line of the file that is replaced by the routes.
const NO_ROUTES: &str = "const routes = [];";

/// The whole script.
pub(super) fn text(routes: &Routes) -> String {
    SCRIPT.replacen(NO_ROUTES, &format!("const routes = [{}];", entries(routes)), 1)
}

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
        if rule.mode != Mode::Enforce || rule.key_format == KeyFormat::Ulid {
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

/// The routes of the script. Each has a pattern, the field of its key, and whether a lost request may be repeated
/// without harm: `[/^POST\/orders([?#]|$)/i,"order_key",1]`.
///
/// A more specific route that is not enforced is excluded from the pattern of a less specific one, as in the router.
fn entries(routes: &Routes) -> String {
    let mut rules: Vec<&Rule> = routes.rules().iter().map(|rule| &**rule).collect();
    rules.sort_by_key(|rule| (rule.host.is_none(), specificity(&rule.path)));
    let mut others: Vec<(&Rule, String)> = Vec::new();
    let mut out = String::new();
    for rule in rules {
        let methods: Vec<&str> = rule.methods.iter().map(http::Method::as_str).collect();
        let methods = match methods.as_slice() {
            [one] => (*one).to_owned(),
            several => format!("({})", several.join("|")),
        };
        let requests = format!("{methods}{}([?#]|$)", expression(&rule.path));
        let Some(place) = KeyPlace::of(rule) else {
            others.push((rule, format!("(?!{requests})")));
            continue;
        };
        let hides = |other: &Rule| {
            other.host.as_ref().is_none_or(|host| rule.host.as_ref() == Some(host)) && overlap(&other.path, &rule.path)
        };
        let hidden: String = others.iter().filter(|(other, _)| hides(other)).map(|(_, text)| text.as_str()).collect();
        let field = match place {
            KeyPlace::Field(field) => field,
            KeyPlace::Header => "",
        };
        let may_repeat = u8::from(rule.on_error == OnStoreError::Reject);
        let entry = format!("[/^{hidden}{requests}/i,{},{may_repeat}]", literal(field));
        if !out.is_empty() {
            out.push(',');
        }
        // Writing to a String cannot fail.
        let _ = match &rule.host {
            Some(host) => write!(out, "...location.hostname=={}?[{entry}]:[]", literal(host)),
            None => write!(out, "{entry}"),
        };
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
    use crate::config::parse;

    fn routes(text: &str) -> String {
        let head = "[upstream]\nurl = \"http://b\"\n[store]\nurl = \"memory:\"\n[defaults]\nscope = []\n";
        entries(&parse("t.toml", &format!("{head}{text}"), &|_| None).unwrap_or_else(|error| panic!("{error}")).routes)
    }

    #[test]
    fn it_is_small_and_readable() {
        let one = "[[route]]\nname = \"a\"\npath = \"/invoices\"\nkey = \"form:idempotency_key\"";
        let head = "[upstream]\nurl = \"http://b\"\n[store]\nurl = \"memory:\"\n[defaults]\nscope = []\n";
        let config = parse("t.toml", &format!("{head}{one}"), &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let text = text(&config.routes);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(text.as_bytes()).expect("memory");
        let packed = packed.finish().expect("memory");
        assert!(text.len() < 4096, "{} bytes", text.len());
        assert!(packed.len() < 2048, "{} bytes in gzip", packed.len());
        assert!(text.lines().all(|line| line.len() < 160), "a long line");
        assert!(!text.contains("innerHTML") && !text.contains("eval(") && !text.contains("import"), "{text}");
        assert!(text.contains("const routes = [[/^POST\\/invoices([?#]|$)/i,\"idempotency_key\",1]];"), "{text}");
    }

    #[test]
    fn it_knows_the_routes_that_it_can_make_keys_for() {
        let told = routes(
            "[[route]]\nname = \"a\"\npath = \"/a/{id}/b.html\"\nkey = [\"form:k\", \"path:id\"]\n\
             [[route]]\nname = \"b\"\npath = \"/b/{*rest}\"\nmethods = [\"POST\", \"PUT\"]\non_error = \"forward\"\n\
             [[route]]\nname = \"j\"\npath = \"/j\"\nkey = \"json:/k\"\n\
             [[route]]\nname = \"n\"\npath = \"/n\"\nkey = [\"form:a\", \"form:b\"]\n\
             [[route]]\nname = \"h\"\npath = \"/b/{*all}\"\nhost = \"shop.test\"\nkey = \"form:k\"\n",
        );
        assert_eq!(
            told,
            format!(
                "...location.hostname==\"shop.test\"?[[/^POST\\/b\\/[^?#]+([?#]|$)/i,\"k\",1]]:[],\
                 [/^POST\\/a\\/[^/?#]+\\/b\\.html([?#]|$)/i,\"k\",1],\
                 [/^(POST|PUT)\\/b\\/[^?#]+([?#]|$)/i,\"\",0]"
            )
        );
    }

    #[test]
    fn a_route_that_is_not_enforced_is_taken_out_of_a_wider_one() {
        let told = routes(
            "[[route]]\nname = \"all\"\npath = \"/shop/{*rest}\"\nkey = \"form:k\"\n\
             [[route]]\nname = \"off\"\npath = \"/shop/search\"\nmode = \"off\"\n",
        );
        assert_eq!(told, "[/^(?!POST\\/shop\\/search([?#]|$))POST\\/shop\\/[^?#]+([?#]|$)/i,\"k\",1]");
    }
}
