//! A store for one test, deleted when dropped.

use tempfile::TempDir;

use super::redis_server::RedisServer;

/// A store for one test.
pub enum Store {
    Memory,
    Embedded(TempDir),
    Redis(RedisServer),
}

impl Store {
    pub fn memory() -> Self {
        Self::Memory
    }

    pub fn embedded() -> Self {
        Self::Embedded(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn redis() -> Self {
        Self::Redis(RedisServer::start())
    }

    /// For `store.url`.
    pub fn url(&self) -> String {
        match self {
            Self::Memory => "memory:".into(),
            Self::Embedded(folder) => format!("embedded:{}", folder.path().join("records").display()),
            Self::Redis(server) => server.url(),
        }
    }
}

/// The same test on every store but PostgreSQL, which has `tests/it/postgres.rs`.
macro_rules! on_every_store {
    ($($(#[$about:meta])* async fn $name:ident($store:ident: &Store) $story:block)+) => { $(
        $(#[$about])*
        mod $name {
            use super::*;

            async fn story($store: &Store) $story

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn memory() {
                story(&Store::memory()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                story(&Store::embedded()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis() {
                story(&Store::redis()).await;
            }
        }
    )+ };
}
pub(crate) use on_every_store;

/// The same test on the stores among these that outlast the process.
macro_rules! on_every_lasting_store {
    ($($(#[$about:meta])* async fn $name:ident($store:ident: &Store) $story:block)+) => { $(
        $(#[$about])*
        mod $name {
            use super::*;

            async fn story($store: &Store) $story

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn embedded() {
                story(&Store::embedded()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn redis() {
                story(&Store::redis()).await;
            }
        }
    )+ };
}
pub(crate) use on_every_lasting_store;
