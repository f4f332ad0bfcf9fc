//! A problem as a small page: first what happened and what to do, last the details for support.

use std::fmt::Write;

use super::{Code, Problem};
use crate::text::escape_html;

const STYLE: &str = include_str!("page.css");

impl Problem {
    pub(super) fn page(&self) -> String {
        let (title, advice) = self.plain_words();
        let mut page = String::with_capacity(2048);
        // Writing to a String cannot fail.
        let _ = write!(
            page,
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <title>{title}</title>\n<style>\n{STYLE}</style>\n<main>\n<h1>{title}</h1>\n"
        );
        if let Some(message) = &self.message {
            let _ = writeln!(page, "<p class=\"message\">{}</p>", escape_html(message));
        }
        let _ = writeln!(page, "<p>{advice}</p>");
        if let Some(address) = self.result() {
            let _ =
                writeln!(page, "<p><a href=\"{0}\">See what was made the first time</a></p>", escape_html(&address));
        }
        if let Some(address) = &self.help {
            let _ = writeln!(page, "<p><a href=\"{}\">Read more about it</a></p>", escape_html(address));
        }
        let _ = write!(page, "<footer>\n<p>{}</p>\n<dl>\n", escape_html(&self.detail));
        let _ = writeln!(page, "<dt>Code</dt><dd>{}</dd>", self.code.describe().1);
        if let Some(record) = &self.record {
            let _ = writeln!(page, "<dt>Record</dt><dd>{}</dd>", escape_html(record));
        }
        page.push_str("</dl>\n</footer>\n</main>\n</html>\n");
        page
    }

    /// Where the original answer led. A link runs no script.
    fn result(&self) -> Option<String> {
        let (_, location) = self.original.as_deref()?;
        let address = String::from_utf8_lossy(location.as_ref()?.as_bytes());
        let is_web = ["/", "http://", "https://"].iter().any(|start| address.starts_with(start));
        is_web.then(|| address.into_owned())
    }

    /// A title and advice.
    fn plain_words(&self) -> (&'static str, &'static str) {
        match self.code {
            Code::InFlight => {
                ("One moment, please", "Your first click is being worked on. Reload this page in a few seconds.")
            }
            Code::KeyReused | Code::KeyReusedConflict => (
                "This was already sent",
                "It was sent before, with other content. Nothing was done this time. To send something new, open the \
                 form again.",
            ),
            Code::OutcomeUnknown => (
                "We cannot tell whether this went through",
                "Do not send it again for now. Check whether it is there, or ask us and name the record below.",
            ),
            Code::AlreadyCompleted => ("This was already done", "It was done once, and not a second time."),
            Code::KeyExpired => {
                ("This form is too old", "Check whether what you sent is there. If it is not, open the form again.")
            }
            Code::MissingKey | Code::InvalidKey | Code::InvalidBody | Code::BadRequest | Code::TargetTooLong => {
                ("This could not be sent", "Nothing was done. Open the form again, and send it once more.")
            }
            Code::MethodNotAllowed | Code::NotImplemented | Code::ExpectationFailed => {
                ("This could not be sent", "Nothing was done. Open the form again, and send it once more.")
            }
            Code::InvalidToken => {
                ("Please sign in again", "Nothing was done. Sign in, open the form again, and send it once more.")
            }
            Code::RequestTooLarge => ("This is too large", "Nothing was done. Send less, or a smaller file."),
            Code::RequestTimeout => (
                "Your connection was too slow",
                "What you sent did not arrive whole. Try again where the connection is better.",
            ),
            Code::StoreUnavailable | Code::Overloaded | Code::UpstreamUnreachable => {
                ("Please try again in a moment", "This was not sent on. Reload this page in a few seconds.")
            }
            Code::ReplayRefused => (
                "Please try again in a moment",
                "This was sent before, and nothing was done a second time. Reload this page in a few seconds.",
            ),
            Code::RecordUnreadable => (
                "This cannot be shown just now",
                "It may have been done before. Do not send it again; ask us and name the record below.",
            ),
            Code::UpstreamTimeout if self.should_retry() => (
                "This takes longer than usual",
                "Reload this page in a minute to see what became of it. Nothing is done twice.",
            ),
            Code::UpstreamFailed | Code::UpstreamTimeout => (
                "Something went wrong",
                "This may have gone through all the same. Check whether it is there before you send it again.",
            ),
        }
    }
}
