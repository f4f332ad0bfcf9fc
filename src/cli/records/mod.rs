//! `onlyonce records`: read records and resolve unknown outcomes.

mod list;
mod say;

pub(super) use say::{coarse, named, time};

use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use http::{HeaderName, HeaderValue, Method};

use list::RecentNames;

use super::client::{AdminCallError, AdminClient};
use super::{BAD_USAGE, ConfigArg, FAILED, Format, block_on, given, output};
use crate::admin::Timestamp;
use crate::admin::shape::{
    BodyContent, BulkReleaseRequest, BulkReleaseResponse, CompleteRequest, ExplainRequest, ExplainResponse, OwnerName,
    ProbeRequest, ProbeResponse, ProbeWord, ProspectName, RecordChange, RecordDetail, RecordEntry, RecordVersionSeen,
    ReleaseRequest, StateName,
};
use crate::record::RecordName;

#[derive(Args)]
pub(super) struct RecordsArgs {
    #[command(subcommand)]
    verb: RecordsCommand,
    #[command(flatten)]
    place: SidecarArgs,
}

/// Which sidecar to ask.
#[derive(Args)]
#[command(next_help_heading = "Which sidecar")]
pub(super) struct SidecarArgs {
    /// For where the sidecar's admin listener is, and for its token
    #[command(flatten)]
    config: ConfigArg,
    /// The admin listener of a running sidecar, as http://HOST:PORT, instead of the configuration's
    #[arg(long, global = true, value_name = "URL")]
    admin: Option<String>,
}

impl SidecarArgs {
    /// A client of it, or an error message.
    pub(super) fn client(&self) -> Result<AdminClient, String> {
        AdminClient::new(self.admin.as_deref(), self.config.file())
    }
}

fn states() -> impl TypedValueParser<Value = StateName> {
    PossibleValuesParser::new(StateName::ALL.map(StateName::as_str)).try_map(|state| state.parse::<StateName>())
}

#[derive(Subcommand)]
enum RecordsCommand {
    /// List the records that the store holds
    List {
        /// Those of one route only
        #[arg(long, value_name = "NAME")]
        route: Option<String>,
        /// Those in one state only: in_flight, completed, unreplayable, unknown or unreadable
        #[arg(long, value_parser = states(), hide_possible_values = true)]
        state: Option<StateName>,
        /// For people, or for programs
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// Show one record: all but the stored body
    Show {
        /// Its name, as logs and problems print it
        record: RecordName,
        /// Show the stored body too, and the values of Set-Cookie: only where the sidecar has a token
        #[arg(long)]
        body: bool,
        /// For people, or for programs
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// Free the key of a record, or of many: the next request with it runs
    ///
    /// Do so when you know that the request had no effect, or that it may have it twice.
    #[command(override_usage = "onlyonce records release RECORD [--force] [--yes]\n       \
                                onlyonce records release --route NAME --state STATE --since T [--yes]")]
    Release(ReleaseArgs),
    /// Settle a record by hand: retries get this answer, and nothing runs
    ///
    /// Do so when you know that the request had its effect, and what its answer would have been.
    Complete {
        /// Its name
        record: RecordName,
        /// Status of the answer
        #[arg(long, value_name = "N")]
        status: u16,
        /// A header line of the answer; may be given more than once
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = given::header)]
        headers: Vec<(HeaderName, HeaderValue)>,
        /// The answer's body, or @FILE to read it from a file
        #[arg(short = 'd', long = "data", value_name = "BODY")]
        data: Option<String>,
        /// Even if the request is still running. It goes on, and what comes of it is not recorded
        #[arg(long)]
        force: bool,
        /// Why, for the record's story
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
    },
    /// Have the sidecar ask the backend about a record whose outcome is unknown, as its route's [route.probe] says
    ///
    /// What is found completes the record. What is absent frees the key once it has been absent twice, long enough after the
    /// request can have ended: until then the sidecar goes on asking.
    ///
    /// It needs a token that may change records. A sidecar asks about what another one ran only where [route.probe] has an
    /// authorization, and where the host of the question and its values are kept or fixed: docs/probe.md. Exit status 0, also
    /// where the answer settles nothing: the output says what became of the record.
    Probe(ProbeArgs),
}

/// What is done about a record by asking the backend.
#[derive(Args)]
struct ProbeArgs {
    /// Its name
    record: RecordName,
    /// Why, for the record's story
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
}

