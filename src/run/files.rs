//! How many files may be open, and who may have how many of them.
//!
//! At the limit, a client that connects would take the file that another's request needs for its connection to the
//! backend, and with it those of operators, of the reader of the configuration, and of the store.

use std::error::Error;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::ConnectionLimits;

/// What the limit has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileShares {
    pub(super) places: ConnectionLimits,
    /// Connections to the backend that nobody uses.
    pub(super) idle: usize,
}

/// For all but clients and the backend: operators, the store, and what every process has open.
const RESERVE: usize = 256;
/// For each thread that answers requests: those of its runtime, its connection to Redis, and others for large answers.
const THREAD: usize = 13;
/// Connections of operators at once.
const OPERATORS: usize = 100;
/// More connections to the backend than this are never kept for later.
const IDLE: usize = 512;

/// Lets this process have as many files open as it ever may. The limit that processes begin with, often 1024, is for
/// programs that cannot count further; each client takes one, and a request at work two.
pub fn allow_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(error = &error as &dyn Error, current, "the limit of open files stays as it is");
    }
}

/// Shares out what may be open now.
pub(super) fn shares(max_connections: usize, threads: usize) -> FileShares {
    let limit = getrlimit(Resource::Nofile).current.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let shares = FileShares::of(limit.unwrap_or(usize::MAX), max_connections, threads);
    if shares.places.clients < max_connections {
        tracing::warn!(
            max_connections,
            clients = shares.places.clients,
            open_files = limit,
            "the limit of open files has room for fewer clients than max_connections: raise it (LimitNOFILE=, ulimit -n)"
        );
    }
    shares
}

impl FileShares {
    /// What is not set aside is for clients and for the connections to the backend, of which each client at work has one.
    fn of(limit: usize, max_connections: usize, threads: usize) -> Self {
        let reserve = RESERVE.saturating_add(threads.saturating_mul(THREAD)).min(limit / 2);
        let room = limit - reserve;
        let idle = IDLE.min(room / 8);
        let clients = max_connections.min((room - idle) / 2).max(1);
        Self { places: ConnectionLimits { clients, operators: OPERATORS.min(reserve / 2).max(1) }, idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_share_is_another_s() {
        for threads in [1, 4, 64, 256] {
            for limit in (0..3000).chain([20_000, 1 << 20, usize::MAX]) {
                let FileShares { places, idle } = FileShares::of(limit, 10_000, threads);
                assert!(
                    (1..=10_000).contains(&places.clients) && (1..=OPERATORS).contains(&places.operators),
                    "{limit}"
                );
                let taken = 2 * places.clients + idle + places.operators;
                // What is left is for the threads, for the store, and for what every process has open.
                let others = RESERVE - OPERATORS + threads * THREAD;
                assert!(limit < 16 || limit - taken >= (limit / 4).min(others), "{limit} {threads}");
            }
        }
        let wide = FileShares { places: ConnectionLimits { clients: 10_000, operators: OPERATORS }, idle: IDLE };
        assert_eq!(FileShares::of(1 << 20, 10_000, 4), wide);
        assert_eq!(FileShares::of(1024, 10_000, 1).places.clients, 330);
        assert_eq!(FileShares::of(1024, 10_000, 4).places.clients, 313);
    }
}
