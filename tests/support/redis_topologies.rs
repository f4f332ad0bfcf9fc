//! Several redis-servers that belong together: a primary with a replica and three sentinels, and a cluster.

// Several crates of tests include this file, and none uses all of it.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::redis_server::{REDIS, REDIS_6_2, ReservedPort, program_of};

/// A slow machine must not make a test fail.
const PATIENCE: Duration = Duration::from_secs(60);

/// One process of a topology. Killed when dropped.
pub struct Node {
    child: Child,
    port: ReservedPort,
    /// Where it speaks TLS, too.
    tls: Option<ReservedPort>,
    program: PathBuf,
    arguments: Vec<String>,
}

/// The files that a server speaks TLS with: its certificate, its key, and the authority's certificate.
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub authority: PathBuf,
}

impl TlsFiles {
    /// Settings of a server, or of a sentinel, that speaks TLS with all others.
    fn settings(&self, port: &ReservedPort) -> Vec<(&'static str, String)> {
        let shown = |path: &Path| path.display().to_string();
        vec![
            ("tls-port", port.number().to_string()),
            ("tls-cert-file", shown(&self.certificate)),
            ("tls-key-file", shown(&self.key)),
            ("tls-ca-cert-file", shown(&self.authority)),
            ("tls-auth-clients", "no".to_owned()),
            ("tls-replication", "yes".to_owned()),
        ]
    }
}

impl Node {
    fn start(program: &str, port: ReservedPort, tls: Option<ReservedPort>, arguments: Vec<String>) -> Self {
        let program = program_of(program);
        let mut node = Self { child: spawn(&program, &arguments), port, tls, program, arguments };
        node.wait_until_up();
        node
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where others, and clients, come: in TLS, if that is spoken.
    pub fn public_port(&self) -> u16 {
        self.tls.as_ref().unwrap_or(&self.port).number()
    }

    /// Kills it at once, with SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Starts it again, on the same port and with the same arguments, after [`kill`](Self::kill).
    pub fn restart(&mut self) {
        self.child = spawn(&self.program, &self.arguments);
        self.wait_until_up();
    }

    /// Freezes it: connections stay open without an answer.
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("the server is running");
    }

