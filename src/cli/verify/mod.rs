//! `onlyonce verify`: a verdict on any API.

mod junit;
mod table;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use serde::Serialize;

use super::{BAD_USAGE, FAILED, block_on, given, output};
use crate::config;
use crate::rule::{JsonPointer, Selector};
use crate::units::HumanDuration;
use crate::verify::{
    self, CountRequest, KeyPosition, VerifyCase, VerifyError, VerifyProgress, VerifyReport, VerifyRequest,
};

#[derive(Args)]
#[command(after_help = EXIT_STATUS)]
pub(super) struct VerifyArgs {
    /// The request's method: one that creates something, as POST
    method: Method,
    /// Its URL, as http://127.0.0.1:3000/orders
    #[arg(value_parser = parsed_url)]
    url: Uri,
    /// A header line of it; may be given more than once. Values are never printed
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = given::header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Its body, or @FILE to read it from a file, @- from standard input: JSON if it is a JSON object or list, else a form, unless -H says what it
    /// is; several are joined with &
    #[arg(short = 'd', long = "data", value_name = "BODY")]
    data: Vec<String>,
    /// A body of JSON, or @FILE, or @-
    #[arg(long, value_name = "BODY", conflicts_with = "data")]
    json: Option<String>,
    /// Where the key goes: header:NAME, cookie:NAME, query:NAME, json:/pointer or form:FIELD
    #[arg(long, value_name = "SELECTOR", default_value = "header:Idempotency-Key")]
    key: String,
    /// A request whose answer says how much there is, as 'GET /orders'; it is sent with the header lines of -H
    #[arg(long, value_name = "GET PATH")]
    count: Option<String>,
    /// Where in that answer the number is, or the list, as json:/total; by default the answer is the list
    #[arg(long, value_name = "SELECTOR", requires = "count")]
    at: Option<String>,
    /// A header line by which another caller is known, in place of the one of that name; may be given more than once
    #[arg(long, value_name = "NAME: VALUE", value_parser = given::header)]
    other_caller: Vec<(HeaderName, HeaderValue)>,
    /// Another body that the API takes, or @FILE, or @-; by default, one value of the body is changed
    #[arg(long, value_name = "BODY")]
    other_data: Option<String>,
    /// Another path that takes the request; by default, the same path with a parameter added to its query
    #[arg(long, value_name = "PATH")]
    other_path: Option<String>,
    /// How long to wait for each answer
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    timeout: Duration,
    /// Do not ask before the first request
    #[arg(long)]
    yes: bool,
    /// For people, for programs, or for a pipeline's reports of tests
    #[arg(long, default_value = "text")]
    format: VerifyFormat,
}

const EXIT_STATUS: &str = "\
Exit status: 0 if nothing is wrong that could be told; 1 if an effect was doubled, or an answer was another caller's; 2 \
if it could not be run: a wrong command line, no answer, or a request that is refused by itself.";

#[derive(Clone, Copy, ValueEnum)]
enum VerifyFormat {
    Text,
    Json,
    Junit,
}

fn duration(text: &str) -> Result<Duration, String> {
    let HumanDuration(duration) =
        text.parse().map_err(|error| format!("{error}: a whole number and a unit are right, as 30s"))?;
    if duration.is_zero() { Err("at least 1ms is right, as 30s".to_owned()) } else { Ok(duration) }
}

