//! `onlyonce store`: what a store needs before it is used.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;

use super::{BAD_USAGE, FAILED, block_on, output, with_config};
use crate::config::StoreLocation;
use crate::run;

#[derive(Subcommand)]
pub(super) enum StoreCommand {
    /// Make the tables of a PostgreSQL store, where they are missing
    ///
    /// Connects as store.url says. A start does the same where its user may; this is
    /// for those who give the sidecars a user that owns nothing:
    ///
    ///   onlyonce store init --sql --role onlyonce | psql -d DATABASE
    #[command(verbatim_doc_comment)]
    Init {
        /// Grant this role the rights that a sidecar needs, and no others
        #[arg(long, value_name = "ROLE")]
        role: Option<String>,
        /// Print the statements, and connect to nothing
        #[arg(long)]
        sql: bool,
    },
}

pub(super) fn store(command: &StoreCommand, file: &Path) -> ExitCode {
    match command {
        StoreCommand::Init { role, sql: true } => output::print(&run::store_sql(role.as_deref())),
        StoreCommand::Init { role, sql: false } => {
            with_config(file, |config| init(&config.store.location, role.as_deref()))
        }
    }
}

fn init(location: &StoreLocation, role: Option<&str>) -> ExitCode {
    let StoreLocation::Postgres(address) = location else {
        output::complain(format_args!("error: {location} needs no tables: store init is for postgres://"));
        return ExitCode::from(BAD_USAGE);
    };
    let made = match block_on(run::init_store(address, role)) {
        Ok(Ok(made)) => made,
        Ok(Err(error)) => return failed(&error),
        Err(error) => return failed(&error.to_string()),
    };
    let tables = if made { "the tables are made" } else { "the tables were there" };
    let rights = role.map_or_else(String::new, |role| format!("; {role} has the rights that a sidecar needs"));
    output::print(&format!("{location}: {tables}, in the schema onlyonce{rights}\n"))
}

fn failed(error: &str) -> ExitCode {
    output::complain(format_args!("error: {error}"));
    ExitCode::from(FAILED)
}
