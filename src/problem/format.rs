//! The format of a problem that a request asks for.

use crate::list;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderName, HeaderValue};

/// The format of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemFormat {
    /// `application/problem+json` (RFC 9457).
    Json,
    /// A small page, for the navigation of a browser.
    Page,
    /// The same as JSON, in words for people and with a button: for the form guard's script.
    Script {
        /// The page has made the key, and not the script.
        has_own_key: bool,
    },
}

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

impl ProblemFormat {
    /// The format that a request asks for: a page where it prefers `text/html`, and looks like the navigation of a
    /// browser. Programs name `text/html` too (`HttpURLConnection` puts it first), and cannot read a page.
    pub fn of(request: &HeaderMap) -> Self {
        // A shortcut: most requests do not mention text.
        let ends_in_text = |word: &[u8]| word.last_chunk::<4>().is_some_and(|end| end.eq_ignore_ascii_case(b"text"));
        let speaks_of_text = |line: &HeaderValue| {
            if matches!(line.as_bytes(), b"*/*" | b"application/json") {
                return false;
            }
            let mut words = line.as_bytes().rsplit(|byte| *byte == b'/').skip(1);
            words.any(ends_in_text)
        };
        if !request.get_all(ACCEPT).iter().any(speaks_of_text) {
            return Self::Json;
        }
        let page = weight(request, &["text/html"]);
        let is_preferred = page > weight(request, &["application/problem+json", "application/json"]);
        let mode = request.get(SEC_FETCH_MODE).map(HeaderValue::as_bytes);
        let is_navigation = mode == Some(b"navigate") || names(request, "application/xhtml+xml");
        if is_preferred && is_navigation { Self::Page } else { Self::Json }
    }
}

/// The highest weight of the media types, in thousandths. Each has the weight of the most specific range that contains it
/// (RFC 9110, 12.5.1).
fn weight(request: &HeaderMap, media: &[&str]) -> u16 {
    let of = |media: &str| {
        let in_range = ranges(request).filter_map(|(range, weight)| Some((specificity(range, media)?, weight)));
        in_range.max_by_key(|(specificity, _)| *specificity).map_or(0, |(_, weight)| weight)
    };
    media.iter().map(|media| of(media)).max().unwrap_or(0)
}

/// Whether a media type is accepted by its own name.
fn names(request: &HeaderMap, media: &str) -> bool {
    ranges(request).any(|(range, weight)| weight > 0 && range.eq_ignore_ascii_case(media))
}

/// All media ranges with their weights. A range with an invalid weight is omitted.
fn ranges(request: &HeaderMap) -> impl Iterator<Item = (&str, u16)> {
    let weighted = list::weighted(request, &ACCEPT).filter(|(range, _)| !range.is_empty());
    weighted.filter_map(|(range, weight)| Some((range, weight?)))
}

/// `None`: the range does not contain the media type.
fn specificity(range: &str, media: &str) -> Option<u8> {
    let kind = range.strip_suffix("/*");
    if range.eq_ignore_ascii_case(media) {
        Some(2)
    } else if kind.is_some_and(|kind| media.split('/').next().is_some_and(|own| kind.eq_ignore_ascii_case(own))) {
        Some(1)
    } else {
        // Java's clients write the second.
        matches!(range, "*/*" | "*").then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&'static str, &'static str)]) -> ProblemFormat {
        let mut request = HeaderMap::new();
        for (name, value) in lines {
            request.append(*name, HeaderValue::from_static(value));
        }
        ProblemFormat::of(&request)
    }

    /// What browsers send when a form is posted.
    const CHROMIUM: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7";
    const FIREFOX: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    const NAVIGATE: (&str, &str) = ("sec-fetch-mode", "navigate");

    #[test]
    fn navigations_of_browsers_get_a_page() {
        for lines in [
            &[("accept", CHROMIUM), NAVIGATE][..],
            &[("accept", FIREFOX), NAVIGATE],
            // Over clear text to another host than this one, Sec-Fetch-Mode is not sent.
            &[("accept", CHROMIUM)],
            &[("accept", FIREFOX)],
            &[("accept", "text/html"), NAVIGATE],
            &[("accept", "text/*, application/json;q=0.5"), NAVIGATE],
            &[("accept", "text/html;charset=utf-8;q=0.7, */*;q=0.6"), NAVIGATE],
            &[("accept", "application/xhtml+xml"), ("accept", "TEXT/HTML")],
            &[("accept", "text/html;q=0.3, application/problem+json;q=0, application/json;q=0.2, */*"), NAVIGATE],
        ] {
            assert_eq!(of(lines), ProblemFormat::Page, "{lines:?}");
        }
    }

    #[test]
    fn everybody_else_gets_problem_details() {
        for lines in [
            &[][..],
            &[NAVIGATE],
            &[("accept", "*/*")],
            &[("accept", "*/*"), NAVIGATE],
            &[("accept", "text/html")],
            &[("accept", "application/json, text/html;q=0.1"), NAVIGATE],
            &[("accept", "text/html;q=0"), NAVIGATE],
            &[("accept", "text/html;q=0.0, application/xhtml+xml")],
            &[("accept", "text/html; q=nan"), NAVIGATE],
            &[("accept", "text/html;q=1.001"), NAVIGATE],
            &[("accept", "text/html;q=2"), NAVIGATE],
            &[("accept", "application/problem+json, text/html"), NAVIGATE],
            &[("accept", "text/html, application/json"), NAVIGATE],
            &[("accept", "application/json, text/plain, */*")],
            // java.net.HttpURLConnection, in two of its versions.
            &[("accept", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2")],
            &[("accept", "text/html, image/gif, image/jpeg, */*; q=0.2")],
            &[("accept", "text/html, application/xhtml+xml;q=0")],
            &[("accept", CHROMIUM), ("accept", "application/json")],
            // The first two ranges say nothing of application/problem+json, and the third does.
            &[("accept", "text/html;q=0.1, application/json;q=0, application/*;q=0.2"), NAVIGATE],
        ] {
            assert_eq!(of(lines), ProblemFormat::Json, "{lines:?}");
        }
    }
}
