//! Notices of changes that other sidecars make to a record.

use super::*;

#[tokio::test]
async fn what_is_no_sign_changes_nothing_of_what_is_done() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let (settled, released, mine) = (name(), name(), claim(1, RETRY));
    for name in [&settled, &released] {
        order(&server, &format!("RPUSH {{onlyonce:{name}}}:waiting element")).await;
        store.claim(name, &mine).await.expect("granted");
    }
    assert_eq!(store.settle(&settled, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
    assert_eq!(store.release(&released, mine.token).await.expect("an answer"), Released::Deleted);
}

#[tokio::test]
async fn changes_by_others_are_heard_of() {
    let mut server = RedisServer::start();
    let (ours, theirs) = (open(server.port(), NO_PING).await, open(server.port(), NO_PING).await);
    let (settled, released) = (name(), name());
    let owner = claim(1, RETRY);
    for name in [&settled, &released] {
        theirs.claim(name, &owner).await.expect("granted");
    }
    let mut changes = [&settled, &released].map(|name| ours.subscribe(name, HOUR).expect("Redis notifies"));
    for changes in &mut changes {
        told(changes).await;
    }
    theirs.settle(&settled, &completed(&owner, b"{}")).await.expect("settled");
    told(&mut changes[0]).await;
    assert!(!changes[1].has_changed().expect("a listener"), "only its own record wakes a waiter");
    theirs.release(&released, owner.token).await.expect("released");
    told(&mut changes[1]).await;

    // Changes without a listener are missed. So all waiters get a notice after the loss, and another one when listening
    // starts again.
    server.kill();
    told(&mut changes[0]).await;
    server.restart();
    until(&theirs, Health::Up).await;
    told(&mut changes[0]).await;
    theirs.settle(&settled, &completed(&owner, b"{}")).await.expect("settled");
    told(&mut changes[0]).await;
}

#[tokio::test]
async fn nothing_is_published_where_nobody_waits() {
    let server = RedisServer::start();
    let (ours, theirs) = (open(server.port(), NO_PING).await, open(server.port(), NO_PING).await);
    // The examination of each connect executes all commands once.
    order(&server, "CONFIG RESETSTAT").await;
    let published = async || {
        let stats: String = admin(&server.url(), &[b"INFO", b"commandstats"]).await;
        let publish = stats.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls=")?.split(',').next());
        publish.map_or(0, |calls| calls.parse::<u32>().expect("a number"))
    };
    let owner = claim(1, RETRY);
    let (alone, awaited, later) = (name(), name(), name());
    theirs.claim(&alone, &owner).await.expect("granted");
    theirs.settle(&alone, &completed(&owner, b"{}")).await.expect("settled");
    theirs.claim(&alone, &claim(2, RETRY)).await.expect("refused");
    assert_eq!(published().await, 0);

    // There are two waiters. The second one waits longer.
    theirs.claim(&awaited, &owner).await.expect("granted");
    let (mut first, sign) = (ours.subscribe(&awaited, HOUR), format!("{{onlyonce:{awaited}}}:waiting"));
    let first = first.as_mut().expect("Redis notifies");
    told(first).await;
    let left = async || admin::<i64>(&server.url(), &[b"PTTL", sign.as_bytes()]).await;
    // The sign may outlive its waiters by some seconds, so few new waiters need a new sign.
    assert!((1..=3_610_000).contains(&left().await), "{}", left().await);
    let mut second = ours.subscribe(&awaited, HOUR * 2).expect("Redis notifies");
    while left().await <= 3_610_000 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for changes in [&mut *first, &mut second] {
        changes.mark_unchanged();
    }
    theirs.settle(&awaited, &completed(&owner, b"{}")).await.expect("settled");
    told(first).await;
    told(&mut second).await;
    assert_eq!(published().await, 1);

    // An older sidecar publishes with or without a sign, and sets none.
    let mut changes = ours.subscribe(&later, HOUR).expect("Redis notifies");
    told(&mut changes).await;
    order(&server, &format!("DEL {{onlyonce:{later}}}:waiting")).await;
    order(&server, &format!("PUBLISH onlyonce:{later} x")).await;
    told(&mut changes).await;
    theirs.claim(&later, &owner).await.expect("granted");
    assert_eq!(theirs.release(&later, owner.token).await.expect("an answer"), Released::Deleted);
    assert_eq!(published().await, 2);
}

#[tokio::test]
async fn whoever_joins_those_who_wait_wakes_none_of_them_and_hardly_ever_needs_a_sign() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let awaited = name();
    let mut first = store.subscribe(&awaited, HOUR).expect("Redis notifies");
    told(&mut first).await;
    order(&server, "CONFIG RESETSTAT").await;
    let listens = async || {
        // The second notice comes after all work that was due at the first one.
        for _ in 0..2 {
            told(&mut store.subscribe(&name(), HOUR).expect("Redis notifies")).await;
        }
    };
    let mut others = Vec::new();
    for _ in 0..5 {
        let mut joined = store.subscribe(&awaited, HOUR).expect("Redis notifies");
        told(&mut joined).await;
        others.push(joined);
        listens().await;
    }
    let stats: String = admin(&server.url(), &[b"INFO", b"commandstats"]).await;
    let set = stats.lines().find_map(|line| line.strip_prefix("cmdstat_set:calls=")?.split(',').next());
    let signs = set.expect("signs").parse::<u32>().expect("a number") - 10;
    assert!(signs <= 2, "{signs}");
    // A waiter with more patience needs a new sign. Only this waiter is told to read the record.
    let mut patient = store.subscribe(&awaited, HOUR * 2).expect("Redis notifies");
    told(&mut patient).await;
    listens().await;
    assert!(others.iter().chain([&first, &patient]).all(|changes| !changes.has_changed().expect("a listener")));
    // All waiters get the notice of the change.
    store.settle(&awaited, &completed(&claim(1, RETRY), b"{}")).await.expect("settled");
    for changes in others.iter_mut().chain([&mut first, &mut patient]) {
        told(changes).await;
    }
}

