use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use proptest::prelude::*;
use proptest::sample::select;

use super::super::{DigestKey, DigestKind};
use super::*;

fn parsed<'b>(boundary: &str, body: &'b [u8]) -> Option<Multipart<'b>> {
    Multipart::parse(&format!("multipart/form-data; boundary={boundary}"), body)
}

/// Each part is its head and its content.
fn form(boundary: &str, parts: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (head, content) in parts {
        body.push_str(&format!("--{boundary}\r\n{head}\r\n\r\n{content}\r\n"));
    }
    format!("{body}--{boundary}--\r\n")
}

fn digest(boundary: &str, parts: &[(&str, &str)]) -> [u8; 16] {
    let mut digest = DigestKey::from_bytes([7; 32]).digest(DigestKind::Reading);
    parsed(boundary, form(boundary, parts).as_bytes()).expect("a form").add_to(&mut digest, |_| true);
    digest.finish()
}

const NAME: &str = "Content-Disposition: form-data; name=\"a\"";
const FILE: &str = "Content-Disposition: form-data; name=\"a\"; filename=\"a.txt\"\r\nContent-Type: text/plain";

#[test]
fn fields_are_found() {
    let other = "content-disposition: form-data; name=b";
    let body = form("x", &[(NAME, "1\r\n2"), (other, ""), ("Content-Disposition: form-data", "nameless")]);
    let found = parsed("x", body.as_bytes()).expect("a form");
    assert_eq!(found.field("a"), FormField::Once(b"1\r\n2"));
    assert_eq!(found.field("b"), FormField::Once(b""));
    assert_eq!(found.field("c"), FormField::Absent);
    assert_eq!(found.oddity(), None);
    let twice = form("x", &[(NAME, "1"), (NAME, "1")]);
    assert_eq!(parsed("x", twice.as_bytes()).expect("a form").field("a"), FormField::Repeated);
    let file = form("x", &[(FILE, "1")]);
    assert_eq!(parsed("x", file.as_bytes()).expect("a form").field("a"), FormField::File);
    let like = form("x", &[(NAME, "1"), (&NAME.replace("\"a\"", "\"a[]\""), "1")]);
    assert_eq!(parsed("x", like.as_bytes()).expect("a form").field("a"), FormField::Lookalike);
    assert!(parsed("x", b"--x--").is_some_and(|form| form.parts.is_empty()));
    assert!(parsed("x", b"--x\r\n\r\nnameless\r\n--x--").is_some_and(|form| form.parts.len() == 1));
}

#[test]
fn the_boundary_does_not_count_and_all_else_does() {
    let first = digest("----WebKitFormBoundaryAAAA", &[(NAME, "1"), (FILE, "2")]);
    assert_eq!(digest("----WebKitFormBoundaryBBBB", &[(NAME, "1"), (FILE, "2")]), first);
    for other in [
        &[(FILE, "2"), (NAME, "1")][..],
        &[(NAME, "1")],
        &[(NAME, "1"), (NAME, "2")],
        &[(NAME, "1"), (FILE, "3")],
        &[(NAME, "1"), (&FILE.replace("a.txt", "b.txt"), "2")],
        &[(NAME, "1"), (&FILE.replace("text/plain", "text/html"), "2")],
    ] {
        assert_ne!(digest("x", other), first, "{other:?}");
    }
}

#[test]
fn what_is_no_form_is_not_read() {
    let whole = format!("--x\r\n{NAME}\r\n\r\n1\r\n--x--\r\n");
    assert!(parsed("x", whole.as_bytes()).is_some());
    for end in 0..whole.len() - "--\r\n".len() {
        assert!(parsed("x", &whole.as_bytes()[..end]).is_none(), "{end}");
    }
    for wrong in [
        "--x\r\n--x--\r\n",
        "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n1\r\n--x--\r\n",
        "--x\r\nContent-Disposition : form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n",
        "--x\r\nContent-Disposition: form-data;\r\n name=\"a\"\r\n\r\n1\r\n--x--\r\n",
        "--x \r\n\r\n1\r\n--x--\r\n",
        "--xy\r\n\r\n1\r\n--xy--\r\n",
        "x\r\n1\r\nx--",
        "",
    ] {
        assert!(parsed("x", wrong.as_bytes()).is_none(), "{wrong}");
    }
    assert!(parsed("y", whole.as_bytes()).is_none());
    for content_type in
        ["multipart/form-data", "application/json", "multipart/form-data; boundary=", "x; boundary=\"x \""]
    {
        assert!(Multipart::parse(content_type, whole.as_bytes()).is_none(), "{content_type}");
    }
}

