//! The command line.

mod check;
mod client;
mod connect;
mod demo;
mod explain;
mod given;
mod init;
mod keys;
mod man;
mod output;
mod records;
mod running;
mod serve;
mod store;
mod table;
mod text;
mod top;
mod usage;
mod verify;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::LazyLock;

use clap::builder::{OsStringValueParser, PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use running::SidecarComparison;

use crate::config::{self, Config, ConfigError, LogConfig, LogFormat};
use crate::run::{self, Stopped};
use crate::{schema, telemetry};

/// With the commit of the build, if `ONLYONCE_COMMIT` is set.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    match option_env!("ONLYONCE_COMMIT").filter(|commit| !commit.is_empty()) {
        Some(commit) => format!("{version} ({commit})"),
        None => version.to_owned(),
    }
});

/// A reverse proxy that makes POST requests safe to repeat: same key, same result, one effect.
#[derive(Parser)]
#[command(name = "onlyonce", version = VERSION.as_str(), max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Args, Clone)]
struct LogArgs {
    /// How log lines look, instead of what the configuration says
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<Format>,
    /// The least severe log lines to write: error, warn, info, debug or trace
    #[arg(long, global = true, value_name = "LEVEL", value_parser = level(), ignore_case = true, hide_possible_values = true)]
    log_level: Option<tracing::Level>,
}

#[derive(Subcommand)]
enum Command {
    /// Run the proxy
    Serve {
        /// The configuration file, as --config
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Write a commented configuration file to start from; never over one that is there
    Init {
        /// Where to
        #[arg(default_value = DEFAULT_FILE, value_name = "FILE")]
        file: PathBuf,
    },
    /// Validate the configuration; print the rules as a table, and warnings
    Check {
        /// The configuration file, as --config
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        config: ConfigArg,
        /// Treat warnings as errors
        #[arg(long)]
        strict: bool,
        /// Connect to the store, too: say whether it can be used, and which rights its user needs
        #[arg(long)]
        connect: bool,
        /// The admin listener of the sidecar to compare with, as http://HOST:PORT, instead of the configuration's
        ///
        /// Where a sidecar runs, check warns of what it would forget if it used this file.
        #[arg(long, value_name = "URL")]
        admin: Option<String>,
        /// For people, or for programs
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// Tell what would be done with one request: which route, key, scope, fingerprint and record, and why
    ///
    /// Nothing is sent, and nothing is written. No credential is printed.
    Explain(explain::ExplainArgs),
    /// Look at records, free their keys, settle them by hand
    ///
    /// Asks the admin listener of a running sidecar, whatever its store is. Where admin.token is set, it is sent along:
    /// that of the configuration, or of $ONLYONCE_ADMIN_TOKEN, which comes first.
    Records(records::RecordsArgs),
    /// Make keys that stored answers are encrypted with
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Make what a store needs before it is used
    Store {
        #[command(subcommand)]
        command: store::StoreCommand,
        #[command(flatten)]
        config: ConfigArg,
    },
    /// Watch what happens: the figures of the status page, in this terminal
    ///
    /// Routes and what their requests got in the last hour, the store, and the records that need a hand. Once where the
    /// output is no terminal; q or Ctrl-C ends it.
    Top(top::TopArgs),
    /// Play what clients do against any API, and say what it makes of it: a table of verdicts
    ///
    /// The same request twice, ten at once, a lost answer, a client that times out, keys that are used for something else:
    /// whether an effect was doubled, and whether clients get what they expect. It needs no configuration, and creates
    /// things: it says how many requests it sends, and asks first.
    Verify(Box<verify::VerifyArgs>),
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Print completions for a shell, to be read by it: source <(onlyonce completions bash)
    Completions {
        /// Which one
        shell: clap_complete::Shell,
    },
    /// Print the manual page: onlyonce man | man -l -
    Man,
    /// Try it with nothing installed
    ///
    /// Starts a slow invoice backend that knows nothing of idempotency, the proxy in front of it on the embedded
    /// store, and a page with a form to double-click.
    Demo {
        /// Where the proxy listens; the rest takes the ports after it. What is taken already is passed over
        #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR", value_parser = socket_address)]
        listen: SocketAddr,
    },
}

#[derive(Args)]
struct ConfigArg {
    /// The configuration file [default: onlyonce.toml]
    #[arg(short, long, global = true, env = "ONLYONCE_CONFIG", value_name = "FILE", value_parser = OsStringValueParser::new())]
    config: Option<OsString>,
}

fn level() -> impl TypedValueParser<Value = tracing::Level> {
    PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"])
        .try_map(|level| level.parse::<tracing::Level>())
}

fn socket_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "an IP address and a port are right, as 127.0.0.1:8080")
}

/// In the current folder.
const DEFAULT_FILE: &str = "onlyonce.toml";

