//! How the limit of open files is divided.
//!
//! Without this, at the limit a new client would take the file that another request needs for its connection to the
//! backend, and also those of operators, of the reload and of the store.

use std::error::Error;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::ConnectionLimits;

/// How many of each the limit allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileShares {
    pub(super) places: ConnectionLimits,
    /// Idle connections to the backend.
    pub(super) idle: usize,
}

/// For everything but clients and the backend: operators, the store, and what every process has open.
const RESERVE: usize = 256;
/// For each core: its runtime, its connection to Redis, and others for large responses.
const THREAD: usize = 13;
/// Connections of operators at once.
const OPERATORS: usize = 100;
/// The largest number of idle connections to the backend.
const IDLE: usize = 512;

/// Raises the limit of open files of this process to the most that is allowed. The usual initial limit of 1024 is for
/// programs that use `select(2)`. Each client takes one file, and a running request two.
pub fn allow_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(error = &error as &dyn Error, current, "the limit of open files stays as it is");
    }
}

/// Divides the present limit.
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
    /// What is not set aside is for clients and for connections to the backend, one of each for a running request.
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
                // The rest is for the cores, for the store, and for what every process has open.
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
