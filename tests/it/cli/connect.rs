//! `check --connect`: whether the store can be used, and what is wrong if it cannot.

use super::*;

#[test]
fn check_connects_to_the_store_where_it_is_told_to_and_prints_what_its_user_needs() {
    let mut redis = RedisServer::start();
    let config = |prefix: &str| format!("{}\n[store]\nurl = \"{}\"\nprefix = \"{prefix}\"\n", LEAST, redis.url());
    let (first, other) = (config("onlyonce"), config("shop"));
    let output = with_config(&first, &["check", "--connect"]);
    let told = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{told}{}", text(&output.stderr));
    assert!(told.contains(&format!("Redis at 127.0.0.1:{}: can be used", redis.port())), "{told}");
    for found in [
        "server Redis ",
        &format!(" at 127.0.0.1:{}, 0 replicas", redis.port()),
        "claims by one command: SET NX GET",
        "memory without a limit: nothing is evicted",
        "on disk nothing: a restart forgets all records. Set appendonly to yes",
    ] {
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(found), "{found}: {told}");
    }
    // As the documentation has it, and as it is enough.
    let lines: Vec<&str> = told.lines().filter(|line| line.starts_with("ACL SETUSER")).collect();
    assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= 80), "{lines:#?}");
    assert!(include_str!("../../../docs/redis.md").contains(&lines.join("\n")), "{lines:#?}");
    redis_cli(&redis, &lines.join("\n").replace("PASSWORD", "pw"));
    let user = first.replace("redis://", "redis://onlyonce:pw@");
    let told = text(&with_config(&user, &["check", "--connect"]).stdout);
    assert!(told.contains(&format!("Redis at 127.0.0.1:{}: can be used", redis.port())), "{told}");
    let output = with_config(&other, &["check", "--connect", "--format", "json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let acl = report["connection"]["acl"].as_str().expect("a line for the user");
    assert!(acl.contains("~shop:* ~{shop:*") && acl.contains("&shop:*") && !acl.contains("onlyonce:"), "{acl}");

    redis.kill();
    let output = with_config(&first, &["check", "--connect"]);
    let told = text(&output.stdout);
    assert_eq!(
        (output.status.code(), told.contains("cannot be used: Redis cannot be reached")),
        (Some(1), true),
        "{told}"
    );
    assert_eq!(told.matches(&format!("127.0.0.1:{}", redis.port())).count(), 1, "{told}");
    assert_eq!(told.matches("Connection refused").count(), 1, "{told}");
    let memory = format!("{LEAST}\n[store]\nurl = \"memory:\"\n");
    assert!(text(&with_config(&memory, &["check", "--connect"]).stdout).contains("memory: nothing to connect to"));
}

/// Has a Redis carry out these commands, one on each line.
fn redis_cli(redis: &RedisServer, commands: &str) {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", redis.port())).expect("a connection");
    stream
        .write_all(format!("{}\r\nQUIT\r\n", commands.replace('\n', "\r\n")).as_bytes())
        .expect("a server that reads");
    let mut told = String::new();
    stream.read_to_string(&mut told).expect("its answers");
    assert!(!told.contains('-'), "{told}");
}

#[test]
fn check_looks_at_the_folder_of_an_embedded_store_and_changes_nothing() {
    let folder = folder();
    let path = folder.path().join("data");
    let check = || {
        let config = format!("{LEAST}\n[store]\nurl = \"embedded:{}\"\n", path.display());
        let output = with_config(&config, &["check", "--connect"]);
        let told = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        (output.status.code(), told)
    };
    let (code, told) = check();
    assert!(code == Some(0) && told.contains("is not there yet: a start makes it"), "{told}");
    assert!(!path.exists());
    fs::write(&path, "a file").expect("a file");
    let (code, told) = check();
    assert!(code == Some(1) && told.contains("cannot be used: ") && told.contains("is not a folder"), "{told}");
    // The verdict is the last line.
    assert!(told.contains("failed (the store cannot be used): 1 route") && !told.contains("ok: "), "{told}");
    fs::remove_file(&path).expect("it is there");
    fs::create_dir(&path).expect("a folder");
    fs::write(path.join("photo.jpg"), "").expect("a file");
    let (code, told) = check();
    assert!(code == Some(1) && told.contains("is no store of onlyonce") && told.contains("photo.jpg"), "{told}");
    assert_eq!(fs::read_dir(&path).expect("a folder").count(), 1, "nothing is written");
}

#[test]
fn what_is_no_redis_is_called_so() {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let config = format!("{LEAST}\n[store]\nurl = \"redis://127.0.0.1:{port}/0\"\n");
    let output = with_config(&config, &["check", "--connect"]);
    let told = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        told.contains(&format!("Redis at 127.0.0.1:{port}: cannot be used: what answers there is no Redis")),
        "{told}"
    );
    assert!(!told.contains("Unexpected") && !told.contains("Parse error"), "{told}");
}

#[test]
fn a_password_that_cannot_be_read_is_not_told_as_a_store_that_cannot_be_reached() {
    // Nobody listens there: the password comes first.
    for (kind, url) in [("Redis", "redis://127.0.0.1:1/0"), ("PostgreSQL", "postgres://onlyonce@127.0.0.1:1/orders")] {
        for (file, why) in [("no/such/file", "No such file"), (".", "Is a directory")] {
            let config = format!("{LEAST}\n[store]\nurl = \"{url}\"\npassword = \"file:{file}\"\n");
            let told = text(&with_config(&config, &["check", "--connect"]).stdout);
            let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(
                told.contains(&format!("{kind} at 127.0.0.1:1: cannot be used: store.password cannot be read:")),
                "{told}"
            );
            assert!(told.contains(why) && !told.contains("cannot be reached"), "{told}");
        }
    }
}

#[test]
fn a_database_that_redis_does_not_have_is_named() {
    let alone = RedisServer::start_with(&["--databases", "4"]);
    let of_cluster = RedisServer::start_with(&["--cluster-enabled", "yes"]);
    for (redis, database) in [(&alone, 99), (&alone, 4), (&of_cluster, 1)] {
        let url = format!("{}/{database}", redis.url());
        let config = format!("{LEAST}\n[store]\nurl = \"{url}\"\n");
        let told = text(&with_config(&config, &["check", "--connect"]).stdout);
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        let named = format!("cannot be used: store.url names database {database}, which this server does not have");
        assert!(told.contains(&named) && !told.contains("ResponseError"), "{url}: {told}");
    }
    let last = format!("{LEAST}\n[store]\nurl = \"{}/3\"\n", alone.url());
    let told = text(&with_config(&last, &["check", "--connect"]).stdout);
    assert!(told.contains(": can be used"), "{told}");
}
