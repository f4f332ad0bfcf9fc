//! `onlyonce top`: the figures in a terminal, and the terminal as it was afterwards.

use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use crate::support::*;

/// `onlyonce top` in a terminal of its own.
struct Terminal {
    child: Child,
    /// The side of the person who looks and types.
    person: OwnedFd,
    before: Termios,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Of 80 columns and 24 lines.
    fn start(admin: SocketAddr) -> Self {
        Self::of_width(80, admin, None)
    }

    fn of_width(columns: u16, admin: SocketAddr, variable: Option<(&str, &str)>) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&person).expect("it is ours");
        unlockpt(&person).expect("it is ours");
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&person, size).expect("a size");
        let name = ptsname(&person, Vec::new()).expect("a name").into_string().expect("UTF-8");
        let open = || File::options().read(true).write(true).open(&name).expect("its other side");
        let before = tcgetattr(&person).expect("how it is");
        // In a session of its own, whose terminal this is, so that Ctrl-C is a signal.
        let mut command = Command::new("setsid");
        command.args([
            "--ctty",
            "--wait",
            env!("CARGO_BIN_EXE_onlyonce"),
            "top",
            "--admin",
            &format!("http://{admin}"),
        ]);
        command.env_remove("ONLYONCE_CONFIG").env_remove("ONLYONCE_ADMIN_TOKEN").env_remove("NO_COLOR");
        command.envs(variable);
        let child = command
            .stdin(Stdio::from(open()))
            .stdout(Stdio::from(open()))
            .stderr(Stdio::from(open()))
            .spawn()
            .expect("setsid (util-linux)");
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, into) = (File::from(person.try_clone().expect("a file")), Arc::clone(&shown));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // A terminal whose programs have all ended cannot be read any more.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                into.lock().expect("no panic").extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, person, before, shown }
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("no panic")).into_owned()
    }

    async fn shows(&self, what: &str) {
        until(what, async || self.shown().contains(what)).await;
    }

    fn types(&self, keys: &[u8]) {
        rustix::io::write(&self.person, keys).expect("a terminal that reads");
    }

    /// Its exit status, and whether the terminal is as it was.
    async fn ends(&mut self) -> Option<i32> {
        let mut status = None;
        until("it ends", async || {
            status = self.child.try_wait().expect("our child");
            status.is_some()
        })
        .await;
        self.shows("\x1b[?25h\x1b[?1049l").await;
        let after = tcgetattr(&self.person).expect("how it is");
        assert_eq!(after.local_modes, self.before.local_modes);
        assert!(self.shown().ends_with("\x1b[?25h\x1b[?1049l"), "{:?}", self.shown());
        status.and_then(|status| status.code())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of the last whole picture, without its colours.
fn picture(shown: &str) -> Vec<String> {
    let pictures: Vec<&str> = shown.split("\x1b[H").collect();
    let whole = pictures.iter().rev().find(|picture| picture.contains("\x1b[J")).expect("a picture");
    let whole = whole.split("\x1b[J").next().unwrap_or_default();
    let plain =
        ["\x1b[K", "\x1b[1m", "\x1b[31m", "\x1b[m"].iter().fold(whole.to_owned(), |text, code| text.replace(code, ""));
    plain.split("\r\n").map(str::to_owned).collect()
}

async fn busy() -> (Backend, Sidecar) {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).start().await;
    sidecar.ask(&order("k")).await;
    assert!(sidecar.ask(&order("k")).await.is_replay());
    backend.then(vec![Step::Reset]);
    sidecar.ask(&order("lost")).await.refuses(502, "upstream-failed");
    (backend, sidecar)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_shows_what_happens_in_80_columns_and_24_lines() {
    let (_backend, sidecar) = busy().await;
    let mut terminal = Terminal::start(sidecar.admin);
    terminal.shows("1 NEEDS A HAND").await;
    sidecar.ask(&order("another")).await;
    until("the figures move", async || {
        picture(&terminal.shown()).iter().any(|line| line.starts_with("last hour  2 ran"))
    })
    .await;
    let lines = picture(&terminal.shown());
    assert!(lines.len() <= 24 && lines.iter().all(|line| line.chars().count() <= 80), "{lines:#?}");
    let row = lines.iter().find(|line| line.starts_with("orders ")).expect("its route");
    let cells: Vec<&str> = row.split_whitespace().take(8).collect();
    assert_eq!(cells, ["orders", "2", "1", "0", "0", "1", "0", "1"], "{row}");
    assert!(lines.iter().any(|line| line.starts_with("serving, store up, configuration in force")), "{lines:#?}");
    terminal.types(b"xq");
    assert_eq!(terminal.ends().await, Some(0));
    // What was typed was not shown.
    assert!(!terminal.shown().contains("xq"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_fits_40_columns_and_has_no_colours_where_none_are_wanted() {
    let (_backend, sidecar) = busy().await;
    let mut terminal = Terminal::of_width(40, sidecar.admin, Some(("NO_COLOR", "1")));
    terminal.shows("1 NEEDS A HAND").await;
    let lines: Vec<_> = picture(&terminal.shown()).iter().map(|line| line.trim_end().to_owned()).collect();
    assert!(lines.len() <= 24 && lines.iter().all(|line| line.chars().count() <= 40), "{lines:#?}");
    assert!(lines.iter().any(|line| line.ends_with("TROUBLE UNKNOWN")), "{lines:#?}");
    let record = &sidecar.ask(&order("lost")).await.json()["record"];
    assert!(lines.iter().any(|line| line == record.as_str().expect("a name")), "{lines:#?}");
    assert!(lines.iter().all(|line| !line.contains('…')), "{lines:#?}");
    terminal.types(b"q");
    assert_eq!(terminal.ends().await, Some(0));
    for colour in ["\x1b[1m", "\x1b[31m"] {
        assert!(!terminal.shown().contains(colour), "{:?}", terminal.shown());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_leaves_the_terminal_as_it_was() {
    let (_backend, sidecar) = busy().await;
    let mut terminal = Terminal::start(sidecar.admin);
    terminal.shows("ROUTE").await;
    terminal.types(b"\x03");
    assert_eq!(terminal.ends().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_goes_away_is_told_and_its_last_figures_stay() {
    let (_backend, sidecar) = busy().await;
    let mut terminal = Terminal::start(sidecar.admin);
    terminal.shows("ROUTE").await;
    sidecar.stop().await;
    terminal.shows("These figures are of ").await;
    let lines = picture(&terminal.shown());
    assert!(lines.iter().any(|line| line.contains("no sidecar answers at")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("orders ")), "{lines:#?}");
    terminal.types(b"q");
    assert_eq!(terminal.ends().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_output_is_no_terminal_it_is_printed_once() {
    let (_backend, sidecar) = busy().await;
    let admin = format!("http://{}", sidecar.admin);
    let top = async |admin: String| {
        let run = move || process::onlyonce(&["top", "--admin", &admin]).env_remove("ONLYONCE_ADMIN_TOKEN").output();
        within("onlyonce top", tokio::task::spawn_blocking(run)).await.expect("no panic").expect("the program")
    };
    let output = top(admin).await;
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{text}");
    assert!(!text.contains('\x1b') && text.lines().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("\nROUTE") && text.contains("1 NEEDS A HAND"), "{text}");
    let output = top("http://127.0.0.1:1".to_owned()).await;
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.starts_with("error: no sidecar answers at http://127.0.0.1:1"), "{said}");

    // The figures are open; records are not listed without the token.
    let sidecar = Setup::new("http://127.0.0.1:1").with("admin", "token = \"open-sesame-for-all\"").start().await;
    let output = top(format!("http://{}", sidecar.admin)).await;
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("\norders ") && text.contains("Records are not listed."), "{text}");
}
