//! Nothing stays in Redis for ever.

use super::*;

/// Every name on the server, with its remaining time to live in milliseconds: -1 if it has none.
async fn times_to_live(server: &RedisServer) -> Vec<(String, i64)> {
    let names: Vec<String> = admin(&server.url(), &[b"KEYS", b"*"]).await;
    let mut times = Vec::new();
    for name in names {
        let left: i64 = admin(&server.url(), &[b"PTTL", name.as_bytes()]).await;
        times.push((name, left));
    }
    times
}

#[tokio::test]
async fn everything_that_is_written_has_a_time_to_live() {
    let server = RedisServer::start();
    let of_scripts = ConnectionOptions { scripts_only: true, ..MANY_PINGS };
    let acknowledged = config::StoreConfig { replica_acks: 1, timeout: Duration::from_secs(4), ..config() };
    for (options, config) in [(MANY_PINGS, config()), (of_scripts, config()), (MANY_PINGS, acknowledged)] {
        let store = open_with(server.port(), &config, options).await;
        let asks_acks = config.replica_acks > 0;
        let [flying, small, large_one, unknown, by_hand, lost] = [(); 6].map(|()| name());
        for name in [&flying, &small, &large_one, &unknown, &by_hand] {
            // There is no replica. What is written stays written.
            assert_eq!(store.claim(name, &claim(1, HOLD)).await.is_err(), asks_acks);
        }
        let mut changes = store.subscribe(&flying, HOUR).expect("Redis notifies");
        told(&mut changes).await;
        let _ = store.renew(&flying, &claim(1, HOLD)).await;
        // The record of a renewal may be gone.
        let _ = store.renew(&lost, &claim(1, HOLD)).await;
        let _ = store.settle(&small, &completed(&claim(1, HOLD), b"{}")).await;
        let _ = store.settle(&large_one, &large(&claim(1, HOLD))).await;
        let state = State::Unknown { settled_at: 0 };
        let record = SettledRecord::of(Record { claim: claim(1, HOLD), state }).expect("not in flight");
        let _ = store.settle(&unknown, &record).await;
        let seen = store.find(&by_hand).await.expect("an answer").expect("a record").seen();
        let to = Some(completed(&claim(1, HOLD), b"by hand"));
        let swapped = store.compare_and_swap(&by_hand, &CompareAndSwap { seen, to }).await;
        assert_eq!(swapped.expect("an answer"), SwapResult::Done);
        // Under `retry`, a lost owner is replaced.
        let taken_over = name();
        let _ = store.claim(&taken_over, &claim(1, LOST)).await;
        let _ = store.claim(&taken_over, &claim(2, LOST)).await;

        let times = times_to_live(&server).await;
        for what in ["digest-key", "canary", ":waiting", ":body:", "onlyonce:orders:"] {
            assert!(times.iter().any(|(name, _)| name.contains(what)), "nothing of {what} in {times:?}");
        }
        assert!(!asks_acks || times.iter().any(|(name, _)| name.contains("replicated")), "{times:?}");
        // -2: it has expired in the meantime.
        let for_ever: Vec<_> = times.iter().filter(|(_, left)| *left == -1).collect();
        assert!(for_ever.is_empty(), "{for_ever:?}");
    }
}
