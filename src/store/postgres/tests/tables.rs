//! What is in the tables, and who owns a name.

use super::*;
use crate::record::codec;
use crate::record::{Reply, Settlement};
use crate::store::StoredBody;
use crate::store::postgres::call;
use crate::store::postgres::dial::PostgresDialer;
use crate::store::postgres::session::Session;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

pub(super) fn large(claim: &Claim, length: usize) -> SettledRecord {
    let body = vec![Bytes::from(vec![b'x'; length])].into();
    let reply = Reply { status: StatusCode::CREATED, headers: HeaderMap::new(), body, trailers: HeaderMap::new() };
    SettledRecord::new(claim.clone(), &Settlement::Completed(reply.into()), 5)
}

/// They differ in how long the name is to be kept: a constraint that had the time in it would let all of them in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_sessions_that_claim_a_name_at_once_one_owns_it() {
    let server = PostgresServer::start();
    server.sql(SCHEMA);
    let dialer = PostgresDialer::new(&address(&server, "postgres"));
    let mut sessions = Vec::new();
    for _ in 0..50 {
        let session = Session::open(&dialer, &dialer.servers()[0], "test", None).await.expect("a session");
        session.prepare().await.expect("the statements");
        sessions.push(Arc::new(session));
    }
    for _ in 0..20 {
        let name = format!("onlyonce:{}", name());
        let begin = Arc::new(tokio::sync::Barrier::new(sessions.len()));
        let claims = sessions.iter().zip(1..).map(|(session, token)| {
            let (session, begin, name) = (Arc::clone(session), Arc::clone(&begin), name.clone());
            tokio::spawn(async move {
                let terms = Terms { retention: HOUR * token.into(), ..RETRY };
                let claim = codec::encode_claim(&claim(token, terms));
                begin.wait().await;
                let lives = call::millis(terms.retention);
                let deadline = Instant::now() + PATIENCE;
                let rows = session.ask(|all| &all.claim, &[&name, &claim, &lives], deadline).await.expect("an answer");
                // The first column is empty for the owner, and there is no row for one who came too late to see it.
                rows.first().is_some_and(|row| row.get::<_, Option<&[u8]>>(0).is_none()).then_some(claim)
            })
        });
        let mut owners = Vec::new();
        for claimed in claims.collect::<Vec<_>>() {
            owners.extend(claimed.await.expect("no panic"));
        }
        let [owner] = &owners[..] else { panic!("{} owners", owners.len()) };
        let kept = "SELECT record FROM onlyonce.records WHERE name = $1";
        let kept = sessions[0].client().query(kept, &[&name]).await.expect("an answer");
        let kept: Vec<Vec<u8>> = kept.iter().map(|row| row.get(0)).collect();
        assert_eq!(kept, [&owner[..]]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_has_one_owner_and_what_is_expired_is_swept() {
    let server = Arc::new(PostgresServer::start());
    // Two sidecars, which start at once on an empty database. Sessions are opened as calls meet.
    let of = address(&server, "postgres");
    let configured = StoreConfig { digest_key: None, ..config() };
    let (one, other) = tokio::join!(open_with(&of, &configured), open_with(&of, &configured));
    assert_eq!(one.digest_key().expect("a key"), other.digest_key().expect("a key"));
    until("claims may be made", async || one.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
    until("claims may be made", async || other.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;

    // 50 calls at once that want one name, over the sessions of both.
    for _ in 0..10 {
        let name = name();
        let claims = (1..=50).map(|token| {
            let (store, name) = (if token % 2 == 0 { one.clone() } else { other.clone() }, name.clone());
            let terms = Terms { retention: HOUR * token.into(), ..RETRY };
            tokio::spawn(async move { store.claim(&name, &claim(token, terms)).await })
        });
        let mut owners = Vec::new();
        for claimed in claims.collect::<Vec<_>>() {
            match claimed.await.expect("no panic").expect("an answer") {
                Claimed::Granted(claim) => owners.push(claim.token),
                Claimed::Refused(held) => assert_eq!(held.record.claim.attempt, 1),
            }
        }
        assert_eq!(owners.len(), 1, "{owners:?}");
        let found = one.find(&name).await.expect("an answer").expect("a record");
        assert_eq!(found.record.claim.token, owners[0]);
    }

    // Two sessions that take over one expired row, while it is there.
    let expired = name();
    let short = Terms { retention: Duration::from_millis(50), ..RETRY };
    one.claim(&expired, &claim(1, short)).await.expect("an answer");
    until("it expires", async || one.find(&expired).await.expect("an answer").is_none()).await;
    assert_ne!(server.sql(&format!("SELECT count(*) FROM onlyonce.records WHERE name = 'onlyonce:{expired}'")), "0");
    let mine = [claim(2, RETRY), claim(3, RETRY)];
    let both = tokio::join!(one.claim(&expired, &mine[0]), other.claim(&expired, &mine[1]));
    let granted = [both.0, both.1].into_iter().filter(|claimed| matches!(claimed, Ok(Claimed::Granted(_)))).count();
    assert_eq!(granted, 1);

    // Rows are narrow: a body that is not short lies apart, in a partition, and is read from there.
    for length in [10, 5_000, 300_000] {
        let (name, mine) = (name(), claim(4, RETRY));
        one.claim(&name, &mine).await.expect("an answer");
        assert_eq!(one.settle(&name, &large(&mine, length)).await.expect("an answer"), Settled::Written);
        let widest = server.sql("SELECT max(length(record)) FROM onlyonce.records");
        assert!(widest.parse::<usize>().expect("a number") < 1500, "{widest}");
        let record = other.find(&name).await.expect("an answer").expect("a record").record;
        let crate::record::State::Completed { reply, .. } = &record.state else { panic!("{record:?}") };
        let whole = match StoredBody::of(&other, &name, &reply.body).await.expect("a body") {
            Some(body) => body.rest().await.expect("all of it").concat(),
            None => reply.body.pieces().concat(),
        };
        assert_eq!(whole.len(), length);
    }
    let partitions = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'onlyonce.bodies'::regclass";
    let before: i32 = server.sql(partitions).parse().expect("a number");
    assert!(before > 0, "{before}");

    // Only what is over for an hour goes.
    server.sql(
        "INSERT INTO onlyonce.records SELECT 'onlyonce:old:' || n, '\\x02', clock_timestamp() - interval '3 hours',
           floor(extract(epoch FROM clock_timestamp()) / 3600)::int - 3 FROM generate_series(1, 1200) AS n;
         INSERT INTO onlyonce.records VALUES ('onlyonce:new', '\\x02', clock_timestamp() - interval '1 minute',
           ceil(extract(epoch FROM clock_timestamp()) / 3600)::int);
         SELECT onlyonce.make_partition(clock_timestamp() - interval '1 day')",
    );
    let primary = one.shared.link.state().expect("a primary");
    while sweep::round(&primary).await {}
    assert_eq!(server.sql("SELECT count(*) FROM onlyonce.records WHERE name LIKE 'onlyonce:old:%'"), "0");
    assert_eq!(server.sql("SELECT count(*) FROM onlyonce.records WHERE name = 'onlyonce:new'"), "1");
    assert_eq!(server.sql(partitions), before.to_string());
}

/// An operator completes what an owner may be settling: each body is the right one, and none is in a row.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_was_given_by_hand_lies_apart_and_is_not_taken_for_the_owner_s() {
    let server = Arc::new(PostgresServer::start());
    let store = open(&server).await;
    until("claims may be made", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
    let of = |mine: &Claim, byte: u8, length: usize| {
        let body = vec![Bytes::from(vec![byte; length])].into();
        let reply = Reply { status: StatusCode::CREATED, headers: HeaderMap::new(), body, trailers: HeaderMap::new() };
        SettledRecord::new(mine.clone(), &Settlement::Completed(reply.into()), 5)
    };
    let body_of = async |name: &RecordName| {
        let record = store.find(name).await.expect("an answer").expect("a record").record;
        let crate::record::State::Completed { reply, .. } = &record.state else { panic!("{record:?}") };
        match StoredBody::of(&store, name, &reply.body).await.expect("a body") {
            Some(body) => body.rest().await.expect("all of it").concat(),
            None => reply.body.pieces().concat(),
        }
    };
    let widest = || server.sql("SELECT max(length(record)) FROM onlyonce.records").parse::<usize>().expect("a number");
    let mine = claim(1, Terms { lease: Duration::ZERO, on_unknown: UnknownPolicy::Hold(HOUR), ..RETRY });
    for length in [10, 5_000, 1024 * 1024] {
        let name = name();
        store.claim(&name, &mine).await.expect("an answer");
        let seen = store.find(&name).await.expect("an answer").expect("a record");
        let swap = CompareAndSwap { seen: seen.seen(), to: Some(of(&mine, b'h', length)) };
        assert_eq!(store.compare_and_swap(&name, &swap).await.expect("an answer"), SwapResult::Done);
        assert!(body_of(&name).await == vec![b'h'; length], "{length}");
        // The owner comes back with an outcome that looks the same from outside. It is not what is kept.
        let own = of(&mine, b'o', length);
        let Settled::Kept(kept) = store.settle(&name, &own).await.expect("an answer") else { panic!("{length}") };
        assert!(*kept != *own, "{length}");
        assert!(body_of(&name).await == vec![b'h'; length], "{length}");
        assert!(widest() < 1500, "{}", widest());
    }

    // The owner is first: its body stays, and that of the exchange is of no record, and expires.
    let name = name();
    store.claim(&name, &mine).await.expect("an answer");
    let seen = store.find(&name).await.expect("an answer").expect("a record");
    assert_eq!(store.settle(&name, &of(&mine, b'o', 70_000)).await.expect("an answer"), Settled::Written);
    let swap = CompareAndSwap { seen: seen.seen(), to: Some(of(&mine, b'h', 70_000)) };
    let swapped = store.compare_and_swap(&name, &swap).await.expect("an answer");
    assert!(matches!(swapped, SwapResult::Changed(Some(_))), "{swapped:?}");
    assert!(body_of(&name).await == vec![b'o'; 70_000]);
    assert_eq!(store.settle(&name, &of(&mine, b'o', 70_000)).await.expect("an answer"), {
        Settled::Kept(Box::new((*of(&mine, b'o', 70_000)).clone()))
    });
    const ENDLESS: &str =
        "SELECT count(*) FROM onlyonce.bodies WHERE expires_at > clock_timestamp() + interval '3 hours'";
    assert_eq!(server.sql(ENDLESS), "0", "all of them expire with their partition");
}

/// The rights that are printed are enough, and the owner's are not needed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_with_the_rights_that_are_printed_can_do_everything() {
    let server = Arc::new(PostgresServer::start());
    server.sql(
        "REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC;
         CREATE ROLE sidecar LOGIN; CREATE ROLE \"Dash-board\" LOGIN",
    );
    let of = address(&server, "sidecar");

    // Nothing is there, and it may not make it.
    let store = Postgres::open(&of, &config(), HOUR);
    let why = store.tried().await.expect_err("no tables");
    assert!(matches!(*why, PostgresError::NoTables), "{why}");
    assert!(matches!(Postgres::init(&of, None).await, Err(PostgresError::NoTables)));
    assert!(matches!(store.claim(&name(), &claim(1, RETRY)).await, Err(StoreError::Refused(_))));

    // It lacks some rights.
    let owner = address(&server, "postgres");
    assert!(Postgres::init(&owner, Some("Dash-board")).await.expect("made"));
    assert!(!Postgres::init(&owner, None).await.expect("there"));
    server.sql("GRANT USAGE ON SCHEMA onlyonce TO sidecar; GRANT SELECT ON ALL TABLES IN SCHEMA onlyonce TO sidecar");
    until("its rights are looked at", async || match store.shared.link.state() {
        Err(why) => matches!(&*why, PostgresError::Rights(lacking) if lacking.len() == 11),
        Ok(_) => false,
    })
    .await;

    // It comes up by itself when it has them.
    server.sql(&grants("sidecar"));
    store.ready(PATIENCE).await.unwrap_or_else(|why| panic!("{why}"));
    let subject = Subject::new(Arc::new(store.clone()), server.clone());
    conformance::every_move_from_every_state(&subject).await;
    conformance::replies_come_back_as_they_were(&subject).await;
    conformance::operators_move_every_state(&subject).await;
    assert!(store.shared.link.state().is_ok());
    let primary = store.shared.link.state().expect("a primary");
    server.sql("SELECT onlyonce.make_partition(clock_timestamp() - interval '1 day')");
    while sweep::round(&primary).await {}
    let old = "SELECT count(*) FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
               WHERE (substring(relname FROM '\\d+')::bigint + 1) * 6 * 3600 < extract(epoch FROM now()) - 7200";
    assert_eq!(server.sql(old), "0");
    open_with(&address(&server, "Dash-board"), &config()).await;
}

/// A role is added while sidecars work, and while something holds locks for long, as a dump does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_that_are_there_are_not_locked_when_they_are_made_again() {
    let server = PostgresServer::start();
    server.sql("CREATE ROLE owner LOGIN; CREATE SCHEMA onlyonce AUTHORIZATION owner; CREATE ROLE other LOGIN");
    // The schema is its own, and it may make no other.
    assert!(Postgres::init(&address(&server, "owner"), None).await.expect("made"));
    let holder = examine::primary(&PostgresDialer::new(&address(&server, "postgres")), 0).await.expect("a session");
    const HOLD: &str =
        "BEGIN; LOCK TABLE onlyonce.bodies IN ACCESS SHARE MODE; LOCK TABLE onlyonce.waiters IN ACCESS SHARE MODE;
                        LOCK TABLE onlyonce.records, onlyonce.notes IN ROW EXCLUSIVE MODE";
    holder.session.client().batch_execute(HOLD).await.expect("locks");
    let again = format!("{SCHEMA}{}", grants("other"));
    assert!(server.sql_within(&again, PATIENCE).is_some());
    assert!(!Postgres::init(&address(&server, "owner"), Some("other")).await.expect("there"));
    holder.session.client().batch_execute("ROLLBACK").await.expect("no locks");
    let store = open_with(&address(&server, "other"), &config()).await;
    until("claims are made", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_in_another_sidecar_is_notified() {
    let server = PostgresServer::start();
    let (one, other) = (open(&server).await, open(&server).await);
    let (waited, mine) = (name(), claim(1, RETRY));
    until("claims may be made", async || one.claim(&waited, &mine).await.is_ok()).await;

    let mut changes = other.subscribe(&waited, HOUR).expect("notices");
    // The beginning counts as a change, once the sign is there.
    until("a sign", async || server.sql("SELECT count(*) FROM onlyonce.waiters") == "1").await;
    tokio::time::timeout(PATIENCE, changes.changed()).await.expect("soon").expect("open");
    while tokio::time::timeout(Duration::from_millis(200), changes.changed()).await.is_ok() {}
    // Nobody waits for this one.
    let unnoticed = name();
    one.claim(&unnoticed, &claim(2, RETRY)).await.expect("an answer");
    one.settle(&unnoticed, &completed(&claim(2, RETRY), b"{}")).await.expect("an answer");
    assert_eq!(one.settle(&waited, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
    tokio::time::timeout(PATIENCE, changes.changed()).await.expect("a notice").expect("open");
}
