//! Bodies that are stored apart from their records.

use bytes::Bytes;

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

#[tokio::test]
async fn an_outcome_whose_reply_was_lost_is_known_again_however_it_is_stored() {
    for compress_above in [None, Some(64)] {
        for encryption_keys in [Vec::new(), vec![config::SecretKey::new([1; 32])]] {
            let config = config::StoreConfig { compress_above, encryption_keys, ..config() };
            let subject = subject_with(RedisServer::start(), &config, NO_PING).await;
            conformance::an_outcome_that_is_written_again_is_known_to_be_the_same(&subject).await;
        }
    }
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

/// Starts a proxy in front of the server, and returns its port. The proxy delays each connection once, by `pause`, when
/// the first chunk of a body arrives on it.
async fn slow_for_bodies(server: &RedisServer, pause: Duration) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let (port, server) = (listener.local_addr().expect("bound").port(), server.port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(("127.0.0.1", server)).await.expect("the server");
            let ((mut client_in, client_out), (server_in, mut server_out)) = (client.into_split(), server.into_split());
            tokio::spawn(async move {
                let (mut buffer, mut was_held) = (Vec::with_capacity(64 * 1024), false);
                while let Ok(1..) = client_in.read_buf(&mut buffer).await {
                    if !was_held && buffer.windows(6).any(|bytes| bytes == b":body:") {
                        was_held = true;
                        // It goes on to read: a peer that takes nothing for seconds counts as dead.
                        let reads = async { while let Ok(1..) = client_in.read_buf(&mut buffer).await {} };
                        let _ = tokio::time::timeout(pause, reads).await;
                    }
                    if server_out.write_all(&buffer).await.is_err() {
                        return;
                    }
                    buffer.clear();
                }
            });
            tokio::spawn(pass(server_in, client_out, || {}));
        }
    });
    port
}

/// If the deadline of the whole call applied to the commands after the body, every try would fail in the same way.
#[tokio::test]
async fn a_body_that_takes_longer_than_a_call_is_settled_at_the_first_try() {
    let server = RedisServer::start_with(&["--repl-diskless-sync-delay", "0"]);
    let _replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &server.port().to_string()]);
    while !admin::<String>(&server.url(), &[b"INFO", b"replication"]).await.contains("state=online") {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let wanted = config::StoreConfig { replica_acks: 1, timeout: Duration::from_secs(4), ..config() };
    let pause = wanted.timeout + Duration::from_secs(1);
    let store = open_with(slow_for_bodies(&server, pause).await, &wanted, NO_PING).await;
    let (name, mine) = (name(), claim(1, RETRY));
    let begun = Instant::now();
    assert_eq!(store.settle(&name, &large(&mine)).await.expect("in time"), Settled::Written);
    assert!(begun.elapsed() >= pause, "{:?}", begun.elapsed());
    let body = StoredBody::open(&store, &name, apart_body(&store, &name).await).await.expect("a body");
    assert_eq!(body.rest().await.expect("all of it").iter().map(Bytes::len).sum::<usize>(), 1 << 20);
}
