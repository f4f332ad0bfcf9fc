//! Parts of a request or an answer on the command line.

use std::fs;

use http::{HeaderName, HeaderValue};

/// `Name: value`
pub(super) fn header(line: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = line.split_once(':').ok_or("write it as 'Name: value'")?;
    // Neither is repeated: a part of the value may be before a colon, and the value may be a credential.
    let name = name.trim().parse().map_err(|_| "what is before the colon is no header name")?;
    let value = value.trim().parse().map_err(|_| "the value has characters that no header may hold")?;
    Ok((name, value))
}

/// A part of a form: as curl does, a file without its line breaks.
pub(super) fn form(data: &str) -> Result<Vec<u8>, String> {
    let mut part = body(Some(data))?;
    if data.starts_with('@') {
        part.retain(|byte| !matches!(byte, b'\r' | b'\n' | 0));
    }
    Ok(part)
}

/// Text, or `@FILE`; empty if absent.
pub(super) fn body(data: Option<&str>) -> Result<Vec<u8>, String> {
    match data.map(|data| (data, data.strip_prefix('@'))) {
        None => Ok(Vec::new()),
        Some((_, Some(file))) => fs::read(file).map_err(|error| format!("cannot read {file}: {error}")),
        Some((data, None)) => Ok(data.as_bytes().to_vec()),
    }
}
