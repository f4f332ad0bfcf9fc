use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::Method;

use super::Rule;

/// The rule that guards a request.
pub struct Found<'a> {
    /// The rule.
    pub rule: &'a Arc<Rule>,
    /// What the request's path has where the rule's has a parameter.
    pub params: PathParams<'a>,
}

/// The parameters of a path that matched.
#[derive(Default)]
pub struct PathParams<'a>(matchit::Params<'a, 'a>);

impl<'a> PathParams<'a> {
    /// What stands for `{name}` or `{*name}`.
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name)
    }
}

/// Which rule guards a request.
///
/// A route that names the request's host beats one that names none; within that, the most specific
/// path wins (a literal segment beats `{param}`, which beats `{*rest}`).
#[derive(Default)]
pub struct Routes {
    rules: Vec<Arc<Rule>>,
    hosts: HashMap<String, Methods>,
    any_host: Methods,
}

/// One table of paths for each method, so that a more specific path of another method hides nothing.
type Methods = HashMap<Method, matchit::Router<Arc<Rule>>>;

/// Why a rule cannot be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteConflict {
    /// The rule at this index matches some of the same requests, and neither is more specific.
    With(usize),
    /// The path pattern cannot be read; the reason.
    Pattern(String),
}

impl Routes {
    /// Adds a rule, unless one that is there already matches the same requests equally well.
    pub fn add(&mut self, rule: Rule) -> Result<(), RouteConflict> {
        let rule = Arc::new(rule);
        let methods = match &rule.host {
            Some(host) => self.hosts.entry(host.clone()).or_default(),
            None => &mut self.any_host,
        };
        for method in &rule.methods {
            let paths = methods.entry(method.clone()).or_default();
            if let Err(error) = paths.insert(&rule.path, Arc::clone(&rule)) {
                return Err(self.conflict(&rule, method, &error));
            }
        }
        self.rules.push(rule);
        Ok(())
    }

    fn conflict(&self, rule: &Rule, method: &Method, error: &matchit::InsertError) -> RouteConflict {
        let rival = |other: &Arc<Rule>| {
            other.host == rule.host && other.methods.contains(method) && collide(&other.path, &rule.path)
        };
        match (error, self.rules.iter().position(rival)) {
            (matchit::InsertError::Conflict { .. }, Some(index)) => RouteConflict::With(index),
            _ => RouteConflict::Pattern(error.to_string().to_lowercase()),
        }
    }

    /// The rule for a request. `host` is lower case and without port; `path` is normalised
    /// (RFC 3986, 6.2.2).
    pub fn find<'a>(&'a self, method: &Method, host: Option<&str>, path: &'a str) -> Option<Found<'a>> {
        host.and_then(|host| self.hosts.get(host))
            .and_then(|methods| most_specific(methods, method, path))
            .or_else(|| most_specific(&self.any_host, method, path))
    }

    /// All rules, in the order of the file.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// Their names, in the same order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|rule| &*rule.name)
    }
}

/// Whether two patterns cannot stand in one table. The router names its conflicts by a path that it puts together from
/// pieces, which need not be one that was added; so the pair is tried by itself.
fn collide(one: &str, other: &str) -> bool {
    let mut pair = matchit::Router::new();
    pair.insert(one, ()).is_ok() && matches!(pair.insert(other, ()), Err(matchit::InsertError::Conflict { .. }))
}

fn most_specific<'a>(methods: &'a Methods, method: &Method, path: &'a str) -> Option<Found<'a>> {
    let found = methods.get(method)?.at(path).ok()?;
    Some(Found { rule: found.value, params: PathParams(found.params) })
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rules).finish()
    }
}
