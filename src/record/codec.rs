//! The bytes of a record, version 1.
//!
//! Records outlive versions of this program, so the layout is written by hand and fixed; golden bytes
//! in the tests hold it. All numbers are little endian.
//!
//! ```text
//!   0  version      u8   1
//!   1  state        u8   1 in flight, 2 completed, 3 unreplayable, 4 unknown
//!   2  flags        u16  bit 0: the body lies apart; bit 1: the terms say retry
//!   4  token        16
//!  20  attempt      u32
//!  24  lease        u64  milliseconds, like all that follow
//!  32  retention    u64
//!  40  hold for     u64  0 under retry
//!  48  claimed at   u64
//!  56  settled at   u64  0 in flight
//!  64  recipe       u64
//!  72  target       16
//!  88  body digest  16
//! 104  completed:    status u16, fields, trailers, body length u64, the body (or 16 bytes of digest of one apart)
//!      unreplayable: status u16, fields (none, or Location)
//!      fields:       count u16, then for each: name length u16, name, value length u32, value
//! end  checksum     8    BLAKE3 of all that stands before it
//! ```
//!
//! A record has one encoding: what is read is refused unless writing it would give the same bytes again.
//!
//! Scripts inside Redis read version, state and token at their offsets; everything else is read here only.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{Claim, Fingerprint, Phase, Record, Reply, State, Summary, Terms, Token, Unknown};

const VERSION: u8 = 1;
const IN_FLIGHT: u8 = 1;
const COMPLETED: u8 = 2;
const UNREPLAYABLE: u8 = 3;
const UNKNOWN: u8 = 4;

const BODY_APART: u16 = 1;
const RETRY: u16 = 1 << 1;

const CHECKSUM: usize = 8;
const FIXED: usize = 104;

/// As many bytes of a record as tell its [`Summary`].
pub const HEAD: usize = FIXED + 2;

/// Where a completed record's body lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// In the record.
    Within,
    /// Under a name of its own; the record holds its length and digest.
    Apart,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// All of it.
    Whole(Record),
    /// All but its body.
    Bodiless(Bodiless),
}

/// A completed record whose body lies apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bodiless {
    record: Record,
    length: u64,
    digest: [u8; 16],
}

/// Why a record cannot be read. Such a record is never run over, and never replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Written by a version of this program that knows more.
    #[error("it was written by a newer version of onlyonce (layout {0})")]
    Newer(u8),
    /// Not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// The bytes of `record`.
///
/// No length is cut to what its number can hold. An answer that has no encoding, with more lines than a record can count,
/// is written as one that was given and cannot be replayed: that is true, and safe.
pub fn encode(record: &Record, placement: Placement) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIXED + CHECKSUM + reply_size(&record.state, placement));
    // The head says what follows it, so it is written last.
    out.resize(FIXED, 0);
    let (state, flags, settled_at) = match &record.state {
        State::InFlight => (IN_FLIGHT, 0, 0),
        State::Unknown { settled_at } => (UNKNOWN, 0, *settled_at),
        State::Completed { settled_at, reply } => match (encode_reply(&mut out, reply, placement), placement) {
            (Some(()), Placement::Within) => (COMPLETED, 0, *settled_at),
            (Some(()), Placement::Apart) => (COMPLETED, BODY_APART, *settled_at),
            (None, _) => {
                out.truncate(FIXED);
                encode_unreplayable(&mut out, reply.status, reply.headers.get(header::LOCATION));
                (UNREPLAYABLE, 0, *settled_at)
            }
        },
        State::Unreplayable { settled_at, status, location } => {
            encode_unreplayable(&mut out, *status, location.as_ref());
            (UNREPLAYABLE, 0, *settled_at)
        }
    };
    out[..FIXED].copy_from_slice(&encode_fixed(&record.claim, state, flags, settled_at));
    let checksum = blake3::hash(&out);
    out.extend(&checksum.as_bytes()[..CHECKSUM]);
    out
}

