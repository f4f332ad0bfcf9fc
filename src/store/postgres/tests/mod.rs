mod cost;
mod digest_key;
mod faults;
mod refusals;
mod standby;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::config::{StoreConfig, StoreEndpoint};
use crate::record::{Terms, UnknownPolicy};
use crate::store::conformance::{self, Subject, claim, completed, name};
use crate::store::postgres_server::{PostgresServer, is_shared};

const HOUR: Duration = Duration::from_secs(3600);
/// It is long, so that a slow machine does not fail a test.
const PATIENCE: Duration = Duration::from_secs(30);

const RETRY: Terms = Terms { lease: HOUR, retention: HOUR, on_unknown: UnknownPolicy::Retry };

fn address(server: &PostgresServer, user: &str) -> PostgresAddress {
    PostgresAddress {
        servers: vec![StoreEndpoint::Tcp("127.0.0.1".to_owned(), server.port())],
        username: user.to_owned(),
        database: "postgres".to_owned(),
        password: None,
        tls: None,
    }
}

fn config() -> StoreConfig {
    StoreConfig { timeout: Duration::from_secs(15), ..conformance::settings() }
}

fn with_timeout(timeout: Duration) -> StoreConfig {
    StoreConfig { timeout, ..config() }
}

async fn open(server: &PostgresServer) -> Postgres {
    open_with(&address(server, "postgres"), &config()).await
}

async fn open_with(address: &PostgresAddress, config: &StoreConfig) -> Postgres {
    let store = Postgres::open(address, config, HOUR);
    store.ready(PATIENCE).await.unwrap_or_else(|why| panic!("{why}"));
    store
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn subject(server: &Arc<PostgresServer>) -> Subject {
    subject_with(server, &config()).await
}

async fn subject_with(server: &Arc<PostgresServer>, config: &StoreConfig) -> Subject {
    let store = open_with(&address(server, "postgres"), config).await;
    // The list is of all records.
    server.sql("DELETE FROM onlyonce.records");
    let to_plant = server.clone();
    Subject::new(Arc::new(store), server.clone()).with_plant(move |name, bytes| {
        let server = to_plant.clone();
        async move {
            let bytes: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            server.sql(&format!(
                "INSERT INTO onlyonce.records (name, record, expires_at, sweep_hour)
                 VALUES ('onlyonce:{name}', '\\x{bytes}', clock_timestamp() + interval '1 hour', 1000000)
                 ON CONFLICT (name) DO UPDATE SET record = excluded.record"
            ));
        }
    })
}

mod plain {
    use super::*;

    conformance::suite!(on_one Arc::new(PostgresServer::start()), subject);
}

mod encrypted {
    use super::*;
    use crate::config::SecretKey;

    async fn encrypted(server: &Arc<PostgresServer>) -> Subject {
        let encryption_keys = vec![SecretKey::new([1; 32]), SecretKey::new([2; 32])];
        subject_with(server, &StoreConfig { encryption_keys, ..config() }).await
    }

    conformance::suite!(#[ignore = "tests/run --all"] on_one Arc::new(PostgresServer::start()), encrypted);
}
