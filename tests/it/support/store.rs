//! Somewhere to keep records, gone when dropped.

/// A store of one's own.
pub enum Store {
    Memory,
}

impl Store {
    pub fn memory() -> Self {
        Self::Memory
    }

    /// For `store.url`.
    pub fn url(&self) -> String {
        match self {
            Self::Memory => "memory:".into(),
        }
    }
}

/// The same story on every store. Several names in one list are tests of one module.
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
        }
    )+ };
}
pub(crate) use on_every_store;
