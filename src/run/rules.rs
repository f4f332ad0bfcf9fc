//! The rules in force, and how they are replaced.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use super::fixed::Fixed;
use crate::admin::{Access, ActiveRules, RecordPlacement};
use crate::config::Config;
use crate::form_guard::FormGuard;
use crate::guard::{Guard, NextAnswer, NotAsked, ProbeOutcome};
use crate::metrics::{Metrics, Reload};
use crate::proxy::{AuthServers, BlockingReader, Budget, Proxy, Upstream};
use crate::record::RecordName;
use crate::rule::{Mode, Routes, Trust};
use crate::server::Server;
use crate::store::Metered;

/// The rules that apply to requests. A request ends under the rules that it began with; a record has its own terms.
pub struct Rules {
    /// One for each core, in the order of `runtimes`. All are replaced in one step.
    current: ArcSwap<Vec<Arc<Proxy>>>,
    /// The same for the admin API.
    active: ArcSwap<ActiveRules>,
    /// The runtimes of the cores: what a proxy spawns when it is made must run on its own core.
    runtimes: Vec<Handle>,
    /// One guard for all cores. A reload keeps it.
    guard: Arc<Guard>,
    metrics: Arc<Metrics>,
    /// What was bound and opened at the start.
    fixed: Fixed,
    /// The server whose certificate a reload replaces.
    server: Server,
    /// Idle connections to the backend, for each core.
    max_idle: usize,
}

impl Rules {
    /// The first rules, for the cores with these runtimes, of which there is at least one.
    pub(super) fn new(
        config: Config,
        records: &Arc<Metered>,
        metrics: &Arc<Metrics>,
        listening: Server,
        max_idle: usize,
        runtimes: Vec<Handle>,
    ) -> Self {
        let fixed = Fixed::of(&config);
        let keeping = RecordPlacement::of(&config.store);
        let Config { server, log, admin, upstream, store: _, trust, routes, auth_tls } = config;
        introduce(&routes, metrics);
        let form_guard = FormGuard::of(&server, &routes).map(Arc::new);
        let (routes, trust) = (Arc::new(routes), Arc::new(trust));
        let access = Arc::new(Access::new(&admin.tokens));
        let active = ActiveRules { routes: Arc::clone(&routes), trust: Trust::clone(&trust), keeping, access };
        let guard = Guard::new(Arc::clone(records), Arc::clone(metrics), server.max_in_flight);
        let budget = Budget::new(server.max_buffered, Arc::clone(metrics));
        let (blocking, decoders) = (BlockingReader::default(), Arc::default());
        let max_idle = max_idle.div_ceil(runtimes.len());
        let proxy = |runtime: &Handle| {
            let _on_core = runtime.enter();
            let store = Arc::new(records.on_core());
            Arc::new(Proxy {
                routes: Arc::clone(&routes),
                trust: Arc::clone(&trust),
                guard: guard.over(Arc::clone(&store)),
                store,
                upstream: Upstream::new(upstream.clone(), max_idle),
                auth_servers: AuthServers::new(&routes, &upstream, auth_tls.as_ref(), None),
                budget: budget.clone(),
                blocking: blocking.clone(),
                decoders: Arc::clone(&decoders),
                body_timeout: server.body_timeout,
                log_keys: log.keys,
                form_guard: form_guard.clone(),
                metrics: Arc::clone(metrics),
            })
        };
        let current = ArcSwap::from_pointee(runtimes.iter().map(proxy).collect());
        Self {
            current,
            active: ArcSwap::from_pointee(active),
            runtimes,
            guard,
            metrics: Arc::clone(metrics),
            fixed,
            server: listening,
            max_idle,
        }
    }

    /// The rules for a request that begins now on this core.
    pub(super) fn on(&self, core: usize) -> Arc<Proxy> {
        Arc::clone(&self.current.load()[core])
    }

    /// The present routes.
    pub(super) fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.on(0).routes)
    }

    /// What the admin API reports of them.
    pub fn active_rules(&self) -> Arc<ActiveRules> {
        self.active.load_full()
    }

    /// The guard.
    pub(super) fn guard(&self) -> Arc<Guard> {
        Arc::clone(&self.guard)
    }

    /// Applies the rules of `config` to every request that begins from now on, on all cores at once. Returns the keys
    /// of the configuration that take effect at the next start only.
    pub fn replace(&self, config: Config) -> Vec<&'static str> {
        let waiting = self.fixed.differing(&config);
        let Config { server, log, admin, upstream, store: _, trust, routes, auth_tls } = config;
        self.server.set_tls(server.tls.as_ref());
        introduce(&routes, &self.metrics);
        let form_guard = FormGuard::of(&server, &routes).map(Arc::new);
        let (routes, trust) = (Arc::new(routes), Arc::new(trust));
        let before = self.active_rules();
        // A listener that the file turns off stays until the next start, for those who had it.
        let access = match admin.listen {
            None => Arc::clone(&before.access),
            Some(_) => Arc::new(Access::new(&admin.tokens)),
        };
        let keeping = before.keeping.clone();
        let active = ActiveRules { routes: Arc::clone(&routes), trust: Trust::clone(&trust), keeping, access };
        self.active.store(Arc::new(active));
        let proxy = |(before, runtime): (&Arc<Proxy>, &Handle)| {
            let _on_core = runtime.enter();
            // Connections to the same backend are kept.
            let same = *before.upstream.settings() == upstream;
            Arc::new(Proxy {
                routes: Arc::clone(&routes),
                trust: Arc::clone(&trust),
                guard: Arc::clone(&before.guard),
                store: Arc::clone(&before.store),
                upstream: if same { before.upstream.clone() } else { Upstream::new(upstream.clone(), self.max_idle) },
                auth_servers: AuthServers::new(&routes, &upstream, auth_tls.as_ref(), Some(&before.auth_servers)),
                budget: before.budget.clone(),
                blocking: before.blocking.clone(),
                decoders: Arc::clone(&before.decoders),
                body_timeout: server.body_timeout,
                log_keys: log.keys,
                form_guard: form_guard.clone(),
                metrics: Arc::clone(&before.metrics),
            })
        };
        let next = self.current.load().iter().zip(&self.runtimes).map(proxy).collect();
        self.current.store(Arc::new(next));
        waiting
    }

    /// Has the backend asked about a record, on the first core.
    pub(super) fn probe(&self, record: RecordName) -> impl Future<Output = NextAnswer> + use<> {
        let proxy = self.on(0);
        let asking = self.runtimes[0].spawn(async move {
            match proxy.routes.rules().iter().find(|rule| rule.name == record.route) {
                Some(rule) => proxy.probe_by_hand(rule, &record).await,
                None => NextAnswer::Came(ProbeOutcome::NotAsked(NotAsked::NoProbe)),
            }
        });
        // An error: the core ends.
        async move { asking.await.unwrap_or(NextAnswer::Never) }
    }

    /// Counts a reload.
    pub(super) fn count(&self, result: Reload) {
        self.metrics.reload(result);
    }
}

/// The metrics of a new route begin at zero.
fn introduce(routes: &Routes, metrics: &Metrics) {
    for rule in routes.rules() {
        metrics.route(&rule.name);
        if rule.mode == Mode::Observe {
            metrics.observed_route(&rule.name);
        }
        if rule.replay_auth.is_some() {
            metrics.asking_route(&rule.name);
        }
        if rule.probe.is_some() {
            metrics.probed_route(&rule.name);
        }
    }
}