#[test]
fn what_readers_differ_in_is_odd() {
    let is_odd = |content_type: &str, body: &str| {
        Multipart::parse(content_type, body.as_bytes()).unwrap_or_else(|| panic!("{body}")).oddity().is_some()
    };
    let whole = form("x", &[(NAME, "1")]);
    for (content_type, expected) in [
        ("multipart/form-data; boundary=x", false),
        ("multipart/form-data; boundary=\"x\"", false),
        ("multipart/form-data;Boundary=x; charset=utf-8", false),
        ("multipart/form-data; boundary=x; boundary=y", true),
        ("multipart/form-data; boundary=x; BOUNDARY=x", true),
        ("multipart/form-data; my-boundary=y; boundary=x", true),
        ("multipart/form-data; a=\"boundary=y\"; boundary=x", true),
        ("multipart/form-data; boundary=x; boundary*=y", true),
    ] {
        assert_eq!(is_odd(content_type, &whole), expected, "{content_type}");
    }
    for boundary in ["----WebKitFormBoundary7MA4", "a,b", "\\\"x"] {
        let content_type = format!("multipart/form-data; boundary={boundary}");
        assert_eq!(is_odd(&content_type, &form(boundary, &[(NAME, "1")])), boundary.len() < 5, "{boundary}");
    }
    let odd = |body: &str| is_odd("multipart/form-data; boundary=x", body);
    for (around, expected) in [
        (format!("\r\n \r\n{whole}\r\n"), false),
        (format!("preamble\r\n{whole}"), true),
        (format!("{whole}epilogue"), true),
        (format!("{whole}{whole}"), true),
        (whole.replace("\r\n1\r\n", "\r\n1\n--x\n\r\n"), true),
        (whole.replace("\r\n1\r\n", "\r\n1\r--x\r\n"), true),
        (whole.replace("\r\n1\r\n", "\r\n1 --x\r\n"), false),
    ] {
        assert_eq!(odd(&around), expected, "{around:?}");
    }
    for (head, expected) in [
        ("Content-Disposition: form-data; name=\"a\"", false),
        ("content-disposition: Form-Data; name=\"a\"", false),
        ("Content-Disposition: form-data; name=a", false),
        ("Content-Disposition: form-data; name=a; filename=\"b\"; filename*=utf-8''b", false),
        ("Content-Disposition: form-data; name=a; filename=\"C:\\b\\c\"", false),
        ("Content-Disposition: form-data; name=a; filename=\"b\\\"c.txt\"", false),
        ("Content-Disposition: form-data; name=\"a\" \t", false),
        ("Content-Disposition: form-data; name=\"a\"\r", true),
        ("Content-Disposition: form-data; name=\"a\"\x0c", true),
        ("Content-Disposition:\rform-data; name=\"a\"", true),
        ("Content-Disposition: form-data; NAME=\"a\"", true),
        ("Content-Disposition: form-data; name='a'", true),
        ("Content-Disposition: form-data; name*=utf-8''a", true),
        ("Content-Disposition: form-data; name*0=a", true),
        ("Content-Disposition: form-data; name=\"b\"; name=\"a\"", true),
        ("Content-Disposition: form-data; name=\"b\"; name*=utf-8''a", true),
        ("Content-Disposition: form-data; name=\"\\a\"", true),
        ("Content-Disposition: form-data; name=b c", true),
        ("Content-Disposition: form-data; filename=\"a\\\"; name=\"k\"", true),
        ("Content-Disposition: form-data; name=\"a\"; filename=b; filename=c", true),
        ("Content-Disposition: form-data; name=\"a\"; FileName=b", true),
        ("Content-Disposition: attachment; name=\"a\"", true),
        ("Content-Disposition: form-data; name=\"a\"\r\nContent-Disposition: form-data; name=\"b\"", true),
        ("X: y\nContent-Disposition: form-data; name=\"b\"\r\nContent-Disposition: form-data; name=\"a\"", true),
        ("Content-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: 8Bit", false),
        ("Content-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: base64", true),
        ("Content-Disposition: form-data; name=\"a\"\r\nContent-Transfer-Encoding: quoted-printable", true),
        ("Content-Disposition: form-data; name=\"a\"\r\nContent-Encoding: gzip", true),
        ("Content-Disposition: form-data; name=\"a\"\r\nContent-Length: 1", false),
        ("Content-Disposition: form-data; name=\"a\"\r\nContent-Length: 2", true),
        ("Content-Disposition: form-data; name=\"_charset_\"", true),
        ("Content-Type: text/plain", false),
    ] {
        assert_eq!(odd(&form("x", &[(head, "1")])), expected, "{head:?}");
    }
    assert!(!odd(&form("x", &[(&NAME.replace("\"a\"", "\"_charset_\""), "UTF-8")])));
}

/// What another reader finds: names and contents.
fn by_another_reader(body: &[u8]) -> Option<Vec<(Option<String>, Bytes)>> {
    let body = Full::new(Bytes::copy_from_slice(body)).into_data_stream();
    let mut reader = multer::Multipart::new(body, "x");
    let read = async move {
        let mut parts = Vec::new();
        while let Some(field) = reader.next_field().await? {
            parts.push((field.name().map(str::to_owned), field.bytes().await?));
        }
        Ok::<_, multer::Error>(parts)
    };
    match pin!(read).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(parts) => parts.ok(),
        Poll::Pending => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// The judge is an independent reader: where nothing is odd, it reads the same.
    #[test]
    fn readers_agree(pieces in proptest::collection::vec(select(vec![
        "--x\r\n", "--x\r\n", "--x", "--x--\r\n", "\r\n", "\r\n", "\n", "\r", "--", "a", "; ", "\"", "\\", "'",
        "Content-Disposition: form-data; name=\"a\"\r\n\r\n",
        "Content-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n",
        "Content-Disposition: form-data; name=b; filename=\"c\"\r\nContent-Type: text/plain\r\n\r\n",
        "Content-Disposition: form-data; ", "name=\"a\"", "filename=\"a\"", "Content-Type: text/plain\r\n",
    ]), 0..12)) {
        let mut body = pieces.concat();
        body.push_str("\r\n--x--\r\n");
        if let Some(ours) = parsed("x", body.as_bytes()).filter(|form| form.oddity().is_none()) {
            let ours: Vec<_> = ours.parts.iter().map(|part| (part.name.clone(), Bytes::copy_from_slice(part.content))).collect();
            prop_assert_eq!(Some(ours), by_another_reader(body.as_bytes()), "{:?}", body);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in proptest::collection::vec(any::<u8>(), 0..64), content_type in "[ -~]{0,40}") {
        let _ = Multipart::parse(&content_type, &body);
        let _ = Multipart::parse("multipart/form-data; boundary=\"\"", &body);
    }
}
