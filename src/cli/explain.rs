//! `onlyonce explain`: what would be done with one request.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use crate::config::Config;

#[derive(Args)]
pub(super) struct ExplainArgs {
    /// The configuration file
    #[arg(long, env = "ONLYONCE_CONFIG", default_value = "onlyonce.toml", value_name = "FILE")]
    config: PathBuf,
}

impl ExplainArgs {
    pub(super) fn config(&self) -> &Path {
        &self.config
    }
}

pub(super) fn explain(_config: &Config, _args: &ExplainArgs) -> ExitCode {
    ExitCode::FAILURE
}
