//! External programs, run to their end or during a test.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpgid, kill_process_group};

/// A server. Killed when dropped.
pub struct Peer {
    child: Child,
}

impl Peer {
    /// Starts it, and waits until it prints a line that begins with `ready`. Returns the rest of that line, trimmed:
    /// the port that the peer chose.
    pub fn start(command: &mut Command, ready: &'static str) -> (Self, String) {
        Self::once(command, move |line| line.strip_prefix(ready).map(|rest| rest.trim().to_owned()))
    }

    /// Starts it, and waits until it prints a line in which `find` finds its port.
    pub fn once(command: &mut Command, find: impl Fn(&str) -> Option<String> + Send + 'static) -> (Self, String) {
        let mut child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (sender, receiver) = mpsc::channel();
        // Drains the output after the line; ends with the peer.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some(port) = find(&line) {
                    let _ = sender.send(port);
                }
            }
        });
        let peer = Self { child };
        let said = receiver.recv_timeout(Duration::from_secs(60));
        (peer, said.unwrap_or_else(|_| panic!("it never said that it is ready: see its output above")))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may have ended already. Where it leads a group, its children go with it.
        let pid = Pid::from_child(&self.child);
        if getpgid(Some(pid)) == Ok(pid) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end, without blocking the runtime of the test.
pub async fn run(mut command: Command) -> Output {
    let running = tokio::task::spawn_blocking(move || {
        let child = spawn(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        child.wait_with_output().expect("it is our child")
    });
    running.await.expect("no panic")
}

/// The same for one that must succeed. Returns its output.
pub async fn printed(command: Command) -> String {
    let shown = format!("{command:?}");
    let output = run(command).await;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// A script in this folder, with a Python that has the packages of `requirements.txt`.
pub fn python(script: &str) -> Command {
    let mut command = Command::new(built("peers-python/bin/python"));
    command.arg("-u").arg(beside(script));
    command
}

/// The folder in which `tests/run` installs programs.
pub fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the folder of builds").join(name)
}

/// A file of this folder.
pub fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

fn spawn(command: &mut Command) -> Child {
    command.spawn().unwrap_or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => panic!("{command:?} is not there: run tests/run, which installs it"),
        _ => panic!("{command:?} does not start: {error}"),
    })
}
