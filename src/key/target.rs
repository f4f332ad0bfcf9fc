//! What a request asks for: the method, host and path by which it is matched and compared.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method, Uri};

use crate::list;
use crate::rule::{RouteTarget, is_same_field};
use crate::uri::normalise_path;

/// What a request asks for, decided once for the proxy and for those who explain what it does.
#[derive(Debug, Clone)]
pub struct RequestedTarget<'a> {
    method: Method,
    overriding: Vec<Method>,
    host: Option<Cow<'a, str>>,
    path: &'a str,
    normal: Cow<'a, str>,
}

impl<'a> RequestedTarget<'a> {
    /// `host` is in normal form. `overriding`: see [`overriding_methods`].
    pub fn of(method: &Method, uri: &'a Uri, host: Option<Cow<'a, str>>, overriding: Vec<Method>) -> Self {
        let path = uri.path();
        Self { method: normalise_method(method), overriding, host, path, normal: normalise_path(path) }
    }

    /// The same target, asked for with this method and no other.
    pub fn with_method(&self, method: &Method) -> Self {
        Self { method: normalise_method(method), overriding: Vec::new(), ..self.clone() }
    }

    /// What routes are found by.
    pub fn route(&self) -> RouteTarget<'_> {
        let Self { method, overriding, host, path, normal } = self;
        RouteTarget { method, overriding, host: host.as_deref(), path, normal }
    }

    /// The method that a backend takes it for.
    pub fn effective_method(&self) -> &Method {
        self.overriding.first().unwrap_or(&self.method)
    }

    /// Methods that a backend may take instead of its own.
    pub fn overriding(&self) -> &[Method] {
        &self.overriding
    }

    /// In normal form.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// In normal form.
    pub fn path(&self) -> &str {
        &self.normal
    }
}

/// Fields by which a client that can send GET and POST only asks for another method.
const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// Whether a field asks for another method, in any spelling.
pub fn is_override(name: &HeaderName) -> bool {
    OVERRIDES.iter().any(|known| is_same_field(known, name))
}

/// The methods that a backend may take instead of the request's own, in upper case as backends read them.
pub fn overriding_methods(headers: &HeaderMap) -> Vec<Method> {
    let mut fields: Vec<&HeaderName> = headers.keys().filter(|name| is_override(name)).collect();
    // The first one counts in a fingerprint, in whatever order they came.
    fields.sort_by_key(|name| (OVERRIDES.iter().position(|known| is_same_field(known, name)), name.as_str()));
    let names = fields.into_iter().flat_map(|name| list::members(headers, name));
    names.filter_map(|name| Method::from_bytes(&name.to_ascii_uppercase()).ok()).collect()
}

