//! A real PostgreSQL server for one test.

// Several crates of tests include this file, and none uses all of it.
#![allow(dead_code, unreachable_pub)]

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use super::redis_server::ReservedPort;

/// Stopped, and its folder deleted, when dropped: nothing of it is left, no shared memory either. Its superuser is `postgres`, who needs no password on loopback.
pub struct PostgresServer {
    child: Child,
    port: ReservedPort,
    options: Vec<String>,
    /// Of the server alone, and the data in it.
    folder: TempDir,
}

/// Longer than any start or shutdown takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

impl PostgresServer {
    /// Starts a server whose data survives it, and not the machine, and waits until it answers.
    pub fn start() -> Self {
        Self::start_with(&["fsync=off"])
    }

    /// The same, with these settings, as `name=value`.
    pub fn start_with(settings: &[&str]) -> Self {
        let folder = folder();
        copy(TEMPLATE.as_path(), &folder.path().join("data"));
        Self::serve(folder, settings)
    }

    /// The same, with this certificate and key. It takes sessions without TLS as well.
    pub fn start_over_tls(certificate: &str, key: &str) -> Self {
        let folder = folder();
        copy(TEMPLATE.as_path(), &folder.path().join("data"));
        for (name, text) in [("server.crt", certificate), ("server.key", key)] {
            let path = folder.path().join("data").join(name);
            fs::write(&path, text).expect("a writable folder");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
            give(&path);
        }
        Self::serve(folder, &["fsync=off", "ssl=on"])
    }

    /// The same, with everything in a new folder of this one.
    pub fn start_in(parent: &Path, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir_in(parent).expect("a writable folder");
        give(folder.path());
        copy(TEMPLATE.as_path(), &folder.path().join("data"));
        Self::serve(folder, settings)
    }

    /// Puts these lines first in `pg_hba.conf`.
    pub fn let_in(&self, lines: &[&str]) {
        let path = self.folder.path().join("data/pg_hba.conf");
        let rest = fs::read_to_string(&path).expect("pg_hba.conf");
        fs::write(&path, format!("{}\n{rest}", lines.join("\n"))).expect("a writable folder");
        self.reload();
    }

    /// A standby of this server, with its data as it is now.
    pub fn start_standby(&self, settings: &[&str]) -> Self {
        let folder = folder();
        let data = folder.path().join("data");
        let mut backup = program("pg_basebackup");
        backup.args([
            "--host=127.0.0.1",
            "--username=postgres",
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
        ]);
        backup.arg(format!("--port={}", self.port())).arg("--pgdata").arg(&data);
        run(backup);
        Self::serve(folder, settings)
    }

    fn serve(folder: TempDir, settings: &[&str]) -> Self {
        let options: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        let port = ReservedPort::new();
        let child = spawn(&folder, port.number(), &options);
        let server = Self { child, port, options, folder };
        server.until_ready();
        server
    }

    /// Where it listens, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `postgres://postgres@127.0.0.1:port/postgres`
    pub fn url(&self) -> String {
        self.url_as("postgres")
    }

