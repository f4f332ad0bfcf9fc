//! The cost of a request: round trips, commands, memory.

use super::*;

#[tokio::test]
async fn round_trips_are_few() {
    let server = RedisServer::start();
    let turns = Turns::before(&server).await;
    for habits in [NO_PING, ConnectionOptions { scripts_only: true, ..NO_PING }] {
        let store = open(turns.port, habits).await;
        let (first, again) = (claim(1, RETRY), claim(2, RETRY));
        turns.taken();

        let settled = name();
        store.claim(&settled, &first).await.expect("granted");
        assert_eq!(turns.taken(), 1, "a claim");
        store.settle(&settled, &completed(&first, b"{}")).await.expect("settled");
        assert_eq!(turns.taken(), 1, "a settling");
        store.claim(&settled, &again).await.expect("refused");
        assert_eq!(turns.taken(), 1, "a replay");

        let flying = name();
        store.claim(&flying, &first).await.expect("granted");
        turns.taken();
        store.claim(&flying, &again).await.expect("refused");
        assert_eq!(turns.taken(), 2, "in flight");
        let mut other = again.clone();
        other.fingerprint.target = [9; 16];
        store.claim(&flying, &other).await.expect("refused");
        assert_eq!(turns.taken(), 1, "another request under the same key");
        store.renew(&flying, &first).await.expect("extended");
        store.find(&flying).await.expect("found");
        store.release(&flying, first.token).await.expect("released");
        assert_eq!(turns.taken(), 3, "a renewal, a look-up and a release");

        let apart = name();
        store.claim(&apart, &first).await.expect("granted");
        store.settle(&apart, &large(&first)).await.expect("settled");
        // The chunks are one pipeline. The server replies to it while the rest is being sent.
        turns.taken();
        let body = apart_body(&store, &apart).await;
        assert_eq!(turns.taken(), 1, "whoever needs no body");
        let chunks = body.cut.count();
        let body = StoredBody::open(&store, &apart, body).await.expect("a body");
        assert_eq!(turns.taken(), 0, "nothing is asked for that is not wanted yet");
        body.rest().await.expect("all of it");
        assert_eq!(turns.taken() as u64, chunks, "a large replay");

        let lost = name();
        store.claim(&lost, &claim(1, LOST)).await.expect("granted");
        turns.taken();
        store.claim(&lost, &again).await.expect("granted");
        assert_eq!(turns.taken(), 3, "a takeover");
    }
}

/// The commands that clients send to the server, one on each line. Commands of scripts are left out.
pub(super) struct Monitor(BufReader<TcpStream>);

impl Monitor {
    pub(super) async fn start(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
        stream.write_all(b"MONITOR\r\n").await.expect("asked");
        let mut monitor = Self(BufReader::new(stream));
        assert_eq!(monitor.line().await, "+OK");
        monitor
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.expect("a line");
        line.trim_end().to_owned()
    }

    /// The names of the commands since the last call.
    pub(super) async fn commands(&mut self, port: u16) -> Vec<String> {
        // A cluster node may not own this name. The monitor shows the command anyway.
        let _: ::redis::Value = admin(&format!("redis://127.0.0.1:{port}"), &[b"ECHO", b"marker"]).await;
        let mut commands = Vec::new();
        loop {
            let line = self.line().await;
            if line.contains("\"marker\"") {
                return commands;
            }
            let name = line.split('"').nth(1).expect("a command").to_owned();
            if !line.contains(" lua] ") && !["HELLO", "CLIENT", "CLUSTER"].contains(&name.as_str()) {
                commands.push(name);
            }
        }
    }
}

#[tokio::test]
async fn a_first_request_is_two_commands_and_a_replay_is_one() {
    let server = RedisServer::start();
    let store = open(server.port(), NO_PING).await;
    let mut monitor = Monitor::start(server.port()).await;
    let (settled, released, mine) = (name(), name(), claim(1, RETRY));
    store.claim(&settled, &mine).await.expect("granted");
    store.settle(&settled, &completed(&mine, b"{}")).await.expect("settled");
    assert_eq!(monitor.commands(server.port()).await, ["SET", "EVALSHA"]);
    store.claim(&settled, &claim(2, RETRY)).await.expect("refused");
    assert_eq!(monitor.commands(server.port()).await, ["SET"]);
    store.claim(&released, &mine).await.expect("granted");
    store.release(&released, mine.token).await.expect("released");
    assert_eq!(monitor.commands(server.port()).await, ["SET", "EVALSHA"]);
}

#[tokio::test]
async fn what_every_request_asks_is_small_while_it_waits() {
    let server = RedisServer::start();
    let store = Arc::new(open(server.port(), NO_PING).await);
    let (any, name, mine) = (crate::store::AnyStore::Redis(store), name(), claim(1, RETRY));
    let record = completed(&mine, b"{}");
    let sizes = [std::mem::size_of_val(&any.claim(&name, &mine)), std::mem::size_of_val(&any.settle(&name, &record))];
    assert!(sizes.iter().all(|size| *size <= 1400), "{sizes:?}");
}