#[tokio::test]
async fn a_server_that_takes_no_sign_still_tells_what_others_publish() {
    let server = RedisServer::start();
    let ours = open(server.port(), NO_PING).await;
    order(&server, "CONFIG SET maxmemory 1").await;
    let name = name();
    let mut changes = ours.subscribe(&name, HOUR).expect("Redis notifies");
    told(&mut changes).await;
    order(&server, &format!("PUBLISH onlyonce:{name} x")).await;
    told(&mut changes).await;
}

#[tokio::test]
async fn a_sign_that_a_full_server_refused_is_left_once_there_is_room() {
    let server = RedisServer::start();
    let ours = open(server.port(), NO_PING).await;
    order(&server, "CONFIG SET maxmemory 1").await;
    let awaited = name();
    let mut changes = ours.subscribe(&awaited, HOUR).expect("Redis notifies");
    told(&mut changes).await;
    let sign = format!("{{onlyonce:{awaited}}}:waiting");
    let is_left = async || admin::<bool>(&server.url(), &[b"EXISTS", sign.as_bytes()]).await;
    assert!(!is_left().await);
    order(&server, "CONFIG SET maxmemory 0").await;
    // A new waiter makes the listener check all subscriptions. The second notice comes after that check.
    for _ in 0..2 {
        told(&mut ours.subscribe(&name(), HOUR).expect("Redis notifies")).await;
    }
    assert!(is_left().await);
    ours.settle(&awaited, &completed(&claim(1, RETRY), b"{}")).await.expect("settled");
    told(&mut changes).await;
}

#[tokio::test]
async fn a_user_without_channels_still_settles_and_releases() {
    let server = RedisServer::start();
    order(&server, "ACL SETUSER sidecar on >secret ~onlyonce:* ~{onlyonce:* resetchannels +@all").await;
    let mut address = address(server.port());
    (address.username, address.password) =
        (Some("sidecar".to_owned()), Some(StorePassword::Fixed(Secret::new("secret"))));
    let store = Redis::open_with(&address, &config(), NO_PING);
    store.ready(PATIENCE).await.expect("a connection");
    let (settled, released) = (name(), name());
    let owner = claim(1, RETRY);
    for name in [&settled, &released] {
        store.claim(name, &owner).await.expect("granted");
    }
    assert_eq!(store.settle(&settled, &completed(&owner, b"{}")).await.expect("an answer"), Settled::Written);
    assert_eq!(store.release(&released, owner.token).await.expect("an answer"), Released::Deleted);
    assert_eq!(store.find(&released).await.expect("an answer"), None);
}
