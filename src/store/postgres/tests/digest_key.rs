//! The agreement of sidecars on one digest key.

use super::*;
use crate::config::Secret;

const FORGET: &str = "DELETE FROM onlyonce.notes WHERE name = 'onlyonce:digest-key'";

fn with_key(secret: Option<&str>) -> StoreConfig {
    StoreConfig { digest_key: secret.map(Secret::new), ..config() }
}

fn key(store: &Postgres) -> DigestKey {
    store.digest_key().expect("a key")
}

/// Waits until `new` claims. By then, `old` uses the same key, or claims nothing.
async fn claims_beside(new: &Postgres, old: &Postgres) {
    until("claims are made", async || {
        let claimed = new.claim(&name(), &claim(1, RETRY)).await;
        assert!(matches!(claimed, Ok(_) | Err(StoreError::Refused(_))), "{claimed:?}");
        claimed.is_ok()
    })
    .await;
    let agreed = key(old) == key(new);
    let claimed = old.claim(&name(), &claim(1, RETRY)).await;
    assert!(agreed || claimed.is_err(), "{claimed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_founds_a_store_alone_waits_for_nobody_and_neither_do_those_who_follow() {
    let server = PostgresServer::start();
    let mut stores = Vec::new();
    for _ in 0..3 {
        let store = open_with(&address(&server, "postgres"), &with_key(None)).await;
        store.claim(&name(), &claim(1, RETRY)).await.expect("granted at once");
        stores.push(store);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_loss_two_sidecars_never_claim_under_different_keys() {
    let server = PostgresServer::start();
    let old = open_with(&address(&server, "postgres"), &with_key(None)).await;
    for _ in 0..2 {
        server.sql(FORGET);
        // It starts before the other sidecar has noticed the loss.
        let new = open_with(&address(&server, "postgres"), &with_key(None)).await;
        claims_beside(&new, &old).await;
        until("the other claims as well", async || old.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
        assert_eq!(key(&old), key(&new));
    }
}

/// One of them replaces the note, and the other finds it replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecars_that_start_together_with_a_new_key_wait_for_those_with_the_old_one() {
    let server = PostgresServer::start();
    let old = open_with(&address(&server, "postgres"), &with_key(Some("old"))).await;
    old.claim(&name(), &claim(1, RETRY)).await.expect("granted at once");
    // Each starts before the old one has looked again.
    let first = open_with(&address(&server, "postgres"), &with_key(Some("new"))).await;
    let second = open_with(&address(&server, "postgres"), &with_key(Some("new"))).await;
    tokio::join!(claims_beside(&second, &old), claims_beside(&first, &old));
    until(
        "the old one says why",
        async || matches!(old.shared.link.state(), Err(why) if matches!(*why, PostgresError::DigestKeyReplaced(_))),
    )
    .await;

    // Whoever has the old key once more takes its place again, and nobody claims under both.
    let again = open_with(&address(&server, "postgres"), &with_key(Some("old"))).await;
    tokio::join!(claims_beside(&again, &first), claims_beside(&old, &second));
}

/// A look writes the note that is missing, and then fails. The next look finds the note.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loss_that_is_noticed_by_a_look_that_fails_is_counted_by_the_next_one() {
    let server = PostgresServer::start();
    let store = open_with(&address(&server, "postgres"), &with_key(None)).await;
    let first = key(&store);
    // The note is written, and its age cannot be changed.
    server.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON onlyonce.notes EXECUTE FUNCTION refuse()",
    );
    server.sql(FORGET);
    const NOTES: &str = "SELECT count(*) FROM onlyonce.notes WHERE name = 'onlyonce:digest-key'";
    until("it is written again", async || server.sql(NOTES) == "1").await;
    server.sql("DROP TRIGGER refuse ON onlyonce.notes");
    until("it is counted", async || store.losses() > 0).await;
    until("claims are made", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
    assert_eq!((store.losses(), key(&store)), (1, first));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_only_looks_leaves_the_digest_key_as_it_is() {
    let server = PostgresServer::start();
    server.sql(SCHEMA);
    let look = |secret: Option<&str>| {
        let options = PostgresOptions { is_read_only: true, ..PostgresOptions::default() };
        Postgres::open_with(&address(&server, "postgres"), &with_key(secret), options)
    };
    let looks = look(None);
    looks.ready(PATIENCE).await.unwrap_or_else(|why| panic!("{why}"));
    assert!(looks.digest_key().is_err(), "there is none");
    let store = open_with(&address(&server, "postgres"), &with_key(None)).await;
    let looks = [look(None), look(Some("another key"))];
    for looks in &looks {
        looks.ready(PATIENCE).await.unwrap_or_else(|why| panic!("{why}"));
    }
    assert_eq!(key(&looks[0]), key(&store));
    assert_eq!(key(&looks[1]), DigestKey::from_secret("another key"));
    until("claims are made", async || store.claim(&name(), &claim(1, RETRY)).await.is_ok()).await;
    assert_eq!((store.health(), store.losses()), (Health::Up, 0));
}
