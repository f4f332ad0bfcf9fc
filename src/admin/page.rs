//! The status page: three files that are part of the program, and nothing from elsewhere.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Response};
use http_body_util::Full;

const FILES: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page.css", "text/css; charset=utf-8", include_str!("page/page.css")),
    ("/page.js", "text/javascript; charset=utf-8", include_str!("page/page.js")),
];

/// Scripts and styles from here and in files of their own; connections to here; nobody frames it, and no text becomes
/// markup (Trusted Types).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

/// The file under this path.
pub(super) fn file(path: &str) -> Option<Response<Full<Bytes>>> {
    let (_, media, content) = FILES.into_iter().find(|(name, _, _)| *name == path)?;
    let mut response = Response::new(Full::from(Bytes::from_static(content.as_bytes())));
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_TYPE, media),
        (CONTENT_SECURITY_POLICY, POLICY),
        (CACHE_CONTROL, "no-cache"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_names_no_other_host_and_needs_no_inline_script() {
        for (name, _, content) in FILES {
            // The name space of SVG is a name, and no address.
            let content = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!content.contains("http://") && !content.contains("https://"), "{name}");
            assert!(!content.contains("innerHTML") && !content.contains("style="), "{name}");
        }
        let page = FILES[0].2;
        assert!(
            !page.contains("<style") && page.matches("<script").count() == 1 && !page.contains("onclick"),
            "inline"
        );
        assert!(file("/").is_some() && file("/page.js").is_some() && file("/index.html").is_none());
    }
}