/// A method as backends take it that do not mind its case.
fn normalise_method(method: &Method) -> Method {
    if !method.as_str().bytes().any(|byte| byte.is_ascii_lowercase()) {
        return method.clone();
    }
    Method::from_bytes(method.as_str().to_ascii_uppercase().as_bytes()).unwrap_or_else(|_| method.clone())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_method_may_be_overridden_in_several_ways() {
        let mut headers = HeaderMap::new();
        assert_eq!(overriding_methods(&headers), Vec::<Method>::new());
        for (name, value) in [("x-method-override", "delete"), ("x-http-method-override", "PUT, not a method")] {
            headers.append(name, http::HeaderValue::from_static(value));
        }
        assert_eq!(overriding_methods(&headers), [Method::PUT, Method::DELETE]);
    }

    /// The routes that other spellings are tried on.
    fn routes() -> crate::rule::Routes {
        let mut text = "[upstream]\nurl = \"http://b\"\n[store]\nurl = \"memory:\"\n".to_owned();
        for (name, path) in
            [("orders", "/orders"), ("lines", "/tenants/{tenant}/Orders/{order}/lines"), ("v1", "/v1/{*rest}")]
        {
            text.push_str(&format!("[[route]]\nname = \"{name}\"\npath = \"{path}\"\nscope = []\n"));
        }
        text.push_str("[[route]]\nname = \"off\"\npath = \"/orders/off\"\nscope = []\nmode = \"off\"\n");
        crate::config::parse("test.toml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}")).routes
    }

    /// The route that guards a path, and the path by which requests are compared.
    fn found(routes: &crate::rule::Routes, path: &str) -> Option<(String, String)> {
        let normal = normalise_path(path);
        let target =
            crate::rule::RouteTarget { method: &Method::POST, overriding: &[], host: None, path, normal: &normal };
        let found = routes.find(&target)?;
        let path = found.respelled.unwrap_or_else(|| normal.to_string());
        Some((found.rule.name.to_string(), path))
    }

    /// One segment, in one of the ways in which a backend may be asked for it. Letters of parameters stay as they are.
    fn respelled(segment: &str, is_literal: bool, ways: &mut impl Iterator<Item = u8>) -> String {
        let mut out = String::new();
        for c in segment.chars() {
            match ways.next() {
                Some(0..=1) if c.is_ascii_alphanumeric() => out.push_str(&format!("%{:02x}", u32::from(c))),
                Some(2..=4) if is_literal => {
                    out.push(if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() });
                }
                _ => out.push(c),
            }
        }
        match ways.next() {
            Some(0) => out.push_str(";jsessionid=A1"),
            Some(1) => out.push_str("%3Bv=1"),
            _ => {}
        }
        out
    }

    proptest! {
        #[test]
        fn no_spelling_of_a_guarded_path_is_unguarded(
            tenant in "[a-zA-Z0-9:@+_-]{1,6}",
            which in 0..3_usize,
            ways in proptest::collection::vec(0..12_u8, 80),
        ) {
            let segments = [
                vec![("orders", true)],
                vec![("tenants", true), (tenant.as_str(), false), ("Orders", true), ("A7", false), ("lines", true)],
                vec![("v1", true), (tenant.as_str(), false), ("B", false)],
            ][which].clone();
            let own: String = segments.iter().map(|(segment, _)| format!("/{segment}")).collect();
            let mut ways = ways.into_iter();
            let mut other = String::new();
            for (segment, is_literal) in &segments {
                let separator = match ways.next() {
                    Some(0) => "//",
                    Some(1) => "%2f",
                    Some(2) => "\\",
                    Some(3) => "/./",
                    Some(4) => "/x/../",
                    Some(5) => "/x/..;y/",
                    _ => "/",
                };
                // The first one is a slash in any request.
                other.push_str(if other.is_empty() && !separator.starts_with('/') { "/" } else { separator });
                other.push_str(&respelled(segment, *is_literal, &mut ways));
            }
            if ways.next() == Some(0) {
                other.push('/');
            }
            let routes = routes();
            let (expected, got) = (found(&routes, &own), found(&routes, &other));
            let route = |found: &Option<(String, String)>| found.as_ref().map(|(route, _)| route.clone());
            prop_assert!(expected.is_some() && route(&expected) == route(&got), "{own} {other} {got:?}");
            // What a route matches as it is stays as it is.
            let as_it_is = normalise_path(&other) == got.as_ref().map_or("", |(_, path)| path);
            // What separates the segments of a `{*rest}` is a part of it.
            if !as_it_is && which < 2 {
                prop_assert_eq!(expected, got, "{}", other);
            }
        }
    }

    #[test]
    fn an_exact_match_wins_and_may_opt_out() {
        let routes = routes();
        let of = |path: &str| found(&routes, path).map(|(route, path)| format!("{route} {path}"));
        for (path, expected) in [
            ("/orders", Some("orders /orders")),
            ("/ORDERS/", Some("orders /orders")),
            ("/orders/off", Some("off /orders/off")),
            ("/orders/OFF", None),
            ("/orders/7", None),
            ("/Tenants/a%2Fb/orders/7/LINES/", Some("lines /tenants/a%2Fb/Orders/7/lines")),
            ("/tenants/a%3Ab/Orders/7/lines", Some("lines /tenants/a%3Ab/Orders/7/lines")),
            ("*", None),
        ] {
            assert_eq!(of(path).as_deref(), expected, "{path}");
        }
    }
}
