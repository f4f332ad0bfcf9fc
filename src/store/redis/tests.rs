use std::time::Duration;

use super::*;
use crate::config::{Durability, OnStoreError, StoreLocation};
use crate::store::conformance::{self, Subject};
use crate::store::redis_server::RedisServer;

fn address(port: u16) -> RedisAddress {
    RedisAddress { host: "127.0.0.1".to_owned(), port, database: 0, username: None, password: None }
}

fn config(port: u16) -> config::Store {
    config::Store {
        location: StoreLocation::Redis(address(port)),
        prefix: "onlyonce".to_owned(),
        // A slow machine is no reason to fail.
        timeout: Duration::from_secs(20),
        on_error: OnStoreError::Reject,
        digest_key: None,
        durability: Durability::Disk,
        accept_eviction: false,
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

async fn ready(store: Redis) -> Redis {
    store.ready(PATIENCE).await.expect("a connection");
    store
}

async fn open(server: &RedisServer) -> Redis {
    ready(Redis::open(&address(server.port()), &config(server.port()))).await
}

fn subject(server: RedisServer, store: Redis) -> Subject {
    let url = server.url();
    Subject::new(Arc::new(store), server).with_plant(move |name, bytes| {
        let client = redis::Client::open(url.clone()).expect("an address");
        async move {
            let mut connection = client.get_multiplexed_async_connection().await.expect("a connection");
            let mut set = redis::cmd("SET");
            set.arg(format!("onlyonce:{name}")).arg(bytes);
            set.exec_async(&mut connection).await.expect("an answer");
        }
    })
}

mod natively {
    use super::*;

    async fn natively() -> Subject {
        let server = RedisServer::start();
        let store = open(&server).await;
        subject(server, store)
    }

    conformance::suite!(natively);
}

mod by_script {
    use super::*;

    async fn by_script() -> Subject {
        let server = RedisServer::start();
        let habits = Habits { scripts_only: true, ..Habits::default() };
        let store = ready(Redis::open_with(&address(server.port()), &config(server.port()), habits)).await;
        subject(server, store)
    }

    conformance::suite!(by_script);
}
