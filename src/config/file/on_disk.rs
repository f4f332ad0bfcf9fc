//! The configuration file and the files that it names, as they lie on the disk.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::super::{Config, ConfigError};
use super::{inspect, parse, pem};

/// The file that is read by default.
const DEFAULT_NAME: &str = "onlyonce.toml";

/// The text of a configuration file at one moment, not yet checked, with digests of the files that it names.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigFile {
    path: PathBuf,
    text: Result<String, ConfigError>,
    /// Certificates, keys and the like: only digests are kept.
    beside: Vec<(PathBuf, Option<u64>)>,
}

impl ConfigFile {
    /// Reads the file at `path`. A failure to read it is kept as well.
    pub fn of(path: &Path) -> Self {
        let text = read_text(path);
        let named = text
            .as_ref()
            .map_or_else(|_| Vec::new(), |text| inspect(&path.display().to_string(), text, &variable).files);
        Self { path: path.to_owned(), text, beside: named.into_iter().map(digested).collect() }
    }

    /// Reads the file again. Cheap while it is unchanged.
    pub fn again(&self) -> Self {
        if read_text(&self.path) != self.text {
            return Self::of(&self.path);
        }
        let beside = self.beside.iter().map(|(path, _)| digested(path.clone())).collect();
        Self { beside, ..self.clone() }
    }

    /// Whether it asks for a JSON log. The file may be invalid.
    pub fn asks_for_json(&self) -> bool {
        let Ok(text) = &self.text else { return false };
        let (table, _) = DeTable::parse_recoverable(text);
        let format = table.get_ref().get("log").and_then(|log| log.get_ref().as_table()?.get("format"));
        format.is_some_and(|format| format.get_ref().as_str() == Some("json"))
    }

    /// Checks it, with the variables of this process's environment.
    pub fn check(&self) -> Result<Config, ConfigError> {
        let text = self.text.as_ref().map_err(Clone::clone)?;
        parse(&self.path.display().to_string(), text, &variable)
    }
}

fn read_text(path: &Path) -> Result<String, ConfigError> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| unreadable(&name, &error));
    bytes.and_then(|bytes| String::from_utf8(bytes).map_err(|error| not_text(&name, &error)))
}

/// A digest that tells whether a file has changed.
fn digested(path: PathBuf) -> (PathBuf, Option<u64>) {
    let digest = pem::bytes(&path).ok().map(|bytes| {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        hasher.finish()
    });
    (path, digest)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Reads and checks the file at `path`, with the variables of this process's environment.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    ConfigFile::of(path).check()
}

fn unreadable(name: &str, error: &std::io::Error) -> ConfigError {
    let choose = "name one with --config or $ONLYONCE_CONFIG";
    let (message, advice) = match error.kind() {
        ErrorKind::NotFound if name == DEFAULT_NAME => (
            format!("no {DEFAULT_NAME} in this folder"),
            format!("make one with `onlyonce init`, {choose}, or try `onlyonce demo`"),
        ),
        ErrorKind::NotFound => (format!("there is no file {name}"), format!("check the path, or {choose}")),
        ErrorKind::PermissionDenied => {
            (format!("{name} may not be read"), "let the user that onlyonce runs as read it".to_owned())
        }
        ErrorKind::IsADirectory => {
            (format!("{name} is a folder"), format!("name the file in it: {name}/{DEFAULT_NAME}"))
        }
        _ => (format!("{name} cannot be read: {error}"), format!("check the file, or {choose}")),
    };
    ConfigError::Unreadable { message, advice }
}

fn not_text(name: &str, error: &std::string::FromUtf8Error) -> ConfigError {
    let valid = error.utf8_error().valid_up_to();
    let line = 1 + error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count();
    ConfigError::Unreadable {
        message: format!("{name} is not UTF-8 text: line {line} has a byte that cannot be read"),
        advice: "save it as UTF-8, which every editor can do".to_owned(),
    }
}