#[derive(Args)]
struct ReleaseArgs {
    /// Its name
    #[arg(required_unless_present = "route", conflicts_with_all = ["route", "state", "since"])]
    record: Option<RecordName>,
    /// Even if the request is still running. It goes on, and another may run beside it
    #[arg(long, conflicts_with = "route")]
    force: bool,
    /// Why, for the record's story
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Many: those of this route,
    #[arg(long, value_name = "NAME", requires_all = ["state", "since"])]
    route: Option<String>,
    /// in this state,
    #[arg(long, requires = "route", value_parser = states(), hide_possible_values = true)]
    state: Option<StateName>,
    /// settled (if in flight, claimed) since then: 2026-11-21T19:30:00Z, or 2h or 3d ago
    #[arg(long, value_name = "T", requires = "route", value_parser = moment)]
    since: Option<Timestamp>,
    /// Do it. Without, many are only said; a completed record is asked about
    #[arg(long)]
    yes: bool,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::now().at_or_ago(text).map_err(|error| error.to_string())
}

/// Progress of a long bulk release.
const PATIENCE: Duration = Duration::from_secs(2);

pub(super) fn records(args: RecordsArgs) -> ExitCode {
    let RecordsArgs { verb, place } = args;
    let client = match place.client() {
        Ok(client) => client,
        Err(message) => {
            output::complain(message);
            return ExitCode::from(BAD_USAGE);
        }
    };
    let done = block_on(async {
        match verb {
            RecordsCommand::List { route, state, format } => list::list(&client, route.as_deref(), state, format).await,
            RecordsCommand::Show { record, body, format } => show(&client, &record, body, format).await,
            RecordsCommand::Release(args) => match (args.record, args.route.zip(args.state).zip(args.since)) {
                (Some(record), _) => release(&client, &record, args.force, args.reason, args.yes).await,
                (None, Some(((route, state), since))) => {
                    release_many(&client, route, state, since, args.reason, args.yes).await
                }
                // The command line parser excludes this.
                (None, None) => Ok(()),
            },
            RecordsCommand::Complete { record, status, headers, data, force, reason } => {
                let answer = CompleteRequest { reason, ..answer(status, &headers, data.as_deref(), force)? };
                complete(&client, &record, answer).await
            }
            RecordsCommand::Probe(ProbeArgs { record, reason }) => probe(&client, &record, reason).await,
        }
    });
    match done.unwrap_or_else(|error| Err(AdminCallError::Output(error))) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader has closed the pipe, as `head` does.
        Err(AdminCallError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(say::failure(&failure, &client).trim_end());
            ExitCode::from(if matches!(failure, AdminCallError::Usage(_)) { BAD_USAGE } else { FAILED })
        }
    }
}

/// What a running sidecar would do with a request, or why that is unknown.
pub(super) async fn explain(
    admin: Option<&str>,
    config: &Path,
    request: &ExplainRequest,
) -> Result<ExplainResponse, String> {
    let client = AdminClient::new(admin, config)?;
    let told = client.ask(Method::POST, "/explain", Some(request)).await;
    told.map_err(|failure| say::what(&failure, &client.url()))
}

/// Reports an invalid command line, or why there was no call.
pub(super) fn failed(failure: &AdminCallError) -> ExitCode {
    match failure {
        AdminCallError::Usage(what) => {
            output::complain(what);
            ExitCode::from(BAD_USAGE)
        }
        other => {
            output::complain(format_args!("error: {}", say::what(other, "the admin listener")));
            ExitCode::from(FAILED)
        }
    }
}

/// Why a sidecar did not answer, without advice.
pub(super) fn why(failure: &AdminCallError, client: &AdminClient) -> String {
    say::what(failure, &client.url())
}

/// Why a call failed, with advice.
pub(super) fn told(failure: &AdminCallError, client: &AdminClient) -> String {
    say::failure(failure, client)
}

/// A request's record in a few words: its state, its age, and what the request gets.
pub(super) fn in_short(now: Option<&RecordEntry>, request: ProspectName) -> String {
    say::in_short(now, request, Timestamp::now())
}

fn json(value: &impl serde::Serialize) -> String {
    // All shapes serialize to JSON.
    serde_json::to_string(value).unwrap_or_default()
}

async fn show(
    client: &AdminClient,
    record: &RecordName,
    with_body: bool,
    format: Format,
) -> Result<(), AdminCallError> {
    let body = if with_body { "?body=1" } else { "" };
    let shown: RecordDetail = client.ask(Method::GET, &format!("/records/{record}{body}"), None::<&()>).await?;
    let mut out = io::stdout().lock();
    match format {
        Format::Text => out.write_all(say::shown(&shown, Timestamp::now()).as_bytes())?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&shown).unwrap_or_default())?,
    }
    Ok(())
}

async fn release(
    client: &AdminClient,
    record: &RecordName,
    force: bool,
    reason: String,
    yes: bool,
) -> Result<(), AdminCallError> {
    let mut was = None;
    if !yes {
        let shown: RecordDetail = client.ask(Method::GET, &format!("/records/{record}"), None::<&()>).await?;
        if shown.entry.state == StateName::Completed && !is_meant(&shown.entry)? {
            return Err(AdminCallError::Usage(format!(
                "{record} is completed: its answer is kept, and a retry gets it. Released, the next retry runs the \
                 request again. If that is meant: --yes"
            )));
        }
        was = RecordVersionSeen::of(&shown.entry);
    }
    let target = format!("/records/{record}/release");
    let changed: RecordChange = client.ask(Method::POST, &target, Some(&ReleaseRequest { force, reason, was })).await?;
    let mut said = format!("It was {}. The next request with its key runs.", say::state(&changed.was));
    if is_running(&changed.was) {
        said.push_str(" The request that it belongs to goes on, and takes the key again if no other comes first.");
    }
    write!(io::stdout(), "released {record}\n{}", say::broken(&said))?;
    Ok(())
}