pub(super) fn verify(args: &VerifyArgs) -> ExitCode {
    let request = match args.request() {
        Ok(request) => request,
        Err(message) => {
            output::complain(format_args!("error: {message}"));
            return ExitCode::from(BAD_USAGE);
        }
    };
    if !args.yes {
        let asked = if io::stdin().is_terminal() { asks(&request) } else { Err(NO_TERMINAL.to_owned()) };
        match asked {
            Ok(true) => {}
            Ok(false) => {
                output::complain("nothing was sent");
                return ExitCode::from(BAD_USAGE);
            }
            Err(message) => {
                output::complain(table::announced(&request).trim_end());
                output::complain(format_args!("error: {message}"));
                return ExitCode::from(BAD_USAGE);
            }
        }
    }
    let is_watched = io::stderr().is_terminal();
    if !is_watched {
        output::complain(table::begun(&request));
    }
    let mut progress = |progress: VerifyProgress| match progress {
        VerifyProgress::Case(case) if is_watched => {
            let number = VerifyCase::ALL.iter().position(|other| *other == case).unwrap_or_default() + 1;
            let _ = write!(io::stderr(), "\r\x1b[K{number}/{} {}", VerifyCase::ALL.len(), case.title());
        }
        VerifyProgress::Expected(time) if !is_watched => output::complain(table::expected(time)),
        VerifyProgress::Case(_) | VerifyProgress::Expected(_) => {}
    };
    let verified = block_on(verify::verify(&request, &mut progress));
    if is_watched {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    match verified {
        Ok(Ok(report)) => args.print(&report),
        Ok(Err(error)) => {
            output::complain(format_args!("error: {error}"));
            if let Some(help) = help(&error) {
                output::complain(format_args!("help: {help}"));
            }
            ExitCode::from(BAD_USAGE)
        }
        Err(error) => {
            output::complain(format_args!("error: {error}"));
            ExitCode::from(BAD_USAGE)
        }
    }
}

const NO_TERMINAL: &str = "it creates things, and there is no terminal to ask at: add --yes";

/// Says what will be sent, and asks.
fn asks(request: &VerifyRequest) -> Result<bool, String> {
    output::complain(table::announced(request).trim_end());
    let _ = write!(io::stderr(), "Send them? [y/N] ");
    let mut line = String::new();
    io::stdin().read_line(&mut line).map_err(|error| format!("there is no answer: {error}"))?;
    Ok(matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// What to do about it.
fn help(error: &VerifyError) -> Option<&'static str> {
    match error {
        VerifyError::Key(_) => None,
        VerifyError::Server(_) => None,
        VerifyError::NoAnswer(_) => Some("is it running, and is this its URL? --timeout gives it longer"),
        VerifyError::Refused(_) => {
            Some("try the request with curl first, and give all that it needs: -H 'Authorization: ...', -d, --key")
        }
        VerifyError::SecondRefused(_) => {
            Some("if a part of the body must be new each time, that part is its key: name it, as --key json:/number")
        }
        VerifyError::Count { .. } => Some(
            "it is a GET of the same server whose JSON has a number or a list, as --count 'GET /orders' --at json:/total",
        ),
    }
}

impl VerifyArgs {
    fn request(&self) -> Result<VerifyRequest, String> {
        let (body, media) = self.body()?;
        let mut headers: HeaderMap = self.headers.iter().cloned().collect();
        if let Some(media) = media {
            headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(media));
        }
        if self.json.is_some() {
            headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
        }
        let key = key(&self.key)?;
        if let KeyPosition::Header(name) = &key
            && headers.contains_key(name)
        {
            return Err(format!("-H gives {name}, and every case makes keys of its own: leave it out"));
        }
        let is_given = |(name, _): &(HeaderName, HeaderValue)| {
            let others = self.other_caller.iter().filter(|(other, _)| other == name).map(|(_, value)| value);
            headers.get_all(name).iter().eq(others)
        };
        if !self.other_caller.is_empty() && self.other_caller.iter().all(is_given) {
            return Err("--other-caller has the values of -H, so both are one caller: give those of another".to_owned());
        }
        let request = VerifyRequest {
            method: method(&self.method)?,
            url: url(&self.url)?,
            headers,
            body,
            key,
            other_caller: self.other_caller.clone(),
            other_body: self.other_data.as_deref().map(|data| given::body(Some(data)).map(Bytes::from)).transpose()?,
            other_target: self.other_path.as_deref().map(|path| target("--other-path", path)).transpose()?,
            count: self.count()?,
            timeout: self.timeout,
        };
        request.check().map_err(|error| error.to_string())?;
        Ok(request)
    }

    /// The body, and its media type if it is not given.
    fn body(&self) -> Result<(Bytes, Option<&'static str>), String> {
        if let Some(json) = &self.json {
            return Ok((given::body(Some(json))?.into(), Some("application/json")));
        }
        let media = (!self.data.is_empty()).then_some("application/x-www-form-urlencoded");
        // A file of JSON is sent as it is.
        if let [only] = self.data.as_slice() {
            let body = given::body(Some(only))?;
            return Ok(match given::looks_like_json(&body) {
                true => (body.into(), Some("application/json")),
                false => (given::form_part(only, body).into(), media),
            });
        }
        let parts: Vec<Vec<u8>> = self.data.iter().map(|part| given::form(part)).collect::<Result<_, _>>()?;
        Ok((parts.join(&b'&').into(), media))
    }

    fn count(&self) -> Result<Option<CountRequest>, String> {
        let Some(count) = &self.count else { return Ok(None) };
        let right = "--count takes a GET of the same server, as 'GET /orders'";
        let path = match count.trim().split_once(char::is_whitespace) {
            Some((method, path)) if method.eq_ignore_ascii_case("GET") => path.trim(),
            Some((method, _)) => return Err(format!("{method} may change something: {right}")),
            None => count.trim(),
        };
        let target = target("--count", path)?;
        Ok(Some(CountRequest { target, at: self.at.as_deref().map(pointer).transpose()? }))
    }

    fn print(&self, report: &VerifyReport) -> ExitCode {
        #[derive(Serialize)]
        struct ReportShape<'a> {
            harmful: bool,
            draft: &'static str,
            #[serde(flatten)]
            report: &'a VerifyReport,
        }
        let is_harmful = report.is_harmful();
        let text = match self.format {
            VerifyFormat::Text => table::table(report, is_styled()),
            VerifyFormat::Junit => junit::junit(report),
            VerifyFormat::Json => {
                let shape = ReportShape { harmful: is_harmful, draft: verify::DRAFT, report };
                match serde_json::to_string_pretty(&shape) {
                    Ok(text) => text + "\n",
                    Err(error) => return output::not_written(&error.into()),
                }
            }
        };
        let printed = output::print(&text);
        if is_harmful { ExitCode::from(FAILED) } else { printed }
    }
}

