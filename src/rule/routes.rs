use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::Method;

use super::spelling::{Pattern, folded, spellings};
use super::{Mode, Rule};

/// The rule that guards a request.
pub struct RouteMatch<'a> {
    /// The rule.
    pub rule: &'a Arc<Rule>,
    /// The values of the path's parameters.
    pub params: PathParams<'a>,
    /// The request's path in the rule's spelling, where the request spells it differently.
    pub respelled: Option<String>,
    /// The rule is enforced, and another of the request's methods matches another enforced rule.
    pub is_contested: bool,
}

/// The parameters of a path that matched.
pub enum PathParams<'a> {
    /// As it is.
    Exact(matchit::Params<'a, 'a>),
    /// By another spelling.
    Respelled(Vec<(String, String)>),
}

impl Default for PathParams<'_> {
    fn default() -> Self {
        Self::Respelled(Vec::new())
    }
}

impl PathParams<'_> {
    /// A copy that does not borrow from the path.
    pub fn kept(&self) -> PathParams<'static> {
        let kept = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        PathParams::Respelled(match self {
            Self::Exact(params) => params.iter().map(kept).collect(),
            Self::Respelled(params) => params.clone(),
        })
    }

    /// The values, in the order of the path.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        let (exact, respelled) = match self {
            Self::Exact(params) => (Some(params.iter().map(|(_, value)| value)), None),
            Self::Respelled(params) => (None, Some(params.iter().map(|(_, value)| value.as_str()))),
        };
        exact.into_iter().flatten().chain(respelled.into_iter().flatten())
    }

    /// The value of `{name}` or `{*name}`.
    pub fn get(&self, name: &str) -> Option<&str> {
        match self {
            Self::Exact(params) => params.get(name),
            Self::Respelled(params) => params.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str()),
        }
    }
}

/// Which rule guards a request.
///
/// A route that names the request's host beats one that names none; within that, the most specific
/// path wins (a literal segment beats `{param}`, which beats `{*rest}`). A path that no route matches is looked up by
/// its other spellings (`config/spelling.rs`), which find guarded routes only.
#[derive(Default)]
pub struct Routes {
    rules: Vec<Arc<Rule>>,
    hosts: HashMap<String, Methods>,
    any_host: Methods,
}

/// One table of paths for each method: a more specific path of another method must not hide a route.
type Methods = HashMap<Method, Paths>;

#[derive(Default)]
struct Paths {
    exact: matchit::Router<Arc<Rule>>,
    /// By other spellings. Of two routes that differ only in spelling, the first one wins.
    loose: matchit::Router<(Arc<Rule>, Pattern)>,
}

/// The parts of a request that select a route.
#[derive(Debug, Clone, Copy)]
pub struct RouteTarget<'a> {
    /// The method of the request line, in upper case.
    pub method: &'a Method,
    /// Methods that override it at some backends (`X-HTTP-Method-Override`).
    pub overriding: &'a [Method],
    /// Lower case and without port.
    pub host: Option<&'a str>,
    /// The path as received.
    pub path: &'a str,
    /// The path in normal form (RFC 3986, 6.2.2).
    pub normal: &'a str,
}

