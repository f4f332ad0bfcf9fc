//! What others need to ask about an attempt: kept with its record, encrypted, and skipped by whoever does not know it.
//!
//! ```text
//! extension:  algorithm u8 (1), key's id (8), nonce (12), then encrypted, and the tag (16)
//! encrypted:  layout u8 (1), attempt timeout u64 in milliseconds, then for each value: length u16, name, length u16, value
//! key:        expanded to 32 bytes; info: "probe", token (16), digest (16) and route of the record's name
//! ```
//!
//! The values are parts of a request, so they are kept only where there are [`encryption_keys`](super::super::encryption),
//! and for as long as the outcome is not known. They are bound to the record's name and the owner's token: those of
//! another record or attempt do not decrypt. What cannot be read for any reason is as if it was not there: then nobody
//! but the owner asks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::super::encryption::{Encryption, EncryptionHeader, EncryptionKey};
use super::super::{Claim, RecordName, code};

/// What others need to ask about an attempt. `Debug` does not show the values.
#[derive(Clone, PartialEq, Eq)]
pub struct ProbeFacts {
    /// How long the attempt may take, by the configuration of its owner.
    pub attempt_timeout: Duration,
    /// What the question takes from the request: each value with its name in the configuration, like `key` or
    /// `json:/order`. And `host`, where that of the request was sent.
    pub values: Vec<(String, Vec<u8>)>,
}

/// The name of the value that is the `Host` of the request, as its client wrote it. No part of a path has this name.
const HOST: &str = "host";

/// Bytes of all values and names. A claim is written on the path of a request, so it must stay small.
const MOST: usize = 4096;
const LAYOUT: u8 = 1;

impl ProbeFacts {
    /// Adds them to a claim. Without a key, or if they are too long, the claim stays as it is.
    pub fn keep(&self, claim: &mut Claim, name: &RecordName, encryption: Option<Encryption<'_>>) {
        let sealed = encryption.zip(self.encode()).map(|(encryption, plain)| {
            let header = EncryptionHeader::new(encryption);
            header.seal_probe(encryption.key, name, claim.token, &plain)
        });
        if let Some(sealed) = sealed {
            claim.extensions.insert(code::PROBE, &sealed);
        }
    }

    /// Those that are kept with a claim, if one of the keys decrypts them.
    pub fn of(claim: &Claim, name: &RecordName, keys: &[Arc<EncryptionKey>]) -> Option<Self> {
        let plain = EncryptionHeader::open_probe(claim.extensions.get(code::PROBE)?, keys, name, claim.token)?;
        Self::decode(&plain)
    }

    /// The host that the request named. `None`: the upstream's own was sent.
    pub fn host(&self) -> Option<HeaderValue> {
        HeaderValue::from_bytes(self.value(HOST)?).ok()
    }

    /// Adds the host that the request named.
    pub fn add_host(&mut self, host: &HeaderValue) {
        self.values.push((HOST.to_owned(), host.as_bytes().to_vec()));
    }

    /// The value of this name.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| &value[..])
    }

    /// `None`: they are too long.
    fn encode(&self) -> Option<Vec<u8>> {
        let length: usize = self.values.iter().map(|(name, value)| name.len() + value.len()).sum();
        if length > MOST {
            return None;
        }
        let millis = u64::try_from(self.attempt_timeout.as_millis()).unwrap_or(u64::MAX);
        let mut out = Vec::with_capacity(1 + 8 + self.values.len() * 4 + length);
        out.push(LAYOUT);
        out.extend_from_slice(&millis.to_le_bytes());
        for part in self.values.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
            // Not longer than all of them.
            out.extend_from_slice(&(part.len() as u16).to_le_bytes());
            out.extend_from_slice(part);
        }
        Some(out)
    }

    fn decode(plain: &[u8]) -> Option<Self> {
        let (&LAYOUT, rest) = plain.split_first()? else { return None };
        let (millis, mut rest) = rest.split_first_chunk()?;
        let attempt_timeout = Duration::from_millis(u64::from_le_bytes(*millis));
        let mut values = Vec::new();
        while !rest.is_empty() {
            let name = String::from_utf8(part(&mut rest)?.to_vec()).ok()?;
            values.push((name, part(&mut rest)?.to_vec()));
        }
        Some(Self { attempt_timeout, values })
    }
}

fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, behind) = rest.split_first_chunk()?;
    let (part, others) = behind.split_at_checked(u16::from_le_bytes(*length).into())?;
    *rest = others;
    Some(part)
}

impl fmt::Debug for ProbeFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.values.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("ProbeFacts").field("attempt_timeout", &self.attempt_timeout).field("values_of", &names).finish()
    }
}

#[cfg(test)]
mod tests;
