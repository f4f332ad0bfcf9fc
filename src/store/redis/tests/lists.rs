//! Lists of records.

use super::*;

#[tokio::test]
async fn records_are_found_among_much_else() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let digest = "0123456789abcdef0123456789abcdef";
    let fill = "for i = 1, 20000 do redis.call('SET', 'session:' .. i, 'x') end";
    let () = admin(&server.url(), &[b"EVAL", fill.as_bytes(), b"0"]).await;
    // Some of the names look like records.
    for key in ["onlyonce:orders:x", "onlyonce:orders", &format!("other:orders:{digest}"), "onlyonce:orders:\u{2603}"] {
        let () = admin(&server.url(), &[b"SET", key.as_bytes(), b"x"]).await;
    }
    order(&server, &format!("RPUSH onlyonce:lists:{digest} x")).await;
    let mut expected = Vec::new();
    for _ in 0..30 {
        let name = name();
        store.settle(&name, &large(&claim(1, RETRY))).await.expect("settled");
        expected.push(name.to_string());
    }

    let (mut listing, mut found, mut pages) = (ListQuery { route: None, after: None, limit: 5 }, Vec::new(), 0);
    loop {
        let page = store.list(&listing).await.expect("an answer");
        for ListedRecord { name, seen } in page.records {
            assert_eq!(seen.is_err(), &*name.route == "lists", "{seen:?}");
            if &*name.route == "orders" {
                found.push(name.to_string());
            }
        }
        pages += 1;
        listing.after = page.next;
        if listing.after.is_none() {
            break;
        }
    }
    found.sort_unstable();
    found.dedup();
    assert_eq!(found, expected);
    assert!((3..200).contains(&pages), "{pages}");
    listing.after = Some(Cursor("nonsense".to_owned()));
    assert!(matches!(store.list(&listing).await, Err(StoreError::Unavailable(_))));
}
