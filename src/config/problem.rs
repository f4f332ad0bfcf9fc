//! Problems of a configuration file, formatted like compiler errors.

use std::fmt;
use std::ops::Range;

use super::excerpt::Excerpt;

/// Why a configuration file was refused. Holds no secret of the file, so it may be printed anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// What is wrong.
        message: String,
        /// What to do.
        advice: String,
    },
    /// All problems, in the order of the file.
    Invalid {
        /// The file's name, as given.
        file: String,
        /// At least one.
        problems: Vec<ConfigProblem>,
    },
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where, in bytes; `None` for a missing table.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub advice: String,
    pub(super) excerpt: Option<Excerpt>,
}

/// The width that all output fits.
pub(super) const WIDTH: usize = 80;

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { message, advice } => {
                writeln!(f, "{}", wrapped(message, "    "))?;
                write!(f, "{}", help(advice))
            }
            Self::Invalid { file, problems } => {
                for problem in problems {
                    problem.write(f, file)?;
                }
                let noun = if problems.len() == 1 { "problem" } else { "problems" };
                write!(f, "{} {noun} in {file}", problems.len())
            }
        }
    }
}

impl ConfigProblem {
    fn write(&self, f: &mut fmt::Formatter<'_>, file: &str) -> fmt::Result {
        let place = match &self.excerpt {
            Some(excerpt) => format!("{file}:{}:{}", excerpt.line, excerpt.column),
            None => file.to_owned(),
        };
        writeln!(f, "{}", wrapped(&format!("{place}: {}", self.message), "    "))?;
        if let Some(excerpt) = &self.excerpt {
            writeln!(f, "{excerpt}")?;
        }
        writeln!(f, "{}\n", help(&self.advice))
    }
}

fn help(advice: &str) -> String {
    wrapped(&format!("help: {advice}"), "      ")
}

/// `text` wrapped between words; every line but the first begins with `indent`. An indented line of `text` is an example
/// and is not wrapped.
fn wrapped(text: &str, indent: &str) -> String {
    let mut out = String::new();
    for (index, line) in text.lines().enumerate() {
        if index > 0 {
            out.push('\n');
            out.push_str(indent);
        }
        if line.starts_with(' ') {
            out.push_str(line);
            continue;
        }
        let mut column = if index > 0 { indent.len() } else { 0 };
        for (word, text) in line.split(' ').enumerate() {
            let length = text.chars().count();
            if word > 0 && column + 1 + length > WIDTH {
                out.push('\n');
                out.push_str(indent);
                column = indent.len();
            } else if word > 0 {
                out.push(' ');
                column += 1;
            }
            out.push_str(text);
            column += length;
        }
    }
    out
}
