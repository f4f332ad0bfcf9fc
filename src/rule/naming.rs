//! The inputs of a route's record names. When they change, the names change, and existing records are no longer found.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Mode, Routes, Rule};

/// The inputs of one route's record names, and the requests that have such a name. Contains no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Naming {
    /// The route's name, which stands before the digest.
    pub route: String,
    /// Which requests these are: `POST /orders`, with the host where there is one.
    #[serde(rename = "match")]
    pub matches: String,
    /// Whether its records are enforced (`mode = "enforce"`).
    pub enforced: bool,
    /// The selectors of the key.
    pub key: Vec<String>,
    /// The selectors of the scope.
    pub scope: Vec<String>,
    /// Whether path and query are part of the name: the presets of webhooks.
    pub target: bool,
}

/// A route whose existing records are no longer found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgottenRoute {
    /// The name of the route before the change.
    pub route: String,
    /// Why.
    pub why: NamingChange,
}

/// What changed about a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamingChange {
    /// The inputs of its record names are different.
    Parts(Vec<ChangedSetting>),
    /// The same requests match a route with another name.
    Renamed(String),
    /// There is no such route.
    Gone,
}

/// One setting that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedSetting {
    setting: &'static str,
    was: String,
    is: String,
}

impl Naming {
    fn of(rule: &Rule) -> Self {
        Self {
            route: rule.name.to_string(),
            matches: rule.matches(),
            enforced: rule.mode == Mode::Enforce,
            key: rule.key.iter().map(ToString::to_string).collect(),
            scope: rule.scope.iter().map(ToString::to_string).collect(),
            target: rule.target_in_name,
        }
    }

    /// The naming of all routes.
    pub fn all(routes: &Routes) -> Vec<Self> {
        routes.rules().iter().map(|rule| Self::of(rule)).collect()
    }

    fn changes(&self, now: &Self) -> Vec<ChangedSetting> {
        let parts = |parts: &[String]| format!("[{}]", parts.join(", "));
        let target = |target| if target { "path and query count" } else { "path and query do not count" }.to_owned();
        ChangedSetting::differing(vec![
            ("key", parts(&self.key), parts(&now.key)),
            ("scope", parts(&self.scope), parts(&now.scope)),
            ("preset", target(self.target), target(now.target)),
        ])
    }
}

/// The routes whose existing records are no longer found once `now` replaces `before`.
pub fn forgotten(before: &[Naming], now: &[Naming]) -> Vec<ForgottenRoute> {
    let enforced = before.iter().filter(|was| was.enforced);
    let changed = enforced.filter_map(|was| {
        let why = match now.iter().find(|is| is.route == was.route) {
            Some(is) => Some(was.changes(is)).filter(|parts| !parts.is_empty()).map(NamingChange::Parts),
            None => {
                let is_new = |is: &&Naming| !before.iter().any(|was| was.route == is.route);
                let heir = now.iter().filter(is_new).find(|is| is.matches == was.matches);
                Some(heir.map_or(NamingChange::Gone, |heir| NamingChange::Renamed(heir.route.clone())))
            }
        };
        Some(ForgottenRoute { route: was.route.clone(), why: why? })
    });
    changed.collect()
}

impl ChangedSetting {
    /// Those of `settings` (key, value before, value now) whose values differ.
    pub fn differing(settings: Vec<(&'static str, String, String)>) -> Vec<Self> {
        let differing = settings.into_iter().filter(|(_, was, is)| was != is);
        differing.map(|(setting, was, is)| Self { setting, was, is }).collect()
    }
}

/// `key was [header:a], and is [header:b]`
impl fmt::Display for ChangedSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, was, is } = self;
        write!(f, "{setting} was {was}, and is {is}")
    }
}

impl fmt::Display for NamingChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parts(parts) => parts.iter().enumerate().try_for_each(|(index, part)| {
                let and = if index == 0 { "" } else { "; " };
                write!(f, "{and}{part}")
            }),
            Self::Renamed(to) => write!(f, "the route is named {to} now"),
            Self::Gone => f.write_str("there is no such route any more"),
        }
    }
}

/// The consequence for clients that repeat a request.
pub const FORGOTTEN: &str =
    "keys that were used before are forgotten, and their requests run again when they are repeated";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn namings(routes: &[(&str, &str, &str)]) -> Vec<Naming> {
        let route = |(name, path, more): &(&str, &str, &str)| {
            format!("[[route]]\nname = \"{name}\"\npath = \"{path}\"\n{more}\n")
        };
        let routes: String = routes.iter().map(route).collect();
        let text = format!("upstream.url = \"http://backend\"\nstore.url = \"memory:\"\n{routes}");
        Naming::all(&parse("test.toml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}")).routes)
    }

    fn told(before: &[Naming], now: &[Naming]) -> Vec<String> {
        forgotten(before, now).iter().map(|ForgottenRoute { route, why }| format!("{route}: {why}")).collect()
    }

    #[test]
    fn another_key_or_scope_is_named_with_what_it_was() {
        let before = namings(&[("a", "/a", "scope = []"), ("b", "/b", "scope = []")]);
        assert_eq!(told(&before, &before), Vec::<String>::new());
        let now = namings(&[
            ("a", "/other", "key = \"header:X-Key\"\nscope = [\"host\"]"),
            ("b", "/b", "scope = []\nretention = \"2h\"\npolicy = \"strict\""),
        ]);
        let expected = "a: key was [header:idempotency-key], and is [header:x-key]; scope was [], and is [host]";
        assert_eq!(told(&before, &now), [expected]);
        assert_eq!(told(&now, &before).len(), 1);
    }

    #[test]
    fn the_order_of_parts_and_what_a_preset_adds_to_a_name_count() {
        let keyed = |key: &str| namings(&[("a", "/a", &format!("scope = []\nkey = {key}"))]);
        let parts = told(&keyed(r#"["header:a", "header:b"]"#), &keyed(r#"["header:b", "header:a"]"#));
        assert_eq!(parts, ["a: key was [header:a, header:b], and is [header:b, header:a]"]);
        let preset = namings(&[("a", "/a", "preset = \"standard-webhooks\"")]);
        let by_hand = namings(&[("a", "/a", "scope = []\nkey = \"header:webhook-id\"")]);
        let expected = "a: preset was path and query count, and is path and query do not count";
        assert_eq!(told(&preset, &by_hand), [expected]);
    }

    #[test]
    fn a_route_that_is_renamed_or_gone_is_told() {
        let before = namings(&[("a", "/a", "scope = []"), ("b", "/b", "scope = []"), ("c", "/c", "scope = []")]);
        let now = namings(&[("a2", "/a", "scope = []"), ("c", "/b", "scope = []")]);
        let expected = ["a: the route is named a2 now", "b: there is no such route any more"];
        assert_eq!(told(&before, &now), expected);
    }

    #[test]
    fn a_route_that_decided_nothing_has_nothing_to_forget() {
        let before =
            namings(&[("a", "/a", "scope = []\nmode = \"observe\""), ("b", "/b", "scope = []\nmode = \"off\"")]);
        assert_eq!(told(&before, &namings(&[("a", "/a", "scope = [\"host\"]")])), Vec::<String>::new());
    }
}
