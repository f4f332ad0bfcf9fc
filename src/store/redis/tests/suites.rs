//! The suite of all stores, on each kind of server.

use super::*;

mod natively {
    use super::*;

    async fn natively() -> Subject {
        subject(ConnectionOptions::default()).await
    }

    conformance::suite!(natively);
}

mod by_script {
    use super::*;

    async fn by_script() -> Subject {
        subject(BY_SCRIPT).await
    }

    conformance::suite!(by_script);
}

mod encrypted {
    use super::*;

    async fn encrypted() -> Subject {
        let encryption_keys = vec![config::SecretKey::new([1; 32]), config::SecretKey::new([2; 32])];
        let config = config::StoreConfig { encryption_keys, ..config() };
        subject_with(RedisServer::start(), &config, ConnectionOptions::default()).await
    }

    conformance::suite!(encrypted);
}

/// The examiner tries each feature, and does not derive it from the version.
mod on_redis_6_2 {
    use super::*;

    async fn redis_6_2() -> Subject {
        subject_on(RedisServer::start_other(REDIS_6_2), ConnectionOptions::default()).await
    }

    conformance::suite!(whole redis_6_2);

    #[tokio::test]
    #[ignore = "tests/run --all"]
    async fn claims_are_made_by_script_with_the_rights_that_are_printed() {
        claims_as_a_user(&RedisServer::start_other(REDIS_6_2), AcquireMethod::ByScript).await;
    }
}

mod on_valkey_9 {
    use super::*;

    async fn valkey_9() -> Subject {
        subject_on(RedisServer::start_other(VALKEY_9), ConnectionOptions::default()).await
    }

    conformance::suite!(whole valkey_9);

    #[tokio::test]
    #[ignore = "tests/run --all"]
    async fn claims_are_made_natively_with_the_rights_that_are_printed() {
        claims_as_a_user(&RedisServer::start_other(VALKEY_9), AcquireMethod::Natively).await;
    }
}

async fn claims_as_a_user(server: &RedisServer, method: AcquireMethod) {
    order(server, &format!("ACL SETUSER sidecar on >pw {}", AclRule::of(&config()))).await;
    let store = as_user(server, "sidecar").await;
    store.ready(PATIENCE).await.expect("a connection");
    assert_eq!(link(&store).connected().expect("a connection").acquire, method);
    let (name, mine) = (name(), claim(1, RETRY));
    assert_eq!(store.claim(&name, &mine).await.expect("an answer"), Claimed::Granted(mine.clone()));
    order(server, "SCRIPT FLUSH").await;
    assert_eq!(store.settle(&name, &completed(&mine, b"{}")).await.expect("an answer"), Settled::Written);
    let replayed = store.claim(&name, &claim(2, RETRY)).await.expect("an answer");
    assert!(matches!(replayed, Claimed::Refused(held) if held.record == completed(&mine, b"{}")));
}
