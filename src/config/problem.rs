//! Problems of a configuration file, formatted like compiler errors.

use std::fmt;
use std::ops::Range;

use crate::excerpt::Excerpt;
use crate::text::wrap;

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

impl ConfigProblem {
    /// Line and column, in characters, from 1; `None` for a missing table.
    pub fn place(&self) -> Option<(usize, usize)> {
        self.excerpt.as_ref().map(|excerpt| (excerpt.line, excerpt.column))
    }
}

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
        let first = if index > 0 { indent } else { "" };
        if index > 0 {
            out.push('\n');
        }
        if line.starts_with(' ') {
            out.push_str(first);
            out.push_str(line);
        } else {
            wrap(&mut out, first, indent.len(), line);
        }
    }
    out
}
