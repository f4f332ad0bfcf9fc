//! Commands in the documents print what is shown below them.
//!
//! A block of `console` is played in the place that the comment above it names. In what is shown, `...` stands for any
//! lines, and line breaks count as spaces. What differs each time (digests, times, ports) is not compared, but the same
//! digest must stand for the same record throughout a page.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::Value;
use tempfile::TempDir;

use crate::page::{Block, Page, pages};

const PROGRAM: &str = env!("CARGO_BIN_EXE_onlyonce");

#[test]
fn every_command_prints_what_is_shown() {
    let mut played = 0;
    for page in pages() {
        let mut places: BTreeMap<String, Place> = BTreeMap::new();
        let blocks = page.blocks();
        for (index, block) in blocks.iter().enumerate() {
            let Some(name) = &block.played else { continue };
            let place = places.entry(name.clone()).or_insert_with(|| Place::new(name, &blocks[..index]));
            for (command, shown) in commands(block) {
                place.play(&page, block, &command, &shown);
                played += 1;
            }
        }
    }
    assert!(played >= 10, "{played} commands");
}

/// Commands that are shown without what they print: the program has them, and knows their options.
#[test]
fn every_command_that_is_not_played_is_one_of_the_program() {
    let mut known = 0;
    for page in pages() {
        let place = Place {
            folder: tempfile::tempdir().expect("a temporary folder"),
            processes: Vec::new(),
            names: Vec::new(),
        };
        for block in page.blocks().iter().filter(|block| block.played.is_none()) {
            for line in block.text.replace("\\\n", " ").lines().filter(|line| line.starts_with("onlyonce ")) {
                let end = [" # ", " > "].iter().filter_map(|sign| line.find(sign)).min().unwrap_or(line.len());
                let command = &line[..end];
                // Options are read from the left. An unknown one ends the program before it comes to this one.
                let (is_success, printed) = place.shell(&format!("{command} --help"));
                assert!(is_success && printed.contains("Usage:"), "{}:{}: {line}\n{printed}", page.name, block.line);
                known += 1;
            }
        }
    }
    assert!(known >= 8, "{known} commands");
}

/// Where commands are played: a folder, and what runs beside it.
struct Place {
    folder: TempDir,
    processes: Vec<Child>,
    /// Words of the page, and what stands for them here.
    names: Vec<(String, String)>,
}

impl Drop for Place {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // It may have ended.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Place {
    fn new(name: &str, above: &[Block]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut place = Self { folder, processes: Vec::new(), names: Vec::new() };
        match name {
            "config" => {
                let file = above.iter().rev().find(|block| block.info == "toml").expect("a configuration above it");
                place.write("onlyonce.toml", &file.text);
            }
            "demo" => place.demo(),
            "records" => place.records(),
            other => panic!("there is no place {other}"),
        }
        place
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("a writable folder");
    }

    /// `onlyonce demo`, on other ports.
    fn demo(&mut self) {
        let mut command = Command::new(PROGRAM);
        command.args(["demo", "--log-level", "error", "--listen", "127.0.0.1:0"]);
        let mut process = command.env("TMPDIR", self.folder.path()).stdout(Stdio::piped()).spawn().expect("the demo");
        let mut lines = BufReader::new(process.stdout.take().expect("its output"));
        self.processes.push(process);
        let mut printed = String::new();
        while !printed.contains("Ctrl-C") {
            assert!(lines.read_line(&mut printed).expect("text") > 0, "it ended when it had printed {printed:?}");
        }
        let addresses = printed.split("http://").skip(1).filter_map(|rest| rest.split(['/', ' ', '\n']).next());
        let shown = ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082"];
        self.names = shown.iter().map(|shown| (*shown).to_owned()).zip(addresses.map(str::to_owned)).collect();
    }

