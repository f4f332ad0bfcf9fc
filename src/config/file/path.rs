//! A route's `path`, with advice for the path syntax of other routers.

use super::item::Item;
use crate::rule::{PathPattern, is_parameter_name};

/// A path pattern: a normalised path whose segments may be `{param}`, and the last one `{*rest}`.
pub(super) fn path(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let Some(wrong) = PathFault::of(&text.value) else { return Some(text.value) };
    let right = right(&text.value).filter(|_| text.is_literal());
    let shown = |advice: &str| match &right {
        Some(right) => format!("{advice}: {right:?}"),
        None => advice.to_owned(),
    };
    let (message, advice) = match wrong {
        PathFault::Method(method) => (
            format!("{text} is a method and a path"),
            shown(&format!("methods have a key of their own: methods = [{method:?}], and path")),
        ),
        PathFault::Url => {
            (format!("{text} is a URL"), shown("a route matches the path, and the host where that matters"))
        }
        PathFault::NoSlash => (format!("{text} is not a path"), shown("paths begin with a slash")),
        PathFault::Query => (format!("{text} is more than a path"), shown("a route matches the path alone")),
        PathFault::Expression => (format!("{text} is a regular expression, which paths are not"), BRACES.to_owned()),
        PathFault::Wildcard => {
            (format!("{text} has a * that stands for nothing but itself"), shown_first(right.as_deref()))
        }
        PathFault::Parameter => {
            (format!("{text} has a parameter of another router"), shown("parameters stand in braces"))
        }
        PathFault::Braces => (format!("the braces in {text} do not fit"), shown_first(right.as_deref())),
        PathFault::NotNormal => (format!("{text} would never match"), shown("paths are compared in normalised form")),
    };
    item.refuse(message, advice)
}

fn shown_first(right: Option<&str>) -> String {
    right.map_or_else(|| BRACES.to_owned(), |right| format!("write {right:?}: {BRACES}"))
}

/// What braces are for.
pub(super) const BRACES: &str = "a segment may hold one parameter, as {order}, and a path may end in {*rest}";

/// The first thing that is wrong with a path pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PathFault<'a> {
    /// `POST /orders`
    Method(&'a str),
    /// `https://api.example.com/orders`
    Url,
    /// `orders`
    NoSlash,
    /// `/orders?version=2`
    Query,
    /// `^/orders/\d+$`
    Expression,
    /// `/api/*`
    Wildcard,
    /// `/orders/:id`, `/orders/<int:id>`, `/orders/[id]`
    Parameter,
    /// `/orders/{}`, `/orders/{id:int}`
    Braces,
    /// `/v1/../orders`
    NotNormal,
}

impl<'a> PathFault<'a> {
    fn of(path: &'a str) -> Option<Self> {
        if let Some((method, _)) = method_and_path(path) {
            return Some(Self::Method(method));
        }
        if path.contains("://") {
            return Some(Self::Url);
        }
        let literal = || outside_braces(path);
        if path.starts_with(['^', '~']) || literal().any(|part| part.contains(['\\', '^', '|']) || part.contains(".*"))
        {
            return Some(Self::Expression);
        }
        if !path.starts_with('/') {
            return Some(Self::NoSlash);
        }
        if segments(path).any(|segment| parameter_elsewhere(segment).is_some()) {
            return Some(Self::Parameter);
        }
        if literal().any(|part| part.contains(['?', '#'])) {
            return Some(Self::Query);
        }
        if literal().any(|part| part.contains('*')) {
            return Some(Self::Wildcard);
        }
        match PathPattern::parse(path).map(|pattern| pattern.normalised()) {
            None => Some(Self::Braces),
            Some(plain) if plain != path => Some(Self::NotNormal),
            Some(_) => None,
        }
    }
}

/// A valid pattern that is probably meant.
fn right(path: &str) -> Option<String> {
    let mut path = path.to_owned();
    // Each round corrects one problem.
    for _ in 0..8 {
        let Some(wrong) = PathFault::of(&path) else { return Some(path) };
        path = mended(&path, wrong)?;
    }
    None
}

