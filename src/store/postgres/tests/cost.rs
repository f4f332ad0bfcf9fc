//! What records in PostgreSQL cost beside Redis, on this machine. The figures are in `docs/postgresql.md`.

use super::*;
use crate::config::RedisAddress;
use crate::store::Redis;
use crate::store::redis_server::RedisServer;

/// Claims and outcomes of so many keys, by so many at once.
const KEYS: u32 = 4000;
const AT_ONCE: u32 = 32;

/// Keys in a second: each is claimed, and its outcome is written.
async fn keys_per_second(store: &Arc<dyn Store>) -> f64 {
    let begun = Instant::now();
    let workers = (0..AT_ONCE).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..KEYS / AT_ONCE {
                let (name, mine) = (name(), claim(1, RETRY));
                assert!(matches!(store.claim(&name, &mine).await, Ok(Claimed::Granted(_))));
                let body = br#"{"id":"ord_0123456789","item":"book","amount":1999,"currency":"EUR","state":"paid"}"#;
                assert_eq!(store.settle(&name, &completed(&mine, body)).await.expect("an answer"), Settled::Written);
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.expect("no panic");
    }
    f64::from(KEYS) / begun.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn claims_and_outcomes_beside_redis() {
    let server = PostgresServer::start_with(&["fsync=on"]);
    let postgres: Arc<dyn Store> = Arc::new(open(&server).await);
    until("claims may be made", async || postgres.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
    let mut rates = Vec::new();
    for options in [&["--appendonly", "yes", "--appendfsync", "always"][..], &[]] {
        let redis = RedisServer::start_with(options);
        let address = RedisAddress::plain(StoreEndpoint::Tcp("127.0.0.1".to_owned(), redis.port()));
        let store = Redis::open(&address, &config(), HOUR);
        store.ready(PATIENCE).await.expect("a connection");
        let redis: Arc<dyn Store> = Arc::new(store);
        until("claims may be made", async || redis.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
        rates.push(keys_per_second(&redis).await);
    }
    let rate = keys_per_second(&postgres).await;
    let count: f64 = server.sql("SELECT count(*) FROM onlyonce.records").parse().expect("a number");
    let bytes: f64 = server.sql("SELECT pg_total_relation_size('onlyonce.records')").parse().expect("a number");
    println!(
        "keys a second: PostgreSQL {rate:.0}, Redis with appendfsync always {:.0} (1 : {:.1}), Redis in memory {:.0} (1 : {:.1}); \
         PostgreSQL takes {:.0} bytes for each record, with its indexes",
        rates[0],
        rates[0] / rate,
        rates[1],
        rates[1] / rate,
        bytes / count
    );
}

/// Hours of a day, in each of which as many records come as expire: the table does not grow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn the_table_of_a_day_stays_as_large_as_that_of_some_hours() {
    let server = PostgresServer::start();
    let store = open(&server).await;
    let primary = store.shared.link.state().expect("a primary");
    let mut sizes = Vec::new();
    for hour in 0..24 {
        // As the statements of a claim and of an outcome do, without their round trips. They are over for hours at once.
        server.sql(&format!(
            "INSERT INTO onlyonce.records (name, record, expires_at, sweep_hour)
               SELECT 'onlyonce:orders:' || md5({hour} || ':' || n), decode(repeat('02', 116), 'hex'),
                      clock_timestamp() - interval '3 hours', floor(extract(epoch FROM clock_timestamp()) / 3600)::int - 3
               FROM generate_series(1, 5000) AS n;
             UPDATE onlyonce.records SET record = decode(repeat('02', 400), 'hex'), expires_at = expires_at + interval '1 second'"
        ));
        while sweep::round(&primary).await {}
        // As autovacuum does when 5 % of the rows are dead.
        server.sql("VACUUM onlyonce.records");
        sizes.push(server.sql("SELECT pg_total_relation_size('onlyonce.records')").parse::<u64>().expect("a number"));
    }
    // Statistics are written when a session ends.
    const UPDATES: &str = "SELECT coalesce(n_tup_hot_upd * 100 / nullif(n_tup_upd, 0), 0) FROM pg_stat_user_tables
                           WHERE relname = 'records'";
    until("statistics", async || server.sql(UPDATES) != "0").await;
    println!("bytes of the table: {sizes:?}; {} % of its updates touch no index", server.sql(UPDATES));
    assert!(sizes[23] <= sizes[3] * 3 / 2, "{sizes:?}");
}
