//! Lists of records.

use super::*;

/// A cursor is a place in the tables of one process. Another one would leave records out without a word.
#[tokio::test]
async fn a_list_does_not_go_on_at_another_process_than_the_one_it_began_at() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes"]);
    // One user may ask for the run ID, the other one may not.
    order(&server, "ACL SETUSER plain on >pw ~* &* +@all -info").await;
    let stores = [open(server.port(), NO_PING).await, as_user(&server, "plain").await];
    for store in &stores {
        store.ready(PATIENCE).await.expect("a connection");
    }
    for _ in 0..40 {
        stores[0].claim(&name(), &claim(1, RETRY)).await.expect("granted");
    }
    let first = ListQuery { route: None, after: None, limit: 5 };
    let mut pages = Vec::new();
    for store in &stores {
        let after = store.list(&first).await.expect("a page").next;
        let second = ListQuery { after, ..first.clone() };
        assert!(second.after.is_some());
        store.list(&second).await.expect("the next page");
        pages.push(second);
    }
    server.kill();
    for store in &stores {
        until(store, Health::Down).await;
    }
    server.restart();
    order(&server, "ACL SETUSER plain on >pw ~* &* +@all -info").await;
    for (store, second) in stores.iter().zip(&pages) {
        until(store, Health::Up).await;
        let refused = store.list(second).await;
        assert!(matches!(refused, Err(ListError::Store(StoreError::Refused(_)))), "{refused:?}");
        store.list(&first).await.expect("a page");
    }
}

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
    for no_process in ["7", "7.0123456789abcdef"] {
        listing.after = Some(Cursor(no_process.to_owned()));
        assert!(matches!(store.list(&listing).await, Err(ListError::Store(StoreError::Refused(_)))));
    }
    for of_a_cluster_or_none in ["7.0123456789abcdef@10.0.0.1:6379", "0@10.0.0.1:6379", "0"] {
        listing.after = Some(Cursor(of_a_cluster_or_none.to_owned()));
        assert!(matches!(store.list(&listing).await, Err(ListError::BadCursor)), "{of_a_cluster_or_none}");
    }
}
