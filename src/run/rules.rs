//! The rules in force, and how others take their place.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::admin::InForce;
use crate::config::{Config, Fixed, Keeping, Mode, Routes};
use crate::guard::Guard;
use crate::metrics::{Metrics, Reload};
use crate::proxy::{Budget, Proxy, Upstream};
use crate::server::Server;
use crate::store::Store;

/// The rules that requests go by. A request that has begun ends under the rules that it began with; a record carries
/// its own terms.
pub struct Rules {
    current: ArcSwap<Proxy>,
    /// The same for operators who ask what they are.
    told: ArcSwap<InForce>,
    /// What was bound and opened at the start.
    fixed: Fixed,
    /// Whose certificate is replaced with them.
    server: Server,
    /// Connections to the backend that may wait for the next request.
    max_idle: usize,
}

impl Rules {
    /// The first ones.
    pub(super) fn new(
        config: Config,
        records: &Arc<dyn Store>,
        metrics: &Arc<Metrics>,
        listening: Server,
        max_idle: usize,
    ) -> Self {
        let fixed = Fixed::of(&config);
        let keeping = Keeping::of(&config.store);
        let Config { server, log, admin: _, upstream, store: _, trust, routes } = config;
        introduce(&routes, metrics);
        let routes = Arc::new(routes);
        let told = InForce { routes: Arc::clone(&routes), trust: trust.clone(), keeping };
        let proxy = Proxy {
            routes,
            trust,
            guard: Guard::new(Arc::clone(records), Arc::clone(metrics), server.max_in_flight),
            store: Arc::clone(records),
            upstream: Upstream::new(upstream, max_idle),
            budget: Budget::new(server.max_buffered, Arc::clone(metrics)),
            decoders: Arc::default(),
            body_timeout: server.body_timeout,
            log_keys: log.keys,
            metrics: Arc::clone(metrics),
        };
        Self {
            current: ArcSwap::from_pointee(proxy),
            told: ArcSwap::from_pointee(told),
            fixed,
            server: listening,
            max_idle,
        }
    }

    /// Those that a request that begins now goes by.
    pub fn current(&self) -> Arc<Proxy> {
        self.current.load_full()
    }

    /// What operators are told of them.
    pub fn told(&self) -> Arc<InForce> {
        self.told.load_full()
    }

    /// Puts those of `config` in force: for every request that begins from now on, and all at once. Says which of its
    /// keys take effect at the next start only.
    pub fn replace(&self, config: Config) -> Vec<&'static str> {
        let waiting = self.fixed.differing(&config);
        let Config { server, log, admin: _, upstream, store: _, trust, routes } = config;
        self.server.set_tls(server.tls.as_ref());
        let before = self.current();
        introduce(&routes, &before.metrics);
        let routes = Arc::new(routes);
        let keeping = self.told().keeping.clone();
        self.told.store(Arc::new(InForce { routes: Arc::clone(&routes), trust: trust.clone(), keeping }));
        // Connections to the same backend are kept.
        let same = *before.upstream.settings() == upstream;
        self.current.store(Arc::new(Proxy {
            routes,
            trust,
            guard: Arc::clone(&before.guard),
            store: Arc::clone(&before.store),
            upstream: if same { before.upstream.clone() } else { Upstream::new(upstream, self.max_idle) },
            budget: before.budget.clone(),
            decoders: Arc::clone(&before.decoders),
            body_timeout: server.body_timeout,
            log_keys: log.keys,
            metrics: Arc::clone(&before.metrics),
        }));
        waiting
    }

    /// Counts a reload that was asked for or found due.
    pub(super) fn count(&self, result: Reload) {
        self.current.load().metrics.reload(result);
    }
}

/// What is counted of a route begins at zero.
fn introduce(routes: &Routes, metrics: &Metrics) {
    for rule in routes.rules() {
        metrics.route(&rule.name);
        if rule.mode == Mode::Observe {
            metrics.observed_route(&rule.name);
        }
    }
}