fn mended(path: &str, wrong: PathFault<'_>) -> Option<String> {
    match wrong {
        PathFault::Method(_) => method_and_path(path).map(|(_, path)| path.to_owned()),
        PathFault::Url => {
            let (_, rest) = path.split_once("://")?;
            Some(rest.find('/').map_or("/", |at| &rest[at..]).to_owned())
        }
        PathFault::NoSlash => Some(format!("/{path}")),
        PathFault::Query => path.find(['?', '#']).map(|end| path[..end].to_owned()),
        PathFault::Expression => None,
        PathFault::Parameter => {
            let segment = |segment: &str| parameter_elsewhere(segment).unwrap_or_else(|| segment.to_owned());
            Some(segments(path).map(segment).collect::<Vec<_>>().join("/"))
        }
        PathFault::Wildcard => without_wildcards(path),
        PathFault::Braces => plain_braces(path),
        PathFault::NotNormal => Some(PathPattern::parse(path)?.normalised()),
    }
}

fn method_and_path(path: &str) -> Option<(&str, &str)> {
    let (method, path) = path.split_once(' ')?;
    let is_method = !method.is_empty() && method.chars().all(|c| c.is_ascii_uppercase() || c == '|');
    is_method.then(|| (method, path.trim_start()))
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
}

/// The parts of a pattern outside its parameters.
fn outside_braces(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').enumerate().map(|(index, part)| match part.split_once('}') {
        Some((_, after)) if index > 0 => after,
        Some(_) | None => part,
    })
}

/// A parameter in the syntax of another router, as one in braces: `:id` (Express, Rails, Gin), `<int:id>` (Flask, Django), `[id]`
/// (Next.js), `*rest` (Rails, Gin).
fn parameter_elsewhere(segment: &str) -> Option<String> {
    let inner = |open: char, close: char| segment.strip_prefix(open)?.strip_suffix(close);
    if let Some(name) = segment.strip_prefix(':') {
        let (name, rest) = name.split_at(name.find(|c| !is_parameter_name(c)).unwrap_or(name.len()));
        return parameter(name, rest.starts_with(['*', '+']));
    }
    if let Some(name) = inner('<', '>') {
        let (kind, name) = name.rsplit_once(':').unwrap_or(("", name));
        return parameter(name, kind == "path");
    }
    if let Some(name) = inner('[', ']') {
        let name = name.trim_matches(['[', ']']);
        return parameter(name.trim_start_matches("..."), name.starts_with("..."));
    }
    segment.strip_prefix('*').filter(|name| !name.is_empty()).and_then(|name| parameter(name, true))
}

fn parameter(name: &str, is_rest: bool) -> Option<String> {
    let is_name = !name.is_empty() && name.chars().all(is_parameter_name);
    is_name.then(|| if is_rest { format!("{{*{name}}}") } else { format!("{{{name}}}") })
}

/// `*` at the end becomes `{*rest}`, and a segment `*` becomes a parameter.
fn without_wildcards(path: &str) -> Option<String> {
    let count = segments(path).count();
    let mut names = (1..).map(|number| if number == 1 { "{name}".to_owned() } else { format!("{{name{number}}}") });
    let mended = segments(path).enumerate().map(|(index, segment)| {
        let is_last = index + 1 == count;
        let stars = outside_braces(segment).map(|part| part.matches('*').count()).sum::<usize>();
        let plain = segment.trim_end_matches('*');
        match (stars, plain) {
            (0, _) => Some(segment.to_owned()),
            (_, "") if is_last => Some("{*rest}".to_owned()),
            (_, "") => names.next(),
            // A prefix: a route can only match what is below it.
            (_, plain) if is_last && !plain.contains('*') => Some(format!("{plain}/{{*rest}}")),
            _ => None,
        }
    });
    Some(mended.collect::<Option<Vec<_>>>()?.join("/"))
}