fn encode_fixed(claim: &Claim, state: u8, flags: u16, settled_at: u64) -> [u8; FIXED] {
    let (retry, hold_for) = match claim.terms.on_unknown {
        Unknown::Hold(hold_for) => (0, millis(hold_for)),
        Unknown::Retry => (RETRY, 0),
    };
    let (lease, retention) = (millis(claim.terms.lease), millis(claim.terms.retention));
    let times = [lease, retention, hold_for, claim.claimed_at, settled_at, claim.fingerprint.recipe];
    let times = times.map(u64::to_le_bytes).concat();
    let mut out = [0; FIXED];
    let parts: [&[u8]; 7] = [
        &[VERSION, state],
        &(retry | flags).to_le_bytes(),
        &claim.token.0,
        &claim.attempt.to_le_bytes(),
        &times,
        &claim.fingerprint.target,
        &claim.fingerprint.body,
    ];
    let mut at = 0;
    for part in parts {
        out[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    debug_assert_eq!(at, FIXED);
    out
}

fn reply_size(state: &State, placement: Placement) -> usize {
    let State::Completed { reply, .. } = state else { return 64 };
    let fields = reply.headers.iter().chain(&reply.trailers);
    let fields: usize = fields.map(|(name, value)| 6 + name.as_str().len() + value.len()).sum();
    let body = match placement {
        Placement::Within => reply.body.iter().map(Bytes::len).sum(),
        Placement::Apart => 16,
    };
    14 + fields + body
}

/// `None` where a number is too small for what it is to count. What was written until then means nothing.
fn encode_reply(out: &mut Vec<u8>, reply: &Reply, placement: Placement) -> Option<()> {
    out.extend(reply.status.as_u16().to_le_bytes());
    for fields in [&reply.headers, &reply.trailers] {
        out.extend(u16::try_from(fields.len()).ok()?.to_le_bytes());
        fields.iter().try_for_each(|(name, value)| encode_field(out, name, value))?;
    }
    out.extend(reply.body_len().to_le_bytes());
    match placement {
        Placement::Within => reply.body.iter().for_each(|piece| out.extend_from_slice(piece)),
        Placement::Apart => out.extend(body_digest(&reply.body)),
    }
    Some(())
}

/// A `Location` without encoding is left out.
fn encode_unreplayable(out: &mut Vec<u8>, status: StatusCode, location: Option<&HeaderValue>) {
    out.extend(status.as_u16().to_le_bytes());
    let count = out.len();
    out.extend(1_u16.to_le_bytes());
    if location.and_then(|location| encode_field(out, &header::LOCATION, location)).is_none() {
        out.truncate(count);
        out.extend(0_u16.to_le_bytes());
    }
}

fn encode_field(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) -> Option<()> {
    out.extend(u16::try_from(name.as_str().len()).ok()?.to_le_bytes());
    out.extend(name.as_str().as_bytes());
    out.extend(u32::try_from(value.len()).ok()?.to_le_bytes());
    out.extend(value.as_bytes());
    Some(())
}

fn body_digest(pieces: &[Bytes]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    pieces.iter().for_each(|piece| {
        hasher.update(piece);
    });
    let mut out = [0; 16];
    hasher.finalize_xof().fill(&mut out);
    out
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads the bytes of a record. Bodies and header values share them.
pub fn decode(bytes: &Bytes) -> Result<Decoded, Unreadable> {
    check_version(bytes)?;
    let Some(length) = bytes.len().checked_sub(CHECKSUM).filter(|length| *length >= FIXED) else {
        return Err(Unreadable::Damaged("it is too short"));
    };
    if blake3::hash(&bytes[..length]).as_bytes()[..CHECKSUM] != bytes[length..] {
        return Err(Unreadable::Damaged("its checksum does not match"));
    }
    let mut input = bytes.slice(..length);
    let input = &mut input;

    let Fixed { phase, flags, claim, settled_at } = decode_fixed(input)?;
    if flags & BODY_APART != 0 && phase != Phase::Completed {
        return Err(Unreadable::Damaged("it has a body that none of its kind has"));
    }
    let mut apart = None;
    let state = match phase {
        Phase::InFlight if settled_at != 0 => return Err(Unreadable::Damaged("it is settled and in flight")),
        Phase::InFlight => State::InFlight,
        Phase::Unknown => State::Unknown { settled_at },
        Phase::Completed => {
            let (reply, body) = decode_reply(input, flags & BODY_APART != 0)?;
            apart = body;
            State::Completed { settled_at, reply: Arc::new(reply) }
        }
        Phase::Unreplayable => {
            let status = decode_status(input)?;
            let fields = decode_fields(input)?;
            let location = fields.get(header::LOCATION).cloned();
            if fields.len() > usize::from(location.is_some()) {
                return Err(Unreadable::Damaged("it has fields that none of its kind has"));
            }
            State::Unreplayable { settled_at, status, location }
        }
    };
    if input.has_remaining() {
        return Err(Unreadable::Damaged("something stands behind its end"));
    }
    let record = Record { claim, state };
    Ok(match apart {
        None => Decoded::Whole(record),
        Some((length, digest)) => Decoded::Bodiless(Bodiless { record, length, digest }),
    })
}

/// What the first [`HEAD`] bytes of a record tell; more of them may be there. Whether the record is whole, they do not.
pub fn summarise(bytes: &Bytes) -> Result<Summary, Unreadable> {
    check_version(bytes)?;
    if bytes.len() < HEAD {
        return Err(Unreadable::Damaged("it is too short"));
    }
    let mut input = bytes.slice(..HEAD);
    let Fixed { phase, claim, settled_at, .. } = decode_fixed(&mut input)?;
    let status = match phase {
        Phase::Completed | Phase::Unreplayable => Some(decode_status(&mut input)?),
        Phase::InFlight | Phase::Unknown => None,
    };
    Ok(Summary { claim, phase, settled_at: (phase != Phase::InFlight).then_some(settled_at), status })
}

fn check_version(bytes: &[u8]) -> Result<(), Unreadable> {
    match bytes.first() {
        None => Err(Unreadable::Damaged("it is empty")),
        Some(&VERSION) => Ok(()),
        Some(&other) => Err(Unreadable::Newer(other)),
    }
}

/// What stands in the first [`FIXED`] bytes.
struct Fixed {
    phase: Phase,
    flags: u16,
    claim: Claim,
    settled_at: u64,
}

/// Takes [`FIXED`] bytes off an input that has them.
fn decode_fixed(input: &mut Bytes) -> Result<Fixed, Unreadable> {
    input.advance(1);
    let phase = match input.get_u8() {
        IN_FLIGHT => Phase::InFlight,
        COMPLETED => Phase::Completed,
        UNREPLAYABLE => Phase::Unreplayable,
        UNKNOWN => Phase::Unknown,
        _ => return Err(Unreadable::Damaged("it has a state of no known meaning")),
    };
    let flags = input.get_u16_le();
    if flags & !(BODY_APART | RETRY) != 0 {
        return Err(Unreadable::Damaged("it has flags of no known meaning"));
    }
    let token = Token(take(input)?);
    let attempt = input.get_u32_le();
    let mut number = || input.get_u64_le();
    let (lease, retention, hold_for, claimed_at, settled_at, recipe) =
        (number(), number(), number(), number(), number(), number());
    let fingerprint = Fingerprint { recipe, target: take(input)?, body: take(input)? };
    let on_unknown = match (flags & RETRY, hold_for) {
        (0, _) => Unknown::Hold(Duration::from_millis(hold_for)),
        (_, 0) => Unknown::Retry,
        (_, _) => return Err(Unreadable::Damaged("it is held under retry")),
    };
    let terms = Terms { lease: Duration::from_millis(lease), retention: Duration::from_millis(retention), on_unknown };
    Ok(Fixed { phase, flags, claim: Claim { token, attempt, terms, fingerprint, claimed_at }, settled_at })
}

/// What sets a record apart from every other that lies, lay or will lie under its name: state, token and attempt, as
/// they stand at offsets 1 and 4.
pub fn identity(seen: &Summary) -> (u8, [u8; 20]) {
    let state = match seen.phase {
        Phase::InFlight => IN_FLIGHT,
        Phase::Completed => COMPLETED,
        Phase::Unreplayable => UNREPLAYABLE,
        Phase::Unknown => UNKNOWN,
    };
    let mut owner = [0; 20];
    owner[..16].copy_from_slice(&seen.claim.token.0);
    owner[16..].copy_from_slice(&seen.claim.attempt.to_le_bytes());
    (state, owner)
}

/// Length and digest of a body that lies apart.
type Apart = (u64, [u8; 16]);

fn decode_reply(input: &mut Bytes, apart: bool) -> Result<(Reply, Option<Apart>), Unreadable> {
    let status = decode_status(input)?;
    let headers = decode_fields(input)?;
    let trailers = decode_fields(input)?;
    let length = u64::from_le_bytes(take(input)?);
    if apart {
        let digest = take(input)?;
        return Ok((Reply { status, headers, body: Vec::new(), trailers }, Some((length, digest))));
    }
    let body =
        usize::try_from(length).ok().filter(|length| *length <= input.len()).map(|length| input.split_to(length));
    let body = body.ok_or(Unreadable::Damaged("its body is cut short"))?;
    let body = if body.is_empty() { Vec::new() } else { vec![body] };
    Ok((Reply { status, headers, body, trailers }, None))
}

fn decode_status(input: &mut Bytes) -> Result<StatusCode, Unreadable> {
    StatusCode::from_u16(u16::from_le_bytes(take(input)?)).map_err(|_| Unreadable::Damaged("its status is none"))
}

fn decode_fields(input: &mut Bytes) -> Result<HeaderMap, Unreadable> {
    let count = u16::from_le_bytes(take(input)?);
    let mut fields = HeaderMap::with_capacity(usize::from(count).min(256));
    let mut last = None;
    for _ in 0..count {
        let length = u16::from_le_bytes(take(input)?);
        let name = split(input, usize::from(length))?;
        let length = u32::from_le_bytes(take(input)?);
        let value = split(input, length as usize)?;
        let name = HeaderName::from_lowercase(&name).map_err(|_| Unreadable::Damaged("a field name is none"))?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Unreadable::Damaged("a field value is none"))?;
        let known = fields.try_append(&name, value).map_err(|_| Unreadable::Damaged("it has too many fields"))?;
        if known && last.as_ref() != Some(&name) {
            return Err(Unreadable::Damaged("the lines of a field stand apart"));
        }
        last = Some(name);
    }
    Ok(fields)
}

fn take<const N: usize>(input: &mut Bytes) -> Result<[u8; N], Unreadable> {
    let mut out = [0; N];
    out.copy_from_slice(&split(input, N)?);
    Ok(out)
}

fn split(input: &mut Bytes, length: usize) -> Result<Bytes, Unreadable> {
    if length > input.len() {
        return Err(Unreadable::Damaged("it is cut short"));
    }
    Ok(input.split_to(length))
}

impl Bodiless {
    /// The record as it is, for those who need no body.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Bytes of the body.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Puts the body back, if it is the right one.
    pub fn with_body(mut self, body: Bytes) -> Result<Record, Unreadable> {
        if body.len() as u64 != self.length || body_digest(std::slice::from_ref(&body)) != self.digest {
            return Err(Unreadable::Damaged("its body is not the one that was stored"));
        }
        if let State::Completed { reply, .. } = &mut self.record.state {
            Arc::make_mut(reply).body = vec![body];
        }
        Ok(self.record)
    }
}
