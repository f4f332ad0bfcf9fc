//! The table for people, and what is said before.

use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};

use super::super::text::wrapped;
use crate::text::WIDTH;
use crate::units::HumanDuration;
use crate::verify::{CaseResult, CaseVerdict, DRAFT, EffectBasis, VerifyHarm, VerifyReport, VerifyRequest};

/// The width of the verdicts.
const VERDICT: usize = 11;
const STRIPE: &str = "https://docs.stripe.com/api/idempotent_requests";

pub(super) fn table(report: &VerifyReport, is_styled: bool) -> String {
    let mut out = String::new();
    wrapped(&mut out, &label("verify"), &report.target);
    wrapped(&mut out, &label("effects"), &counted(&report.effects));
    for (index, case) in report.cases.iter().enumerate() {
        let is_alike = |other: &&CaseResult| is_not_known(other) && other.because == case.because;
        let alike: Vec<&CaseResult> = report.cases.iter().filter(is_alike).collect();
        match alike.first() {
            // One reason for many cases is given once, at the first of them.
            Some(first) if is_not_known(case) && alike.len() > 1 => {
                if report.cases[..index].iter().all(|earlier| earlier.case != first.case) {
                    out.push('\n');
                    not_known(&mut out, &alike);
                }
            }
            Some(_) | None => {
                out.push('\n');
                row(&mut out, case, is_styled);
            }
        }
    }
    out.push('\n');
    summary(&mut out, report);
    out
}

fn label(text: &str) -> String {
    format!("{text:<VERDICT$}")
}

fn row(out: &mut String, case: &CaseResult, is_styled: bool) {
    let verdict = word(case.verdict);
    let (on, off) = match (is_styled, case.verdict) {
        (false, _) | (true, CaseVerdict::NotKnown) => ("", ""),
        (true, CaseVerdict::Pass) => ("\x1b[32m", "\x1b[m"),
        (true, CaseVerdict::Warn) => ("\x1b[33m", "\x1b[m"),
        (true, CaseVerdict::Fail) => ("\x1b[1;31m", "\x1b[m"),
    };
    out.push_str(&format!("{on}{verdict}{off}{}{}\n", " ".repeat(VERDICT - verdict.len()), case.case.title()));
    let indent = " ".repeat(VERDICT);
    for (name, text) in [("sent", case.sent.as_str()), ("came", &case.came), ("so", &case.because), ("rule", case.rule)]
    {
        wrapped(out, &format!("{indent}{name:<6}"), text);
    }
}

fn is_not_known(case: &CaseResult) -> bool {
    case.verdict == CaseVerdict::NotKnown
}

fn not_known(out: &mut String, cases: &[&CaseResult]) {
    let titles: Vec<&str> = cases.iter().map(|case| case.case.title()).collect();
    wrapped(out, &label(word(CaseVerdict::NotKnown)), &titles.join("; "));
    let because = cases.first().map(|case| case.because.as_str()).unwrap_or_default();
    wrapped(out, &format!("{}{:<6}", " ".repeat(VERDICT), "so"), because);
}

pub(super) fn word(verdict: CaseVerdict) -> &'static str {
    match verdict {
        CaseVerdict::Pass => "pass",
        CaseVerdict::Warn => "warn",
        CaseVerdict::Fail => "FAIL",
        CaseVerdict::NotKnown => "not known",
    }
}

pub(super) fn counted(effects: &EffectBasis) -> String {
    match effects {
        EffectBasis::Count { request } => format!("counted by {request}, if nobody else creates something meanwhile"),
        EffectBasis::Names { source, instead } => {
            let names = format!("told by the answers, by {source}: two names are two effects; one proves less");
            instead.as_ref().map_or(names.clone(), |instead| format!("{names}. Not counted: {instead}"))
        }
        EffectBasis::Nothing { why } => format!("not known: {why}; --count would tell"),
    }
}

fn summary(out: &mut String, report: &VerifyReport) {
    let count = |verdict| format!("{} {}", report.count(verdict), word(verdict));
    let verdicts = [CaseVerdict::Pass, CaseVerdict::Warn, CaseVerdict::Fail, CaseVerdict::NotKnown].map(count);
    wrapped(out, "", &format!("{}; {} requests", verdicts.join(", "), report.requests));
    let has = |harm| report.cases.iter().any(|case| case.harm == Some(harm));
    if has(VerifyHarm::DoubledEffect) {
        wrapped(out, "", "An effect was doubled: a client that retries makes a second one.");
    }
    if has(VerifyHarm::AnswerOfAnotherCaller) {
        wrapped(out, "", "A caller got another's answer: who knows or guesses a key reads it.");
    }
    wrapped(out, "", &format!("draft: {DRAFT}"));
    wrapped(out, "", &format!("Stripe: {STRIPE}"));
}

/// What will be sent: all of it. Of header lines, the values are left out; of a body, all but its size.
pub(super) fn announced(request: &VerifyRequest) -> String {
    let mut out = String::new();
    wrapped(&mut out, "", &request_line(request));
    for (name, value) in &request.headers {
        let is_plain = *name == CONTENT_TYPE || *name == ACCEPT;
        let shown = value.to_str().ok().filter(|_| is_plain).unwrap_or("(not shown)");
        wrapped(&mut out, "  ", &format!("{name}: {shown}"));
    }
    for (name, _) in &request.other_caller {
        wrapped(&mut out, "  ", &format!("another caller's {name}: (not shown)"));
    }
    let bytes = if request.body.len() == 1 { "byte" } else { "bytes" };
    wrapped(&mut out, "  ", &format!("a body of {} {bytes}", request.body.len()));
    wrapped(&mut out, "  ", &format!("a random UUID as the key, in {}", request.key));
    out.push('\n');
    let most = request.most_requests();
    let sent = format!(
        "This sends up to {most} requests, ten of them at once. Most of them may create something. They are as above, but of \
         them, at most"
    );
    wrapped(&mut out, "", &sent);
    for difference in request.differences() {
        wrapped(&mut out, &format!("{:>4}  ", difference.requests), &difference.what);
    }
    if let Some(count) = &request.count {
        out.push('\n');
        let query = if count.target.query().is_some() { "?..." } else { "" };
        let counts = format!(
            "GET {}{query} is sent up to {} times with the header lines above, to count. {} of the requests are sent only \
             where nothing but the count tells of a doubled effect, to see it once more.",
            count.target.path(),
            request.most_counts(),
            request.most_repetitions(),
        );
        wrapped(&mut out, "", &counts);
    }
    debug_assert!(out.lines().all(|line| line.chars().count() <= WIDTH || !line.trim().contains(' ')));
    out
}

fn request_line(request: &VerifyRequest) -> String {
    let query = if request.url.query().is_some() { "?..." } else { "" };
    let host = request.url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let scheme = request.url.scheme_str().unwrap_or_default();
    format!("{} {scheme}://{host}{}{query}", request.method, request.url.path())
}

/// Where nobody sees how far it is: what begins, and how long it may take.
pub(super) fn begun(request: &VerifyRequest) -> String {
    let (most, longest) = (request.most_requests(), HumanDuration(request.timeout));
    format!("verify: up to {most} requests to {}, each answered within {longest} or not at all", request_line(request))
}

/// The same, once the time of an answer is known.
pub(super) fn expected(time: Duration) -> String {
    let seconds = Duration::from_secs(time.as_secs() + 1);
    format!("verify: two answers came; the rest takes about {}", HumanDuration(seconds))
}
