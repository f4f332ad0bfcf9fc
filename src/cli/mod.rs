//! The command line.

mod check;
mod connect;
mod explain;
mod given;
mod output;
mod records;
mod table;
mod text;

use std::error::Error;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, Config, ConfigError, Content, Log, LogFormat, LogKeys};
use crate::demo::{Demo, DemoError};
use crate::run::reload::{self, Hangup};
use crate::run::{self, Passed, Sidecar, StartError, Stopped};
use crate::telemetry;

/// A reverse proxy that makes POST requests safe to repeat: same key, same result, one effect.
#[derive(Parser)]
#[command(name = "onlyonce", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Args)]
struct LogArgs {
    /// How log lines look, instead of what the configuration says
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// The least severe log lines to write: error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL")]
    log_level: Option<tracing::Level>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy
    Serve {
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Validate the configuration; print the rules as a table, and warnings
    Check {
        #[command(flatten)]
        config: ConfigArg,
        /// Treat warnings as errors
        #[arg(long)]
        strict: bool,
        /// Connect to the store, too: say whether it can be used, and which rights a Redis user needs
        #[arg(long)]
        connect: bool,
        /// For people, or for programs
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// Tell what would be done with one request: which route, key, scope, fingerprint and record, and why
    ///
    /// Nothing is sent, and no store is asked. No credential is printed.
    Explain(explain::ExplainArgs),
    /// Look at records, free their keys, settle them by hand
    ///
    /// Asks the admin listener of a running sidecar, whatever its store is. Where admin.token is set, it is sent along:
    /// that of the configuration, or of $ONLYONCE_ADMIN_TOKEN, which comes first.
    Records(records::RecordsArgs),
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Try it with nothing installed
    ///
    /// Starts a slow invoice backend that knows nothing of idempotency, the proxy in front of it on the embedded
    /// store, and a page with a form to double-click.
    Demo {
        /// Where the proxy listens; the rest takes the ports after it. What is taken already is passed over
        #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
        listen: SocketAddr,
    },
}

#[derive(Args)]
struct ConfigArg {
    /// The configuration file
    #[arg(long, env = "ONLYONCE_CONFIG", default_value = "onlyonce.toml", value_name = "FILE")]
    config: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Bad usage, or a configuration that is refused.
const BAD_USAGE: u8 = 2;
/// Failed while running.
const FAILED: u8 = 1;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Serve { config } => serve(&config.config, &cli.log),
        Command::Check { config, strict, connect, format } => with_config(&config.config, |config| {
            match connect.then(|| connect::Connection::make(&config.store)).transpose() {
                Ok(connection) => check::check(&config, strict, format, connection.as_ref()),
                Err(error) => failed(&error),
            }
        }),
        Command::Explain(args) => with_config(args.config(), |config| explain::explain(&config, &args)),
        Command::Records(args) => records::records(args),
        Command::Schema => schema(),
        Command::Demo { listen } => demo(listen, &cli.log),
    }
}

fn with_config(path: &Path, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    config::load(path).map_or_else(|error| refused(&error), then)
}

fn schema() -> ExitCode {
    output::print(&format!("{:#}\n", config::schema()))
}

fn refused(error: &ConfigError) -> ExitCode {
    output::complain(error);
    ExitCode::from(BAD_USAGE)
}

fn serve(file: &Path, log: &LogArgs) -> ExitCode {
    let content = Content::of(file);
    let mut config = match content.check() {
        Ok(config) => config,
        Err(error) => return refused(&error),
    };
    log.apply(&mut config.log);
    let logging = telemetry::start(&config.log);
    config::warnings(&config).iter().for_each(reload::log_warning);
    run::allow_open_files();
    let passed = match Passed::take() {
        Ok(passed) => passed,
        Err(error) => return failed(&StartError::Passed(error)),
    };
    let running = block_on(async {
        let (stop, hangup) = (run::signalled(run::STOP), Hangup::take());
        let sidecar = Sidecar::start_on(passed, config).await?;
        tracing::info!(
            listen = ?sidecar.listening(),
            admin = ?sidecar.admin_address(),
            version = env!("CARGO_PKG_VERSION"),
            "serving"
        );
        let rules = sidecar.rules();
        let adjust = |config: &mut Config| log.apply(&mut config.log);
        Ok::<_, StartError>(tokio::select! {
            stopped = sidecar.serve(stop) => stopped,
            never = reload::follow(content, hangup, &rules, &logging, adjust) => match never {},
        })
    });
    ended(running)
}

fn demo(listen: SocketAddr, log: &LogArgs) -> ExitCode {
    let mut settings = Log { format: LogFormat::Text, level: tracing::Level::INFO, keys: LogKeys::Plain };
    log.apply(&mut settings);
    let _logging = telemetry::start(&settings);
    ended(block_on(async {
        let demo = Demo::start(listen).await?;
        // It runs on where nobody reads that, as under `| head`.
        let _ = writeln!(io::stdout(), "{}", demo.welcome());
        Ok::<_, DemoError>(demo.serve(run::signalled(run::STOP_OR_HANGUP)).await)
    }))
}

/// The exit status of what has served until it was stopped.
fn ended<E: Error + 'static>(running: io::Result<Result<Stopped, E>>) -> ExitCode {
    match running {
        Ok(Ok(Stopped::Clean)) => ExitCode::SUCCESS,
        Ok(Ok(Stopped::Unfinished)) => ExitCode::from(FAILED),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

/// Says why, with all causes, on one line.
fn failed(error: &(dyn Error + 'static)) -> ExitCode {
    let causes = std::iter::successors(error.source(), |error: &&dyn Error| (*error).source());
    let causes: String = causes.map(|cause| format!(": {cause}")).collect();
    output::complain(format_args!("error: {error}{causes}"));
    ExitCode::from(FAILED)
}

fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // What is left by now was given up knowingly.
    runtime.shutdown_background();
    Ok(done)
}

impl LogArgs {
    fn apply(&self, log: &mut Log) {
        if let Some(format) = self.log_format {
            log.format = match format {
                Format::Text => LogFormat::Text,
                Format::Json => LogFormat::Json,
            };
        }
        if let Some(level) = self.log_level {
            log.level = level;
        }
    }
}
