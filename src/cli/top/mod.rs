//! `onlyonce top`: the figures of the status page in a terminal, refreshed.

mod columns;
mod frame;
mod screen;
mod sums;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http::Method;

use frame::{Frame, Size};
use screen::{Key, Screen};

use super::client::{AdminCallError, AdminClient};
use super::{BAD_USAGE, FAILED, block_on, output, records};
use crate::admin::shape::UnknownList;
use crate::admin::status::Status;

#[derive(Args)]
pub(super) struct TopArgs {
    #[command(flatten)]
    place: records::SidecarArgs,
}

/// As often as the status page.
const EVERY: Duration = Duration::from_secs(2);

pub(super) fn top(args: &TopArgs) -> ExitCode {
    let client = match args.place.client() {
        Ok(client) => client,
        Err(message) => {
            output::complain(message);
            return ExitCode::from(BAD_USAGE);
        }
    };
    let shown = block_on(async {
        // The first look decides whether there is anything to show.
        let first = look(&client).await?;
        if !io::stdout().is_terminal() {
            print(&first.text(Size::unbounded()))?;
            return Ok(());
        }
        let mut screen = Screen::open()?;
        let done = follow(&client, &mut screen, first).await;
        screen.close();
        done
    });
    match shown.unwrap_or_else(|error| Err(AdminCallError::Output(error))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(AdminCallError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(records::told(&failure, &client).trim_end());
            ExitCode::from(FAILED)
        }
    }
}

/// Until a key or a signal ends it. What fails later is shown in its place: the sidecar may come back.
async fn follow(client: &AdminClient, screen: &mut Screen, mut frame: Frame) -> Result<(), AdminCallError> {
    loop {
        screen.show(&frame)?;
        let next = tokio::time::sleep(EVERY);
        tokio::pin!(next);
        loop {
            tokio::select! {
                () = &mut next => break,
                key = screen.key() => match key {
                    Key::Quit => return Ok(()),
                    Key::Resized => screen.show(&frame)?,
                },
            }
        }
        let looked = tokio::select! {
            looked = look(client) => looked,
            () = screen.quit() => return Ok(()),
        };
        match looked {
            Ok(new) => frame = new,
            Err(failure) => frame.fault = Some(records::why(&failure, client)),
        }
    }
}

async fn look(client: &AdminClient) -> Result<Frame, AdminCallError> {
    let status: Status = client.ask(Method::GET, "/status", None::<&()>).await?;
    let unknown = match status.records {
        None => Some(client.ask::<UnknownList>(Method::GET, "/unknown", None::<&()>).await?),
        Some(_) => None,
    };
    Ok(Frame { url: client.url(), status, unknown, fault: None })
}

fn print(text: &str) -> io::Result<()> {
    use io::Write;
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}