    /// A sidecar with three records that are unknown, and one in flight.
    fn records(&mut self) {
        let backend = backend();
        let file = |listen: &str, admin: &str| {
            format!(
                "[server]\nlisten = \"{listen}\"\n[admin]\nlisten = \"{admin}\"\n[upstream]\nurl = \"{backend}\"\n\
                 [store]\nurl = \"embedded:store\"\n[[route]]\nname = \"create-order\"\npath = \"/orders\"\nscope = []\n"
            )
        };
        self.write("serve.toml", &file("127.0.0.1:0", "127.0.0.1:0"));
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--log-format", "json", "-c", "serve.toml"]).current_dir(self.folder.path());
        let mut process = command.stderr(Stdio::piped()).spawn().expect("the program");
        let mut lines = BufReader::new(process.stderr.take().expect("its log")).lines();
        self.processes.push(process);
        let serving = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let line: Value = serde_json::from_str(&line).ok()?;
            let fields = line.get("fields").cloned().unwrap_or(line);
            let text = |name: &str| fields[name].as_str().map(str::to_owned);
            text("listen").zip(text("admin"))
        });
        thread::spawn(move || lines.for_each(drop));
        let (listen, admin) = serving.expect("the line that says where it listens");
        self.write("onlyonce.toml", &file(&listen, &admin));
        for key in ["1", "2", "3"] {
            let mut answer = String::new();
            ask(&listen, key).read_to_string(&mut answer).expect("an answer");
            assert!(answer.contains("upstream-failed"), "{answer}");
        }
        thread::spawn(move || ask(&listen, "slow").read_to_string(&mut String::new()));
        let in_flight = loop {
            let (is_success, listed) = self.shell("onlyonce records list --state in_flight");
            assert!(is_success, "{listed}");
            if let Some(digest) = digests(&listed).first() {
                break digest.clone();
            }
            thread::sleep(std::time::Duration::from_millis(50));
        };
        self.names.push((IN_FLIGHT.to_owned(), in_flight));
    }

    fn shell(&self, line: &str) -> (bool, String) {
        let programs = Path::new(PROGRAM).parent().expect("the folder of the program");
        let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{{ {line}\n}} 2>&1")]).current_dir(self.folder.path());
        command.env("PATH", path).env_remove("ONLYONCE_CONFIG").stdin(Stdio::null());
        let output = command.output().expect("a shell");
        (output.status.success(), String::from_utf8(output.stdout).expect("UTF-8"))
    }

    fn play(&mut self, page: &Page, block: &Block, command: &str, shown: &str) {
        let here = self.names.iter().fold(command.to_owned(), |line, (page, here)| line.replace(page, here));
        // The progress of curl is for people who wait.
        let here = here.replace("curl ", "curl -sS ");
        let (is_success, printed) = self.shell(&here);
        let place = format!("{}:{}: {command}\n{printed}", page.name, block.line);
        assert_eq!(is_success, !shown.starts_with("error:"), "{place}");
        let wide = printed.lines().find(|line| here.starts_with("onlyonce") && line.chars().count() > 80);
        assert_eq!(wide, None, "{place} is wider than a terminal");
        for (there, here) in digests(shown).into_iter().zip(digests(&printed)) {
            match self.names.iter().find(|(page, _)| *page == there) {
                Some((_, known)) => assert_eq!(*known, here, "{place}"),
                None => self.names.push((there, here)),
            }
        }
        let printed = plain(&printed);
        let mut rest = printed.as_str();
        let parts: Vec<&str> = shown.split("...\n").collect();
        for (index, part) in parts.iter().enumerate() {
            let part = plain(part);
            let at = rest.find(&part).unwrap_or_else(|| panic!("{place}does not print what is shown:\n{part}"));
            assert!(index > 0 || at == 0, "{place}does not begin with what is shown");
            rest = &rest[at + part.len()..];
        }
        assert!(shown.ends_with("...\n") || rest.is_empty(), "{place}prints more than is shown: {rest}");
    }
}

/// The record of a request that is running, in `docs/records.md`.
const IN_FLIGHT: &str = "58fc6d3518ba954e9af41a386ff6828f";

/// Answers nobody: hangs up when a request is there, or keeps it waiting for ever.
fn backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        let mut waiting = Vec::new();
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !request.ends_with(b"{}") {
                match stream.read(&mut buffer) {
                    Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            if String::from_utf8_lossy(&request).contains("slow") {
                waiting.push(stream);
            }
        }
    });
    url
}

fn ask(address: &str, key: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("to connect");
    let head = format!("POST /orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\nIdempotency-Key: {key}\r\n");
    stream.write_all(format!("{head}Content-Length: 2\r\n\r\n{{}}").as_bytes()).expect("to send");
    stream
}

/// Each command of a block, and what is shown below it.
fn commands(block: &Block) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in block.text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((command, shown))) if shown.is_empty() && command.ends_with('\\') => {
                *command = format!("{}{}", command.trim_end_matches('\\'), line.trim_start());
            }
            (None, Some((_, shown))) => *shown += &format!("{line}\n"),
            (None, None) => panic!("{}: a block that is played begins with a command", block.line),
        }
    }
    commands
}

fn is_hex(c: char) -> bool {
    c.is_ascii_digit() || ('a'..='f').contains(&c)
}

/// The digests of records, each once.
fn digests(text: &str) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for word in text.split(|c| !is_hex(c)).filter(|word| word.len() == 32) {
        if !all.iter().any(|known| known == word) {
            all.push(word.to_owned());
        }
    }
    all
}

/// Without what differs each time, and without spaces: where lines are broken depends on that.
fn plain(text: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let is_time = word.contains('T') && word.contains('Z') && word.matches(':').count() == 2;
        match word {
            _ if is_time => words.push("TIME".into()),
            "ago" | "ago," => {
                words.pop();
                words.push("AGO".into());
            }
            word => words.push(without_digests(word)),
        }
    }
    words.concat()
}

fn without_digests(word: &str) -> String {
    let mut kept = String::new();
    let mut rest = word;
    while let Some(at) = rest.find(is_hex) {
        let length = rest[at..].find(|c| !is_hex(c)).unwrap_or(rest.len() - at);
        kept += &rest[..at];
        if ![8, 32].contains(&length) {
            kept += &rest[at..at + length];
        }
        rest = &rest[at + length..];
    }
    kept + rest
}