/// Parameters in the brace syntax of other routers: `{id:int}` and `{id?}` (ASP.NET, Starlette), `{rest...}` (Go), `{**rest}` (YARP), `{rest=**}`
/// (gRPC).
fn plain_braces(path: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = path;
    while let Some((before, tail)) = rest.split_once('{') {
        let (inner, after) = tail.split_once('}')?;
        let is_rest =
            inner.starts_with('*') || inner.ends_with("...") || inner.contains("**") || inner.ends_with(":path");
        let name = inner.trim_start_matches('*');
        let name = &name[..name.find(|c| !is_parameter_name(c)).unwrap_or(name.len())];
        out.push_str(before);
        out.push_str(&parameter(name, is_rest)?);
        rest = after;
    }
    out.push_str(rest);
    Some(out).filter(|out| out != path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_only_look_like_it_are_no_wildcards_and_parameters() {
        for path in
            ["/", "/v1/things:cancel", "/Orders({id})", "/$batch", "/a/@me", "/files/{name}.json", "/a+b", "/~me/x"]
        {
            assert_eq!(PathFault::of(path), None, "{path}");
        }
    }

    /// What is shown is taken as it is: no help leads to the next wrong file.
    #[test]
    fn what_is_shown_for_the_spelling_of_another_router_is_right() {
        for (path, meant) in [
            ("/api/*", Some("/api/{*rest}")),
            ("/api/**", Some("/api/{*rest}")),
            ("/orders*", Some("/orders/{*rest}")),
            ("/*", Some("/{*rest}")),
            ("*", Some("/{*rest}")),
            ("/api/*/orders/*", Some("/api/{name}/orders/{*rest}")),
            ("/*/*/x", Some("/{name}/{name2}/x")),
            ("/a*b", None),
            ("/api/:tenant", Some("/api/{tenant}")),
            ("/api/:tenant/orders/:id?", Some("/api/{tenant}/orders/{id}")),
            ("/api/:rest*", Some("/api/{*rest}")),
            ("/api/*rest", Some("/api/{*rest}")),
            ("/orders/<id>", Some("/orders/{id}")),
            ("/orders/<int:id>/<path:rest>", Some("/orders/{id}/{*rest}")),
            ("/orders/[id]", Some("/orders/{id}")),
            ("/orders/[...rest]", Some("/orders/{*rest}")),
            ("/orders/[[...rest]]", Some("/orders/{*rest}")),
            ("/orders/{id:int}", Some("/orders/{id}")),
            ("/orders/{id?}", Some("/orders/{id}")),
            ("/orders/{rest...}", Some("/orders/{*rest}")),
            ("/orders/{**rest}", Some("/orders/{*rest}")),
            ("/orders/{rest:path}", Some("/orders/{*rest}")),
            ("/orders/{name=**}", Some("/orders/{*name}")),
            ("/orders/{}", None),
            ("/orders/{{id}}", None),
            ("POST /orders", Some("/orders")),
            ("POST /orders/:id", Some("/orders/{id}")),
            ("PUT|PATCH orders", Some("/orders")),
            ("https://api.example.com/orders?x=1", Some("/orders")),
            ("http://api.example.com", Some("/")),
            ("orders/:id", Some("/orders/{id}")),
            ("orders", Some("/orders")),
            ("/orders?version=2", Some("/orders")),
            ("^/orders/\\d+$", None),
            ("~ ^/api", None),
            ("/api/.*", None),
            ("/a|/b", None),
            ("/my orders", Some("/my%20orders")),
            ("/v1/../orders", Some("/orders")),
        ] {
            assert!(PathFault::of(path).is_some(), "{path}");
            let shown = right(path);
            assert_eq!(shown.as_deref(), meant, "{path}");
            let mut router = matchit::Router::new();
            assert!(shown.is_none_or(|shown| router.insert(shown, ()).is_ok()), "{path}");
        }
    }
}