impl ConfigArg {
    /// The file, which may be named without the option as well: once.
    fn file_or(&self, named: Option<&Path>) -> Result<PathBuf, ExitCode> {
        let of_environment = std::env::var_os("ONLYONCE_CONFIG");
        let has_option = self.config.is_some() && self.config != of_environment;
        match named {
            Some(_) if has_option => {
                output::complain(
                    "error: the configuration is named twice\nhelp: name it once, as FILE or with --config",
                );
                Err(ExitCode::from(BAD_USAGE))
            }
            Some(file) => Ok(file.to_owned()),
            None => Ok(self.file().to_owned()),
        }
    }

    /// An empty name counts as absent.
    fn file(&self) -> &Path {
        self.config.as_deref().filter(|name| !name.is_empty()).map_or(Path::new(DEFAULT_FILE), Path::new)
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Bad usage, or an invalid configuration.
const BAD_USAGE: u8 = 2;
/// Failed while running.
const FAILED: u8 = 1;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::not_run(&usage::without_credentials(error)),
    };
    match cli.command {
        Command::Serve { file, config } => match config.file_or(file.as_deref()) {
            Ok(file) => serve::serve(&file, &cli.log),
            Err(code) => code,
        },
        Command::Init { file } => init::init(&file),
        Command::Check { file, config, strict, connect, admin, format } => {
            let file = match config.file_or(file.as_deref()) {
                Ok(file) => file,
                Err(code) => return code,
            };
            let refused = |error: &ConfigError| match (format, error) {
                (Format::Json, ConfigError::Invalid { problems, .. }) => check::refused(problems),
                _ => refused(error),
            };
            config::load(&file).map_or_else(
                |error| refused(&error),
                |config| {
                    let running = match SidecarComparison::ask(&config, &file, admin.as_deref()) {
                        Ok(running) => running,
                        Err(failure) => return records::failed(&failure),
                    };
                    let is_told = connect || admin.is_some();
                    match connect.then(|| connect::StoreTrial::make(&config.store)).transpose() {
                        Ok(connection) => check::check(&config, strict, format, connection.as_ref(), &running, is_told),
                        Err(error) => failed(&error, LogFormat::Text),
                    }
                },
            )
        }
        Command::Explain(args) => {
            let file = args.config().to_owned();
            with_config(&file, |config| explain::explain(&config, args))
        }
        Command::Records(args) => records::records(args),
        Command::Keys(command) => keys::keys(&command),
        Command::Store { command, config } => store::store(&command, config.file()),
        Command::Top(args) => top::top(&args),
        Command::Verify(args) => verify::verify(&args),
        Command::Schema => schema(),
        Command::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "onlyonce", &mut out);
            output::print(&String::from_utf8_lossy(&out))
        }
        Command::Man => man::man(),
        Command::Demo { listen } => demo::demo(listen, &cli.log),
    }
}

fn with_config(path: &Path, then: impl FnOnce(Config) -> ExitCode) -> ExitCode {
    config::load(path).map_or_else(|error| refused(&error), then)
}

fn schema() -> ExitCode {
    output::print(&format!("{:#}\n", schema::configuration()))
}

fn refused(error: &ConfigError) -> ExitCode {
    output::complain(refusal(error));
    ExitCode::from(BAD_USAGE)
}

/// Why a configuration is not used. One that is there tells its problems by their places.
fn refusal(error: &ConfigError) -> String {
    match error {
        ConfigError::Unreadable { .. } => format!("error: {error}"),
        ConfigError::Invalid { .. } => error.to_string(),
    }
}

/// The exit status after serving.
fn ended<E: Error + 'static>(running: io::Result<Result<Stopped, E>>, format: LogFormat) -> ExitCode {
    match running {
        Ok(Ok(Stopped::Clean)) => ExitCode::SUCCESS,
        Ok(Ok(Stopped::Unfinished)) => ExitCode::from(FAILED),
        Ok(Err(error)) => failed(&error, format),
        Err(error) => failed(&error, format),
    }
}

/// Reports an error with all causes on one line; as a log line if the log is JSON.
fn failed(error: &(dyn Error + 'static), format: LogFormat) -> ExitCode {
    let causes = run::causes(error);
    match format {
        LogFormat::Text => {
            telemetry::flush();
            output::complain(format_args!("error: {causes}"));
        }
        LogFormat::Json => {
            tracing::error!("{causes}");
            telemetry::flush();
        }
    }
    ExitCode::from(FAILED)
}

fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    // Requests are answered by other threads (server::Cores). This one accepts connections and serves operators.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(work);
    // Tasks that still run have been abandoned on purpose.
    runtime.shutdown_background();
    Ok(done)
}

impl LogArgs {
    fn is_json(&self) -> bool {
        matches!(self.log_format, Some(Format::Json))
    }

    fn apply(&self, log: &mut LogConfig) {
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
