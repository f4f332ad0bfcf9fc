//! Parts of a request or an answer on the command line.

use std::fs;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderName, HeaderValue};

/// `Name: value`
pub(super) fn header(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = line.split_once(':').ok_or("write it as 'Name: value'")?;
    // Neither is repeated: a part of the value may be before a colon, and the value may be a credential.
    let name = name.trim().parse().map_err(|_| "what is before the colon is no header name")?;
    let value = value.trim().parse().map_err(|_| "the value has characters that no header may hold")?;
    Ok((name, value))
}

/// A part of a form.
pub(super) fn form(data: &str) -> Result<Vec<u8>, String> {
    Ok(form_part(data, body(Some(data))?))
}

/// As curl does, a file without its line breaks.
pub(super) fn form_part(data: &str, mut part: Vec<u8>) -> Vec<u8> {
    if data.starts_with('@') {
        part.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
    }
    part
}

/// Text, or `@FILE`, or `@-` for standard input; empty if absent.
pub(super) fn body(data: Option<&str>) -> Result<Vec<u8>, String> {
    match data.map(|data| (data, data.strip_prefix('@'))) {
        None => Ok(Vec::new()),
        Some((_, Some("-"))) => standard_input(),
        Some((_, Some(file))) => fs::read(file).map_err(|error| format!("cannot read {file}: {error}")),
        Some((data, None)) => Ok(data.as_bytes().to_vec()),
    }
}

fn standard_input() -> Result<Vec<u8>, String> {
    // A second reading would find nothing.
    static IS_READ: AtomicBool = AtomicBool::new(false);
    if IS_READ.swap(true, Ordering::Relaxed) {
        return Err("standard input is read once: give one body as @-, and the other as @FILE".to_owned());
    }
    let mut body = Vec::new();
    io::stdin().lock().read_to_end(&mut body).map_err(|error| format!("cannot read standard input: {error}"))?;
    Ok(body)
}

/// Whether it is a JSON object or list, as far as its first character tells.
pub(super) fn looks_like_json(body: &[u8]) -> bool {
    matches!(body.trim_ascii_start().first(), Some(b'{' | b'['))
}