    /// The same as another user.
    pub fn url_as(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port())
    }

    /// The folder of its socket and its data.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs statements as the superuser, and returns what they return: a line for each row.
    pub fn sql(&self, statements: &str) -> String {
        let mut psql = Command::new(bin().join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]);
        psql.arg(self.url()).arg("--command").arg(statements);
        run(psql)
    }

    /// The same, within this time. `None`: it does not end, as where it waits.
    pub fn sql_within(&self, statements: &str, patience: Duration) -> Option<String> {
        let mut psql = Command::new("timeout");
        psql.arg(patience.as_secs_f64().to_string()).arg(bin().join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"]);
        let output =
            psql.arg(self.url()).arg("--command").arg(statements).output().expect("timeout and psql are there");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Kills all of its processes at once, with SIGKILL. What was not flushed is lost if the machine goes as well.
    pub fn kill(&mut self) {
        self.freeze();
        for process in self.processes() {
            let _ = kill_process(process, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    /// Starts it again on the same port, after [`kill`](Self::kill).
    pub fn restart(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            self.child = spawn(&self.folder, self.port(), &self.options);
            if self.is_ready(until) {
                return;
            }
            // A process of the last run is not gone yet.
            assert!(Instant::now() < until, "postgres does not start again: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it answers after it has crashed by itself. It is started again where it has given up.
    pub fn recover(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !accepts(self.port()) {
            if self.child.try_wait().expect("it is our child").is_some() {
                self.restart();
            }
            assert!(Instant::now() < until, "postgres does not recover: {}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops it as an operator does: sessions are ended, and everything is written.
    pub fn stop(&mut self) {
        self.signal(Signal::INT);
        self.child.wait().expect("it is our child");
    }

    /// Reads its settings again, after `ALTER SYSTEM`.
    pub fn reload(&self) {
        // The first process reads them some time after it is told to; sessions that begin later have its time.
        const LOADED: &str = "SELECT pg_conf_load_time()";
        let before = self.sql(LOADED);
        self.sql("SELECT pg_reload_conf()");
        let until = Instant::now() + PATIENCE;
        while self.sql(LOADED) == before {
            assert!(Instant::now() < until, "the settings are not read again");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes a primary of a standby.
    pub fn promote(&self) {
        assert_eq!(self.sql("SELECT pg_promote()"), "t", "{}", self.log());
    }

    /// Freezes it: connections stay open without an answer.
    pub fn freeze(&self) {
        // Not one process more comes once the first is frozen.
        self.signal(Signal::STOP);
        for process in self.processes() {
            let _ = kill_process(process, Signal::STOP);
        }
    }

    /// Continues it.
    pub fn thaw(&self) {
        for process in self.processes() {
            let _ = kill_process(process, Signal::CONT);
        }
    }

    /// Its segment of shared memory, which shows the next server in this folder whether one is still at work there.
    pub fn segment(&self) -> Option<u32> {
        // The seventh line is `key shmid`.
        let noted = fs::read_to_string(self.folder.path().join("data/postmaster.pid")).ok()?;
        noted.lines().nth(6)?.split_whitespace().nth(1)?.parse().ok()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the server is running");
    }

    /// The first process, and one for each session and each task. They are in groups of their own.
    fn processes(&self) -> Vec<Pid> {
        let first = self.child.id();
        let mut processes = vec![Pid::from_child(&self.child)];
        for entry in fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
            // `pid (name) state parent …`, and the name may hold anything.
            let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
            let parent = rest.split(' ').nth(1).and_then(|parent| parent.parse::<u32>().ok());
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if parent == Some(first) {
                processes.extend(id.and_then(Pid::from_raw));
            }
        }
        processes
    }

    fn until_ready(&self) {
        let until = Instant::now() + PATIENCE;
        while !accepts(self.port()) {
            assert!(Instant::now() < until, "postgres does not start: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether it accepts sessions, and did not end.
    fn is_ready(&mut self, until: Instant) -> bool {
        while Instant::now() < until {
            if self.child.try_wait().expect("it is our child").is_some() {
                return false;
            }
            if accepts(self.port()) {
                return true;
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // What a server that was killed has left is removed by its next start, or here.
        let segment = self.segment();
        // At once, without a checkpoint. A frozen process is told only when it continues.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal(Signal::QUIT);
            self.thaw();
        }
        let until = Instant::now() + PATIENCE;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > until {
                self.kill();
            }
            thread::sleep(Duration::from_millis(5));
        }
        if let Some(segment) = segment.filter(|&segment| is_shared(segment)) {
            let _ = Command::new("ipcrm").arg("-m").arg(segment.to_string()).status();
        }
    }
}

/// Whether the machine has this segment of shared memory.
pub fn is_shared(segment: u32) -> bool {
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    // `key shmid …`
    segments.lines().any(|line| line.split_whitespace().nth(1).is_some_and(|id| id.parse() == Ok(segment)))
}

/// A pgbouncer in front of a server. Killed when dropped.
pub struct Pooler {
    child: Child,
    port: ReservedPort,
    _folder: TempDir,
}

impl Pooler {
    /// Starts one with this `pool_mode`, and waits until it answers.
    pub fn start(server: &PostgresServer, mode: &str) -> Self {
        Self::start_with(server, mode, 30)
    }

    /// The same, with at most so many connections to the server.
    pub fn start_with(server: &PostgresServer, mode: &str, size: usize) -> Self {
        let (folder, port) = (folder(), ReservedPort::new());
        let path = folder.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\n",
            server.port(),
            port.number()
        );
        fs::write(&path, settings).expect("a writable folder");
        give(&path);
        let mut command = Command::new("pgbouncer");
        if let Some((user, group)) = *USER {
            command.uid(user).gid(group);
        }
        command
            .arg("--quiet")
            .arg(&path)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("pgbouncer is there: tests/run installs it");
        let pooler = Self { child, port, _folder: folder };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, pooler.port())).is_err() {
            assert!(Instant::now() < until, "pgbouncer does not start");
            thread::sleep(Duration::from_millis(20));
        }
        pooler
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The newest version that Debian's packages have installed.
fn bin() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    // A client alone makes a folder, too.
    let servers = versions.filter(|version| version.path().join("bin/postgres").exists());
    let newest = servers.filter_map(|version| version.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.expect("postgres is not there: tests/run installs it");
    format!("/usr/lib/postgresql/{newest}/bin").into()
}

/// The user that the server runs as: it refuses to be root.
static USER: LazyLock<Option<(u32, u32)>> = LazyLock::new(|| {
    if !geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(of("postgres").or_else(|| of("nobody")).expect("a user for the server"))
});

/// One of PostgreSQL's programs, as the user of the server.
fn program(name: &str) -> Command {
    let mut command = Command::new(bin().join(name));
    if let Some((user, group)) = *USER {
        command.uid(user).gid(group);
    }
    command.current_dir("/");
    command
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    give(folder.path());
    folder
}

/// Gives a file to the server.
fn give(path: &Path) {
    if let Some((user, group)) = *USER {
        chown(path, Some(user), Some(group)).expect("root may");
    }
}

/// A new database, made once for all tests on this machine.
static TEMPLATE: LazyLock<PathBuf> = LazyLock::new(|| {
    // Test programs are two folders below that of all builds.
    let own = std::env::current_exe().expect("a path");
    let builds = own.ancestors().nth(3).expect("the folder of builds");
    let version = bin().ancestors().nth(1).and_then(Path::file_name).expect("a version").to_owned();
    let template = builds.join("peers-postgres").join(version);
    if template.exists() {
        return template;
    }
    let folder = folder();
    let data = folder.path().join("data");
    let mut initdb = program("initdb");
    initdb
        .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "--pgdata"])
        .arg(&data);
    run(initdb);
    fs::create_dir_all(template.parent().expect("a folder")).expect("a writable folder");
    let made = tempfile::tempdir_in(template.parent().expect("a folder")).expect("a writable folder").keep();
    copy(&data, &made);
    // Another test program may have been faster.
    if fs::rename(&made, &template).is_err() {
        let _ = fs::remove_dir_all(&made);
    }
    template
});

/// Copies a folder with all that is in it, for the server.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a writable folder");
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).expect("it is ours");
    give(to);
    for entry in fs::read_dir(from).expect("a folder").flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().expect("a type").is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).expect("a writable folder");
            give(&to);
        }
    }
}

fn spawn(folder: &TempDir, port: u16, options: &[String]) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.path().join("log")).expect("a writable folder");
    let mut server = program("postgres");
    server.arg("-D").arg(folder.path().join("data")).arg("-p").arg(port.to_string());
    server.args(["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=16MB", "-c", "max_connections=60"]);
    // What sessions share is in the folder of the data, and goes with it.
    server.args(["-c", "dynamic_shared_memory_type=mmap"]);
    server.arg("-c").arg(format!("unix_socket_directories={}", folder.path().display()));
    for option in options {
        server.arg("-c").arg(option);
    }
    let errors = log.try_clone().expect("a file");
    server.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("postgres starts")
}

/// Whether it lets sessions in by now: not while it starts or recovers.
fn accepts(port: u16) -> bool {
    if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        return false;
    }
    let mut ready = program("pg_isready");
    ready.args(["--quiet", "--host=127.0.0.1", "--timeout=5"]).arg(format!("--port={port}"));
    ready.status().is_ok_and(|status| status.success())
}

/// Runs a program to its end, and returns what it prints.
fn run(mut command: Command) -> String {
    let output = command.output().expect("the program is there: tests/run installs it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {said}", command.get_program());
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
