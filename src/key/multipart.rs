//! `multipart/form-data` (RFC 7578).

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use multer::{Multipart as Reader, parse_boundary};

use super::Digest;
use super::form::Field;

/// The parts of a form, in the order of the body.
#[derive(Debug)]
pub(super) struct Multipart(Vec<Part>);

#[derive(Debug)]
struct Part {
    name: Option<String>,
    is_file: bool,
    headers: HeaderMap,
    content: Bytes,
}

impl Multipart {
    /// `None` for what `content_type` names no boundary for, and for what breaks off before its last boundary.
    pub(super) fn parse(content_type: &str, body: &[u8]) -> Option<Self> {
        let boundary = parse_boundary(content_type).ok()?;
        let body = Full::new(Bytes::copy_from_slice(body)).into_data_stream();
        at_once(read(Reader::new(body, boundary)))?.ok().map(Self)
    }

    pub(super) fn field(&self, name: &str) -> Field<'_> {
        let mut parts = self.0.iter().filter(|part| part.name.as_deref() == Some(name));
        match (parts.next(), parts.next()) {
            (None, _) => Field::Absent,
            (Some(part), None) if part.is_file => Field::File,
            (Some(part), None) => Field::Once(&part.content),
            (Some(_), Some(_)) => Field::Repeated,
        }
    }

    /// Adds every part: the lines of its head, among them its name and its file's name and type, and its content. What
    /// stands between two parts does not count, the boundary above all: browsers choose a new one for every submit.
    pub(super) fn add_to(&self, digest: &mut Digest) {
        for part in &self.0 {
            let mut lines: Vec<_> = part.headers.iter().collect();
            // Stable: lines of one name stay in their order.
            lines.sort_by_key(|(name, _)| name.as_str());
            digest.number(lines.len() as u64);
            for (name, value) in lines {
                digest.part(name.as_str().as_bytes());
                digest.part(value.as_bytes());
            }
            digest.part(&part.content);
        }
    }
}

async fn read(mut reader: Reader<'_>) -> multer::Result<Vec<Part>> {
    let mut parts = Vec::new();
    while let Some(field) = reader.next_field().await? {
        let (name, is_file) = (field.name().map(str::to_owned), field.file_name().is_some());
        let headers = field.headers().clone();
        parts.push(Part { name, is_file, headers, content: field.bytes().await? });
    }
    Ok(parts)
}

/// What a future comes to that has nothing to wait for.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => Some(result),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::DigestKey;
    use super::*;

    fn parsed(boundary: &str, body: &str) -> Option<Multipart> {
        Multipart::parse(&format!("multipart/form-data; boundary={boundary}"), body.as_bytes())
    }

    /// Each part is its head and its content.
    fn form(boundary: &str, parts: &[(&str, &str)]) -> Multipart {
        let mut body = String::new();
        for (head, content) in parts {
            body.push_str(&format!("--{boundary}\r\n{head}\r\n\r\n{content}\r\n"));
        }
        parsed(boundary, &format!("{body}--{boundary}--\r\n")).unwrap_or_else(|| panic!("{body}"))
    }

    fn digest(form: &Multipart) -> [u8; 16] {
        let mut digest = DigestKey::from_bytes([7; 32]).digest("test");
        form.add_to(&mut digest);
        digest.finish()
    }

    const NAME: &str = "Content-Disposition: form-data; name=\"a\"";
    const FILE: &str = "Content-Disposition: form-data; name=\"a\"; filename=\"a.txt\"\r\nContent-Type: text/plain";

    #[test]
    fn fields_are_found() {
        let other = "content-disposition: form-data; name=b";
        let found = form("x", &[(NAME, "1\r\n2"), (other, ""), ("Content-Disposition: form-data", "nameless")]);
        assert_eq!(found.field("a"), Field::Once(b"1\r\n2"));
        assert_eq!(found.field("b"), Field::Once(b""));
        assert_eq!(found.field("c"), Field::Absent);
        assert_eq!(form("x", &[(NAME, "1"), (NAME, "1")]).field("a"), Field::Repeated);
        assert_eq!(form("x", &[(FILE, "1")]).field("a"), Field::File);
    }

    #[test]
    fn the_boundary_does_not_count_and_all_else_does() {
        let first = digest(&form("----WebKitFormBoundaryAAAA", &[(NAME, "1"), (FILE, "2")]));
        assert_eq!(digest(&form("----WebKitFormBoundaryBBBB", &[(NAME, "1"), (FILE, "2")])), first);
        for other in [
            &[(FILE, "2"), (NAME, "1")][..],
            &[(NAME, "1")],
            &[(NAME, "1"), (NAME, "2")],
            &[(NAME, "1"), (FILE, "3")],
            &[(NAME, "1"), (&FILE.replace("a.txt", "b.txt"), "2")],
            &[(NAME, "1"), (&FILE.replace("text/plain", "text/html"), "2")],
        ] {
            assert_ne!(digest(&form("x", other)), first, "{other:?}");
        }
    }

    #[test]
    fn what_is_no_form_is_not_read() {
        let whole = format!("--x\r\n{NAME}\r\n\r\n1\r\n--x--\r\n");
        assert!(parsed("x", &whole).is_some());
        for end in 0..whole.len() - "--\r\n".len() {
            assert!(parsed("x", &whole[..end]).is_none(), "{end}");
        }
        assert!(parsed("y", &whole).is_none());
        assert!(Multipart::parse("multipart/form-data", whole.as_bytes()).is_none());
        assert!(Multipart::parse("application/json", whole.as_bytes()).is_none());
    }
}