    /// Continues it.
    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("the server is running");
    }

    /// Sends a command; `None` if it does not answer.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> Option<T> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port())).expect("an address");
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2)).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout above zero");
        let mut command = redis::Cmd::new();
        command.arg(words);
        command.query(&mut connection).ok()
    }

    fn wait_until_up(&mut self) {
        let child = &mut self.child;
        let port = self.port.number();
        until("a server answers", || {
            assert!(child.try_wait().expect("it is our child").is_none(), "the server on {port} ended: see its output");
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, arguments: &[String]) -> Child {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error} (tests/run installs it)", program.display()))
}

/// Waits until this is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A primary, a replica of it, and three sentinels that watch both, under the name `orders`.
pub struct Sentinels {
    /// The first is the primary until the first failover.
    pub servers: [Node; 2],
    pub sentinels: [Node; 3],
    _folder: TempDir,
}

impl Sentinels {
    pub const MASTER: &str = "orders";

    /// Starts all of them. A primary counts as down after half a second.
    pub fn start() -> Self {
        Self::start_with(&[], "")
    }

    /// The same, with more options of both servers, and more lines in the configuration of each sentinel.
    pub fn start_with(options: &[&str], lines: &str) -> Self {
        Self::start_over(options, lines, None)
    }

    /// The same; where there are files for TLS, all of them speak it with each other.
    pub fn start_over(options: &[&str], lines: &str, tls: Option<&TlsFiles>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let tls_port = || tls.map(|_| ReservedPort::new());
        let settings = |port: &Option<ReservedPort>| match (tls, port) {
            (Some(files), Some(port)) => files.settings(port),
            (_, _) => Vec::new(),
        };
        let server = |name: &str, more: &[String]| {
            let (port, tls_port) = (ReservedPort::new(), tls_port());
            let own = folder.path().join(name);
            fs::create_dir(&own).expect("a writable folder");
            let mut arguments: Vec<String> = ["--port", &port.number().to_string(), "--bind", "127.0.0.1", "--dir"]
                .into_iter()
                .map(str::to_owned)
                .chain([own.display().to_string()])
                .collect();
            let fixed =
                ["--save", "", "--appendonly", "no", "--loglevel", "warning", "--repl-diskless-sync-delay", "0"];
            arguments.extend(fixed.iter().chain(options).map(|&option| option.to_owned()));
            arguments.extend(settings(&tls_port).into_iter().flat_map(|(name, value)| [format!("--{name}"), value]));
            arguments.extend_from_slice(more);
            Node::start(REDIS, port, tls_port, arguments)
        };
        let primary = server("primary", &[]);
        let of: [String; 3] = ["--replicaof".to_owned(), "127.0.0.1".to_owned(), primary.public_port().to_string()];
        let replica = server("replica", &of);
        let sentinel = |name: &str| {
            let (port, tls_port) = (ReservedPort::new(), tls_port());
            let file = folder.path().join(format!("{name}.conf"));
            let (own, master) = (port.number(), Self::MASTER);
            let settings: String =
                settings(&tls_port).iter().map(|(name, value)| format!("{name} {value}\n")).collect();
            let text = format!(
                "port {own}\nbind 127.0.0.1\nloglevel warning\ndir {dir}\n{settings}\
                 sentinel monitor {master} 127.0.0.1 {primary} 2\n\
                 sentinel down-after-milliseconds {master} 500\nsentinel failover-timeout {master} 3000\n{lines}\n",
                dir = folder.path().display(),
                primary = primary.public_port(),
            );
            fs::write(&file, text).expect("a writable folder");
            Node::start(REDIS, port, tls_port, vec![file.display().to_string(), "--sentinel".to_owned()])
        };
        let sentinels = [sentinel("first"), sentinel("second"), sentinel("third")];
        let whole = Self { servers: [primary, replica], sentinels, _folder: folder };
        whole.wait_until_whole();
        whole
    }

    /// `redis+sentinel://…/orders`
    pub fn url(&self) -> String {
        format!("redis+sentinel://{}", self.hosts())
    }

    /// What follows the scheme, and a user.
    pub fn hosts(&self) -> String {
        let hosts = self.sentinels.iter().map(|node| format!("127.0.0.1:{}", node.public_port()));
        format!("{}/{}", hosts.collect::<Vec<_>>().join(","), Self::MASTER)
    }

    /// Waits until every sentinel knows of the replica and of the other two.
    pub fn wait_until_whole(&self) {
        for sentinel in &self.sentinels {
            until("sentinels know of each other", || {
                let told: Option<std::collections::HashMap<String, String>> =
                    sentinel.ask(&["SENTINEL", "MASTER", Self::MASTER]);
                told.is_some_and(|told| told["num-slaves"] == "1" && told["num-other-sentinels"] == "2")
            });
        }
        until("the replica follows", || self.servers.iter().any(is_followed));
    }

    /// The port of the primary, as the sentinels have it.
    pub fn primary(&self) -> u16 {
        let told = |node: &Node| node.ask::<(String, u16)>(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", Self::MASTER]);
        self.sentinels.iter().find_map(told).expect("a sentinel answers").1
    }
}

fn is_followed(node: &Node) -> bool {
    let info: Option<String> = node.ask(&["INFO", "replication"]);
    info.is_some_and(|info| info.contains("role:master") && info.contains("state=online"))
}

/// A cluster: primaries, with one replica of each or none.
pub struct Cluster {
    /// The primaries as they were at the start, then their replicas in the same order, then nodes without slots.
    pub nodes: Vec<Node>,
    primaries: usize,
    replicas: usize,
    /// The buses between nodes.
    _buses: Vec<ReservedPort>,
    _folder: TempDir,
}

const SLOTS: u16 = 16384;

impl Cluster {
    /// Starts this number of primaries, with a replica of each if asked for. A node counts as down after a second.
    pub fn start(primaries: usize, has_replicas: bool) -> Self {
        Self::start_with(primaries, has_replicas, &[])
    }

    /// The same, with more options of all nodes.
    pub fn start_with(primaries: usize, has_replicas: bool, options: &[&str]) -> Self {
        Self::start_over(primaries, has_replicas, options, None)
    }

    /// The same; where there are files for TLS, all of them speak it with each other.
    pub fn start_over(primaries: usize, has_replicas: bool, options: &[&str], tls: Option<&TlsFiles>) -> Self {
        Self::of(REDIS, [primaries, if has_replicas { primaries } else { 0 }, 0], options, tls)
    }

    /// One of nodes of another version.
    pub fn start_other(program: &str, primaries: usize, has_replicas: bool) -> Self {
        Self::of(program, [primaries, if has_replicas { primaries } else { 0 }, 0], &[], None)
    }

    /// Primaries, and a node that serves no slot, and stays a primary whatever it serves later.
    pub fn start_with_newcomer(primaries: usize) -> Self {
        Self::of(REDIS, [primaries, 0, 1], &["--cluster-allow-replica-migration", "no"], None)
    }

    fn of(
        program: &str,
        [primaries, replicas, newcomers]: [usize; 3],
        options: &[&str],
        tls: Option<&TlsFiles>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (mut nodes, mut buses) = (Vec::new(), Vec::new());
        for index in 0..primaries + replicas + newcomers {
            let (port, bus, names_bus) = cluster_ports(program);
            let own = folder.path().join(index.to_string());
            fs::create_dir(&own).expect("a writable folder");
            let [number, bus_number] = [&port, &bus].map(|port| port.number().to_string());
            let mut arguments = vec!["--port".to_owned(), number, "--dir".to_owned(), own.display().to_string()];
            if names_bus {
                arguments.extend(["--cluster-port".to_owned(), bus_number]);
            }
            let fixed = [
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--loglevel",
                "warning",
                "--cluster-enabled",
                "yes",
                "--cluster-node-timeout",
                "1000",
                "--repl-diskless-sync-delay",
                "0",
            ];
            arguments.extend(fixed.iter().chain(options).map(|&option| option.to_owned()));
            let tls_port = tls.map(|_| ReservedPort::new());
            if let (Some(files), Some(tls_port)) = (tls, &tls_port) {
                let settings = files.settings(tls_port).into_iter().chain([("tls-cluster", "yes".to_owned())]);
                arguments.extend(settings.flat_map(|(name, value)| [format!("--{name}"), value]));
            }
            nodes.push(Node::start(program, port, tls_port, arguments));
            buses.push(bus);
        }
        let whole = Self { nodes, primaries, replicas, _buses: buses, _folder: folder };
        whole.join();
        whole
    }

    fn join(&self) {
        let first = &self.nodes[0];
        for (index, node) in self.nodes.iter().enumerate() {
            let () = node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).expect("an epoch");
        }
        for (index, node) in self.nodes[..self.primaries].iter().enumerate() {
            let share = |index: usize| usize::from(SLOTS) * index / self.primaries;
            // Redis 6.2 knows no ranges.
            let slots: Vec<String> = (share(index)..share(index + 1)).map(|slot| slot.to_string()).collect();
            let words = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str));
            let () = node.ask(&words.collect::<Vec<_>>()).expect("slots");
        }
        for (node, bus) in self.nodes.iter().zip(&self._buses).skip(1) {
            let (port, bus) = (node.public_port().to_string(), bus.number().to_string());
            let () = first.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).expect("a meeting");
        }
        let count = self.nodes.len();
        for node in &self.nodes {
            until("nodes know of each other", || {
                node.ask::<String>(&["CLUSTER", "NODES"]).is_some_and(|told| {
                    told.lines().count() == count && !told.contains("handshake") && !told.contains("disconnected")
                })
            });
        }
        let replicas = &self.nodes[self.primaries..self.primaries + self.replicas];
        for (primary, replica) in self.nodes.iter().zip(replicas) {
            until("a replica follows", || replica.ask::<()>(&["CLUSTER", "REPLICATE", &primary.id()]).is_some());
        }
        for primary in &self.nodes[..self.replicas] {
            until("a replica is in step", || is_followed(primary));
        }
        self.wait_until_ok();
    }

    /// `redis+cluster://…`, with the first two nodes.
    pub fn url(&self) -> String {
        format!("redis+cluster://{}", self.hosts())
    }

    /// What follows the scheme, and a user.
    pub fn hosts(&self) -> String {
        let hosts = self.nodes.iter().take(2).map(|node| format!("127.0.0.1:{}", node.public_port()));
        hosts.collect::<Vec<_>>().join(",")
    }

    /// Waits until every node that answers says that all slots are served.
    pub fn wait_until_ok(&self) {
        for node in &self.nodes {
            until("the cluster is ok", || match node.ask::<String>(&["CLUSTER", "INFO"]) {
                Some(told) => told.contains("cluster_state:ok") && told.contains("cluster_slots_fail:0"),
                None => true,
            });
        }
    }

    /// Waits until a replica of this node is in step with it.
    pub fn wait_until_followed(&self, node: usize) {
        until("a replica is in step", || is_followed(&self.nodes[node]));
    }

    /// The node that serves a slot, as a living node has it.
    pub fn owner(&self, slot: u16) -> usize {
        (0..self.nodes.len()).find_map(|node| self.owner_of(node, slot)).expect("the slot is served")
    }

    /// The node that serves a slot, as one node has it.
    pub fn owner_of(&self, node: usize, slot: u16) -> Option<usize> {
        let ranges = self.nodes[node].ask::<Vec<Vec<redis::Value>>>(&["CLUSTER", "SLOTS"])?;
        let as_range = |range: &Vec<redis::Value>| -> Option<(u16, u16, u16)> {
            let number = |value: &redis::Value| redis::from_redis_value_ref::<u16>(value).ok();
            let redis::Value::Array(node) = range.get(2)? else { return None };
            Some((number(&range[0])?, number(&range[1])?, number(node.get(1)?)?))
        };
        let port = ranges.iter().filter_map(as_range).find(|(first, last, _)| (*first..=*last).contains(&slot))?.2;
        self.nodes.iter().position(|node| node.port() == port)
    }

    /// Begins to move a slot: keys that are missing at one node are redirected to the other.
    pub fn begin_to_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, [source, target]) = (slot.to_string(), [from, to].map(|node| self.nodes[node].id()));
        let () = self.nodes[to].ask(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source]).expect("an answer");
        let () = self.nodes[from].ask(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target]).expect("an answer");
    }

    /// Moves the keys of a slot that there are.
    pub fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (slot, port) = (slot.to_string(), self.nodes[to].port().to_string());
        let keys: Vec<String> = self.nodes[from].ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]).expect("keys");
        if keys.is_empty() {
            return;
        }
        let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        words.extend(keys.iter().map(String::as_str));
        let _: String = self.nodes[from].ask(&words).expect("moved");
    }

    /// Says that the slot has moved.
    pub fn end_to_move(&self, slot: u16, to: usize) {
        let (slot, id) = (slot.to_string(), self.nodes[to].id());
        for node in std::iter::once(&self.nodes[to]).chain(&self.nodes) {
            // Replicas refuse the command.
            let _: Option<()> = node.ask(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        }
    }
}

/// The port of a node, and that of its bus. Redis 6.2 does not let it be chosen: it is the other one and 10,000.
fn cluster_ports(program: &str) -> (ReservedPort, ReservedPort, bool) {
    if program != REDIS_6_2 {
        return (ReservedPort::new(), ReservedPort::new(), true);
    }
    loop {
        let port = ReservedPort::new();
        if let Some(bus) = port.number().checked_add(10_000).and_then(ReservedPort::at) {
            return (port, bus, false);
        }
    }
}

impl Node {
    fn id(&self) -> String {
        self.ask(&["CLUSTER", "MYID"]).expect("a node of a cluster")
    }
}