/// Asks for confirmation if the input is a terminal.
fn is_meant(entry: &RecordEntry) -> Result<bool, AdminCallError> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(false);
    }
    output::complain(say::broken(&format!("{}: {}", entry.record, say::repeated(entry, Timestamp::now()))).trim_end());
    output::complain("Released, the next retry runs the request again. Release it? [y/N]");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn is_running(was: &RecordEntry) -> bool {
    was.facts.as_ref().is_some_and(|facts| facts.owner == Some(OwnerName::Alive))
}

fn answer(
    status: u16,
    headers: &[(HeaderName, HeaderValue)],
    data: Option<&str>,
    force: bool,
) -> Result<CompleteRequest, AdminCallError> {
    let BodyContent { body, body_base64 } = match data {
        None => BodyContent::default(),
        Some(_) => BodyContent::of(&given::body(data).map_err(AdminCallError::Usage)?),
    };
    let header = |(name, value): &(HeaderName, HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Ok(CompleteRequest {
        status,
        headers: headers.iter().map(header).collect(),
        body,
        body_base64,
        force,
        reason: String::new(),
        was: None,
    })
}

async fn complete(client: &AdminClient, record: &RecordName, answer: CompleteRequest) -> Result<(), AdminCallError> {
    let target = format!("/records/{record}/complete");
    let changed: RecordChange = client.ask(Method::POST, &target, Some(&answer)).await?;
    let until = changed.now.and_then(|now| now.facts).map(|facts| facts.expires_at);
    let until = until.map(|until| format!(" until {}", say::time(until))).unwrap_or_default();
    let said = format!("It was {}. Retries get this {}{until}.", say::state(&changed.was), answer.status);
    write!(io::stdout(), "settled {record}\n{}", say::broken(&said))?;
    Ok(())
}

async fn probe(client: &AdminClient, record: &RecordName, reason: String) -> Result<(), AdminCallError> {
    let target = format!("/records/{record}/probe");
    let asked: ProbeResponse = client.ask(Method::POST, &target, Some(&ProbeRequest { reason })).await?;
    let (done, then) = match asked.probe {
        ProbeWord::Found => {
            ("completed", "It is final: a retry is told that it was done, or gets the backend's answer.")
        }
        ProbeWord::Released => ("released", "The next request with its key runs."),
        ProbeWord::Absent | ProbeWord::Inconclusive | ProbeWord::NotAsked => ("unchanged", "It stays unknown."),
        ProbeWord::Changed => ("unchanged", "Look at it again."),
        ProbeWord::Pending => ("asked about", "Look at it again later."),
    };
    let said = format!("It was {}: {}. {then}", say::state(&asked.was), asked.detail);
    write!(io::stdout(), "{done} {record}\n{}", say::broken(&said))?;
    Ok(())
}

async fn release_many(
    client: &AdminClient,
    route: String,
    state: StateName,
    since: Timestamp,
    reason: String,
    yes: bool,
) -> Result<(), AdminCallError> {
    let which = format!("of {route}, {state} since {}", say::time(since));
    let mut wanted = BulkReleaseRequest { route, state, since: since.to_string(), dry_run: !yes, reason, cursor: None };
    let mut out = io::stdout().lock();
    let (mut seen, mut released, mut left) = (RecentNames::default(), 0_usize, 0_usize);
    let not_configured = loop {
        let done: BulkReleaseResponse = client.ask(Method::POST, "/records/release", Some(&wanted)).await?;
        for entry in done.released {
            if seen.insert(&entry.record) {
                released += 1;
                writeln!(out, "{} {}", if yes { "released" } else { "would release" }, entry.record)?;
            }
        }
        for record in done.left.iter().filter(|record| seen.insert(&record.record)) {
            left += 1;
            output::complain(format_args!("left {}: {}", record.record, record.code));
        }
        match done.next {
            Some(next) => wanted.cursor = Some(next),
            None => break done.not_configured,
        }
    };
    say::of_route(not_configured, released + left)?;
    let left = if left == 0 { String::new() } else { format!(", {left} left as they are") };
    let done = match yes {
        true => format!("{} {which}: released{left}.", say::records(released)),
        false => {
            let count = say::records(released);
            format!("{count} {which}{left}. Nothing was done: the same with --yes frees their keys.")
        }
    };
    write!(out, "{}", say::broken(&done))?;
    Ok(())
}
