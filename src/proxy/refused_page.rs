//! Pages with which a backend refuses a form: the form again, with what is wrong in it.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::key::is_uuid;
use crate::rule::{Rule, Selector};

/// In a head: an answer that is a page may be kept although it is a refusal, because the navigation that shows it repeats
/// the request. It has the key of the script.
#[derive(Clone)]
pub(super) struct KeepsPages(pub(super) HeaderValue);

impl KeepsPages {
    /// Whether the body has this key in the field that is the route's key, and it is one that nobody else can have
    /// chosen. Any program can name itself the script: it must not keep a refusal under a key that others use too, such
    /// as the number of an invoice.
    pub(super) fn is_for(&self, rule: &Rule, body: &[u8]) -> bool {
        let field = rule.key.iter().find_map(|part| match part {
            Selector::Form(field) => Some(field),
            _ => None,
        });
        let (Some(field), Ok(key)) = (field, self.0.to_str()) else { return false };
        let in_part = format!("name=\"{field}\"\r\n\r\n{key}\r\n");
        let mut values = form_urlencoded::parse(body).filter(|(name, _)| name == field).map(|(_, value)| value);
        is_uuid(key.as_bytes())
            && (values.next().is_some_and(|value| value == key) && values.next().is_none()
                || memchr::memmem::find(body, in_part.as_bytes()).is_some())
    }
}

/// Whether an answer is a page that refuses what was sent. Refusals that say nothing of what was sent, but of the caller or
/// the moment, are not kept.
pub(super) fn is_refused_page(status: StatusCode, headers: &HeaderMap) -> bool {
    status.is_client_error() && !matches!(status.as_u16(), 401 | 403 | 407 | 408 | 421 | 425 | 429) && is_html(headers)
}

pub(super) fn is_html(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|media| media.as_bytes().to_ascii_lowercase().starts_with(b"text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn rule(key: &str) -> std::sync::Arc<Rule> {
        let file = format!(
            "[upstream]\nurl = \"http://b\"\n[store]\nurl = \"memory:\"\n\
             [[route]]\nname = \"a\"\npath = \"/a\"\nscope = []\nkey = {key}\n"
        );
        let config = config::parse("t.toml", &file, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        std::sync::Arc::clone(&config.routes.rules()[0])
    }

    #[test]
    fn a_refusal_is_kept_under_a_key_of_the_script_only() {
        const KEY: &str = "01234567-89ab-cdef-0123-456789abcdef";
        let (form, number) = (rule("\"form:order_key\""), rule("\"form:number\""));
        let in_part = format!("--b\r\nContent-Disposition: form-data; name=\"order_key\"\r\n\r\n{KEY}\r\n--b--\r\n");
        for (rule, key, body, is_kept) in [
            (&form, KEY, format!("item=book&order_key={KEY}"), true),
            (&form, KEY, in_part, true),
            // The script is named, and the key is another one.
            (&form, KEY, "item=book&order_key=1001".to_owned(), false),
            (&form, KEY, format!("order_key={KEY}&order_key=1001"), false),
            (&number, KEY, format!("number=1001&order_key={KEY}"), false),
            (&number, "1001", "number=1001".to_owned(), false),
            (&form, KEY, String::new(), false),
        ] {
            let keeps = KeepsPages(HeaderValue::try_from(key).expect("a value"));
            assert_eq!(keeps.is_for(rule, body.as_bytes()), is_kept, "{key}: {body}");
        }
    }

    #[test]
    fn refusals_of_the_caller_or_the_moment_are_not_kept() {
        let page = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("Text/HTML; charset=utf-8"))]);
        let kept = |status: u16| is_refused_page(StatusCode::from_u16(status).expect("a status"), &page);
        assert!([400, 404, 409, 422].into_iter().all(kept));
        assert!(![200, 302, 401, 403, 407, 408, 421, 425, 429, 500, 503].into_iter().any(kept));
        assert!(!is_refused_page(StatusCode::UNPROCESSABLE_ENTITY, &HeaderMap::new()));
    }
}
