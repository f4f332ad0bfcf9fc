//! Bodies that are stored apart from their records.

use super::*;

async fn left(server: &RedisServer, key: &str) -> i64 {
    admin(&server.url(), &[b"PTTL", key.as_bytes()]).await
}

#[tokio::test]
async fn chunks_of_a_body_outlive_their_record() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (name, mine) = (name(), claim(1, RETRY));
    store.settle(&name, &large(&mine)).await.expect("settled");
    let body = apart_body(&store, &name).await;
    assert_eq!((body.token, body.cut.count()), (mine.token, 16));
    let survives = i64::try_from(SURVIVES.as_millis()).expect("short");
    for index in 0..16 {
        // The chunk is read before the record, so the time between the two reads cannot help the check.
        let chunk = left(&server, &chunk_key(&name, mine.token, index)).await;
        let record = left(&server, &format!("onlyonce:{name}")).await;
        assert!(chunk >= record + survives, "chunk {index}: {chunk} of {record}");
    }
    assert_eq!(left(&server, &chunk_key(&name, mine.token, 16)).await, -2);
}

#[tokio::test]
async fn a_body_is_read_to_its_end_when_its_record_is_gone() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (name, mine) = (name(), claim(1, RETRY));
    store.settle(&name, &large(&mine)).await.expect("settled");
    let mut body = StoredBody::open(&store, &name, apart_body(&store, &name).await).await.expect("a body");
    let first = body.next().await.expect("read").expect("a chunk");
    order(&server, &format!("DEL onlyonce:{name}")).await;
    let rest = body.rest().await.expect("all of it");
    assert!([&first[..], &rest.concat()].concat() == vec![7; 1 << 20]);
}

/// Replaces a stored chunk by other values.
#[tokio::test]
async fn a_chunk_that_is_not_the_one_that_was_stored_is_never_handed_out() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (mine, other) = (claim(1, RETRY), claim(3, RETRY));
    let (name, neighbour) = (name(), name());
    let copy = async |from: &str, to: &str| {
        let bytes: Vec<u8> = admin(&server.url(), &[b"GET", from.as_bytes()]).await;
        let () = admin(&server.url(), &[b"SET", to.as_bytes(), &bytes]).await;
    };
    store.settle(&neighbour, &large(&mine)).await.expect("settled");
    for at in [0, 7, 15] {
        let key = chunk_key(&name, mine.token, at);
        for instead in [
            "nothing",
            "a list",
            "other bytes",
            "a bit",
            "too short",
            "another chunk",
            "another record",
            "another attempt",
        ] {
            // The chunks of the other attempt are written first. Both sets have their own keys.
            store.settle(&name, &large(&other)).await.expect("settled");
            order(&server, &format!("DEL onlyonce:{name}")).await;
            store.settle(&name, &large(&mine)).await.expect("settled");
            let body = apart_body(&store, &name).await;
            match instead {
                "nothing" => order(&server, &format!("DEL {key}")).await,
                "a list" => {
                    order(&server, &format!("DEL {key}")).await;
                    order(&server, &format!("RPUSH {key} x")).await;
                }
                "other bytes" => order(&server, &format!("SET {key} something-else")).await,
                "a bit" => order(&server, &format!("SETBIT {key} 4007 0")).await,
                "too short" => {
                    let bytes: Vec<u8> = admin(&server.url(), &[b"GETRANGE", key.as_bytes(), b"0", b"-2"]).await;
                    let () = admin(&server.url(), &[b"SET", key.as_bytes(), &bytes]).await;
                }
                "another chunk" => copy(&chunk_key(&name, mine.token, if at == 7 { 8 } else { 7 }), &key).await,
                "another record" => copy(&chunk_key(&neighbour, mine.token, at), &key).await,
                "another attempt" => copy(&chunk_key(&name, other.token, at), &key).await,
                other => panic!("{other}"),
            }
            let mut body = StoredBody::open(&store, &name, body).await.expect("a body");
            for before in 0..at {
                assert!(body.next().await.expect("read").is_some(), "{instead} at {at}: {before}");
            }
            for _ in 0..2 {
                let refused = body.next().await;
                assert!(matches!(refused, Err(StoreError::Unreadable { .. })), "{instead} at {at}: {refused:?}");
            }
            order(&server, &format!("DEL onlyonce:{name} {key}")).await;
        }
    }
}

#[tokio::test]
async fn a_settling_that_comes_to_nothing_leaves_chunks_that_expire() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (name, mine, other) = (name(), claim(1, RETRY), claim(2, RETRY));
    store.settle(&name, &completed(&other, b"{}")).await.expect("settled");
    assert!(matches!(store.settle(&name, &large(&mine)).await, Ok(Settled::Kept(_))));
    let left = left(&server, &chunk_key(&name, mine.token, 0)).await;
    assert!((1..=i64::try_from((HOUR + SURVIVES * 2).as_millis()).expect("short")).contains(&left), "{left}");
}

#[tokio::test]
async fn a_body_that_lies_apart_goes_soon_after_its_record_is_released() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (name, mine) = (name(), claim(1, RETRY));
    store.settle(&name, &large(&mine)).await.expect("settled");
    let seen = store.find(&name).await.expect("found").expect("a record").seen();
    let release = transitions::release_by_hand(seen, false).expect("completed");
    assert_eq!(store.compare_and_swap(&name, &release).await.expect("an answer"), SwapResult::Done);
    let survives = i64::try_from(SURVIVES.as_millis()).expect("short");
    for index in [0, 7, 15] {
        let left = left(&server, &chunk_key(&name, mine.token, index)).await;
        assert!((survives - 20_000..=survives).contains(&left), "chunk {index}: {left}");
    }
}