fn is_styled() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn method(method: &Method) -> Result<Method, String> {
    match method.as_str() {
        "POST" | "PATCH" | "PUT" | "DELETE" => Ok(method.clone()),
        "GET" | "HEAD" | "OPTIONS" | "TRACE" | "CONNECT" => {
            Err(format!("{method} creates nothing that could be doubled: name a request that does, as POST"))
        }
        other if other.eq_ignore_ascii_case("post") => {
            Err(format!("methods are written in upper case: POST, not {other}"))
        }
        _ => Ok(method.clone()),
    }
}

const RIGHT_URL: &str = "write it with its scheme and host, as http://127.0.0.1:3000/orders";

fn parsed_url(text: &str) -> Result<Uri, String> {
    text.parse().map_err(|_| format!("it is no URL: {RIGHT_URL}"))
}

fn url(url: &Uri) -> Result<Uri, String> {
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(authority)) if authority.as_str().contains('@') => {
            Err("the URL holds a user: give credentials with -H 'Authorization: ...', or curl's -u as a header"
                .to_owned())
        }
        (Some("http" | "https"), Some(_)) => Ok(url.clone()),
        (Some(scheme), Some(_)) => Err(format!("{scheme} is not spoken here: {RIGHT_URL}")),
        (_, _) => Err(format!("the URL names no server: {RIGHT_URL}")),
    }
}

fn target(option: &str, path: &str) -> Result<PathAndQuery, String> {
    let right = "write a path of the same server, as /orders";
    if !path.starts_with('/') {
        return Err(format!("{option} does not begin with a slash: {right}"));
    }
    path.parse().map_err(|_| format!("{option} is no path: {right}"))
}

fn key(text: &str) -> Result<KeyPosition, String> {
    let selector = config::selector(text).map_err(|why| format!("--key {why}"))?;
    KeyPosition::try_from(selector).map_err(|error| format!("--key {text}: {error}"))
}

fn pointer(text: &str) -> Result<JsonPointer, String> {
    if text.starts_with('/') {
        return Err(format!("--at is a selector: write it as json:{text}"));
    }
    match config::selector(text).map_err(|why| format!("--at {why}"))? {
        Selector::Json(pointer) => Ok(pointer),
        _ => Err(format!("--at {text}: a count is read in JSON: write it as json:/total")),
    }
}
