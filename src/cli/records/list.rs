//! `onlyonce records list`: page by page, in bounded memory, however many records there are.

use std::collections::{HashSet, VecDeque};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::time::Instant;

use super::super::client::{AdminCallError, AdminClient};
use super::super::{Format, output};
use super::{PATIENCE, json, say};
use crate::admin::Timestamp;
use crate::admin::shape::{RecordPage, StateName};

/// The last names that were seen. Redis names a record twice where it shrinks its table during a walk, a few pages apart at
/// most.
#[derive(Default)]
pub(super) struct RecentNames {
    names: HashSet<Arc<str>>,
    in_order: VecDeque<Arc<str>>,
}

const KEPT: usize = 20_000;

impl RecentNames {
    /// Whether this name is new.
    pub(super) fn insert(&mut self, name: &str) -> bool {
        if self.names.contains(name) {
            return false;
        }
        if self.in_order.len() == KEPT
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.names.remove(&oldest);
        }
        let name: Arc<str> = name.into();
        self.in_order.push_back(Arc::clone(&name));
        self.names.insert(name)
    }
}

pub(super) async fn list(
    client: &AdminClient,
    route: Option<&str>,
    state: Option<StateName>,
    format: Format,
) -> Result<(), AdminCallError> {
    if let Some(route) = route.filter(|route| !route.bytes().all(is_plain)) {
        return Err(AdminCallError::Usage(format!("no route has the name '{route}'")));
    }
    let (route, state) = (route.unwrap_or_default(), state.map_or("", StateName::as_str));
    let mut out = io::stdout().lock();
    let mut cursor = String::new();
    let (mut seen, mut count) = (RecentNames::default(), 0_usize);
    let mut quiet_since = Instant::now();
    let not_configured = loop {
        let target = format!("/records?route={route}&state={state}&cursor={cursor}&limit=500");
        let page = page(client, &target).await?;
        // Written at once: standard output is flushed at each line.
        let mut text = String::new();
        for entry in page.records.iter().filter(|entry| seen.insert(&entry.record)) {
            match format {
                Format::Text => text.push_str(&say::entry(entry, Timestamp::now())),
                Format::Json => {
                    let before = if count == 0 { "[\n" } else { ",\n" };
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{before}{}", json(entry));
                }
            }
            count += 1;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        match page.next {
            Some(next) => cursor = next,
            None => break page.not_configured,
        }
        if quiet_since.elapsed() > PATIENCE {
            output::complain(format_args!("{} so far, still looking", say::records(count)));
            quiet_since = Instant::now();
        }
    };
    say::of_route(not_configured, count)?;
    match format {
        Format::Text => writeln!(out, "{}", say::records(count))?,
        Format::Json => writeln!(out, "{}", if count == 0 { "[]" } else { "\n]" })?,
    }
    Ok(())
}

/// How often a page is asked for, and the pause after a failure.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// A page. Looking again changes nothing, and a walk of thousands of pages is not to end for one that came late.
async fn page(client: &AdminClient, target: &str) -> Result<RecordPage, AdminCallError> {
    let mut tries = 1;
    loop {
        match client.ask(Method::GET, target, None::<&()>).await {
            Err(AdminCallError::Refused(problem)) if problem.code == "store-unavailable" && tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            page => return page,
        }
    }
}

/// The characters of route names, and of those of their records in observe mode.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"._-@".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_counts_once_and_the_oldest_are_forgotten() {
        let mut seen = RecentNames::default();
        for turn in 0..3 * KEPT {
            assert!(seen.insert(&turn.to_string()) && !seen.insert(&turn.to_string()));
            assert!(turn < 500 || !seen.insert(&(turn - 500).to_string()));
        }
        assert_eq!((seen.names.len(), seen.in_order.len()), (KEPT, KEPT));
    }
}