/// Why nothing guards a request.
#[derive(Debug, Clone, Copy)]
pub enum Unguarded<'a> {
    /// Its route is off.
    Off(&'a Rule),
    /// A route has its path, for other methods.
    Method(&'a Rule),
    /// A route has its path, for another host.
    Host(&'a Rule),
    /// No route has its path.
    Path,
}

impl fmt::Display for Unguarded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off(rule) => write!(f, "the route {} is off", rule.name),
            Self::Method(rule) => {
                let methods: Vec<&str> = rule.methods.iter().map(Method::as_str).collect();
                write!(f, "the route {} is for {} only", rule.name, methods.join(", "))
            }
            Self::Host(rule) => {
                write!(f, "the route {} is for the host {} only", rule.name, rule.host.as_deref().unwrap_or_default())
            }
            Self::Path => f.write_str("no route has this path"),
        }
    }
}

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
            if let Err(error) = paths.exact.insert(&rule.path, Arc::clone(&rule)) {
                return Err(self.conflict(&rule, method, &error));
            }
            if rule.mode != Mode::Off
                && let Some(pattern) = Pattern::new(&rule.path)
            {
                // On a conflict, an earlier route already matches these spellings.
                let _ = paths.loose.insert(pattern.folded.clone(), (Arc::clone(&rule), pattern));
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

    /// The rule for a request. Overriding methods come first and match guarded routes only: a backend that ignores the
    /// override must not be reached unguarded.
    pub fn find<'a>(&'a self, target: &RouteTarget<'a>) -> Option<RouteMatch<'a>> {
        let overriding = |mode| {
            let found = |method| self.by(method, target).filter(|found| found.rule.mode == mode);
            target.overriding.iter().find_map(found)
        };
        let own = || self.by(target.method, target);
        let found = overriding(Mode::Enforce).or_else(own).or_else(|| overriding(Mode::Observe))?;
        let is_rival = |other: RouteMatch<'a>| other.rule.mode == Mode::Enforce && !Arc::ptr_eq(other.rule, found.rule);
        let mut methods = target.overriding.iter().chain([target.method]);
        let is_contested = !target.overriding.is_empty()
            && found.rule.mode == Mode::Enforce
            && methods.any(|method| self.by(method, target).is_some_and(is_rival));
        Some(RouteMatch { is_contested, ..found })
    }

    fn by<'a>(&'a self, method: &Method, target: &RouteTarget<'a>) -> Option<RouteMatch<'a>> {
        let of_host = target.host.and_then(|host| self.hosts.get(host)).and_then(|methods| methods.get(method));
        let tables = [of_host, self.any_host.get(method)];
        let tables = || tables.iter().copied().flatten();
        let exact = tables().find_map(|paths| paths.exact.at(target.normal).ok());
        if let Some(exact) = exact {
            return Some(RouteMatch {
                rule: exact.value,
                params: PathParams::Exact(exact.params),
                respelled: None,
                is_contested: false,
            });
        }
        // Skips the slow lookup for methods that no route guards.
        tables().next()?;
        spellings(target.path, target.normal).find_map(|plain| tables().find_map(|paths| paths.respelled(&plain)))
    }

    /// Why no route guards a request, by the route that comes nearest. Slow: it tries the routes one by one.
    pub fn why_unguarded<'a>(&'a self, target: &RouteTarget<'a>) -> Unguarded<'a> {
        if let Some(found) = self.find(target).filter(|found| found.rule.mode == Mode::Off) {
            return Unguarded::Off(found.rule);
        }
        let of_its_path = || {
            self.rules.iter().filter(|rule| {
                let mut alone = Self::default();
                let anywhere = Rule { host: None, ..Rule::clone(rule) };
                let is_added = alone.add(anywhere).is_ok();
                let method = rule.methods.first().unwrap_or(target.method);
                is_added && alone.find(&RouteTarget { method, overriding: &[], ..*target }).is_some()
            })
        };
        let is_of_host = |rule: &&Arc<Rule>| rule.host.as_deref().is_none_or(|host| Some(host) == target.host);
        if let Some(rule) = of_its_path().find(is_of_host) {
            return Unguarded::Method(rule);
        }
        of_its_path().next().map_or(Unguarded::Path, |rule| Unguarded::Host(rule))
    }

    /// All rules, in the order of the file.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }
}

/// Whether two patterns cannot stand in one table. The router names its conflicts by a path that it puts together from
/// pieces, which need not be one that was added; so the pair is tried by itself.
fn collide(one: &str, other: &str) -> bool {
    let mut pair = matchit::Router::new();
    pair.insert(one, ()).is_ok() && matches!(pair.insert(other, ()), Err(matchit::InsertError::Conflict { .. }))
}

impl Paths {
    fn respelled<'a>(&'a self, plain: &str) -> Option<RouteMatch<'a>> {
        let folded = folded(plain);
        let found = self.loose.at(&folded).ok()?;
        let (rule, pattern) = found.value;
        let values = pattern.values(plain, found.params.iter().map(|(_, value)| value.len()));
        let respelled = Some(pattern.canonical(&values));
        let names = found.params.iter().map(|(name, _)| name.to_owned());
        let params = PathParams::Respelled(names.zip(values).collect());
        Some(RouteMatch { rule, params, respelled, is_contested: false })
    }
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rules).finish()
    }
}
