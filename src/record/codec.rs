//! The bytes of a record, layout 2.
//!
//! Records outlive versions of this program, so the layout is written by hand and fixed. Golden bytes in the tests
//! guard it. Numbers are little endian. A *varint* has seven bits in each byte, the lowest first; the highest bit is
//! set in all bytes but the last; it has no more bytes than it needs.
//!
//! ```text
//!   0  version      u8   2
//!   1  state        u8   1 in flight, 2 completed, 3 unreplayable, 4 unknown
//!   2  flags        u16  bit 0: the body lies apart; bit 1: the terms say retry
//!   4  token        16
//!  20  attempt      u32
//!  24  status       u16  0 in flight and unknown
//!  26  extensions   u16  bytes of them
//!  28  lease        u64  milliseconds, like all that follow
//!  36  retention    u64
//!  44  hold for     u64  0 under retry
//!  52  claimed at   u64
//!  60  settled at   u64  0 in flight
//!  68  recipe       u64
//!  76  target       16
//!  92  body digest  16
//! 108  extensions:  for each, in ascending order: code u8 (128 and above: critical), length u16, bytes
//!      completed:    fields, trailers, and the body up to the checksum (one apart: its length u64, and that of a chunk u32)
//!      unreplayable: fields (none, or Location)
//!      fields:       count varint, then for each: name length varint, name, value length varint, value
//! end  checksum     8    XXH3-64 of all that stands before it
//! ```
//!
//! A record has exactly one encoding: reading refuses bytes that writing would not produce. The checksum detects
//! damage, and is verified before anything else is used. It does not protect against somebody who writes to the store.
//!
//! [`Extensions`] say what else there is. One of them says that what follows them is [encrypted](super::encryption). A
//! body that is stored apart is stored in [chunks](super::chunks).
//!
//! Scripts in Redis read version, state, token and attempt at their offsets. Everything else is read here only. No
//! release had layout 1.

mod fields;
mod input;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use xxhash_rust::xxh3::xxh3_64;

use super::chunks::{ApartBody, Cut};
use super::compression::{self, CompressedBody};
use super::encryption::{self, Encryption, EncryptionHeader, EncryptionKey, KeyId};
use super::extensions::ReadExtensions;
use super::{
    Claim, Extensions, Fingerprint, Phase, Record, RecordName, Reply, ReplyBody, State, Summary, Terms, Token,
    UnknownPolicy,
};
use fields::{fields_len, put_fields};
use input::RecordInput;

/// The layout: the first byte of a record.
pub const VERSION: u8 = 2;
const IN_FLIGHT: u8 = 1;
const COMPLETED: u8 = 2;
const UNREPLAYABLE: u8 = 3;
const UNKNOWN: u8 = 4;

const BODY_APART: u16 = 1;
const RETRY: u16 = 1 << 1;

const CHECKSUM: usize = 8;
/// Length of a body that is stored apart, and of its chunks.
const CUT: usize = 8 + 4;

/// The number of bytes that contain a [`Summary`], but for who has settled the record.
pub const HEAD: usize = 108;
/// The number of bytes that tell that, too: the extensions of a settled record begin with it, or with the span of its
/// request.
pub const LISTED: usize = HEAD + 3 + 25 + 3 + 1;

/// Where the body of a completed record is to be stored, if it is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// In the record.
    Within,
    /// In chunks, which are stored before the record.
    Apart(Cut),
}

impl Placement {
    /// A body that is not in memory stays where it is stored.
    fn of(self, reply: &Reply) -> Self {
        match &reply.body {
            ReplyBody::Held(_) | ReplyBody::Compressed(_) => self,
            ReplyBody::Apart(apart) => Self::Apart(apart.cut),
        }
    }
}

/// Why a record cannot be read. Such a record is never overwritten and never replayed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It was written by a later version of this program.
    #[error("it was written by a newer version of onlyonce (layout {0})")]
    Newer(u8),
    /// It was written before the layout was fixed.
    #[error("it was written by a version of onlyonce that was never released (layout {0})")]
    Older(u8),
    /// It has a critical extension of this code.
    #[error("it was written by a newer version of onlyonce (extension {0})")]
    Extension(u8),
    /// It is encrypted, and the key is not at hand.
    #[error("it is encrypted with the key {0}, which is none of store.encryption_keys")]
    NoKey(KeyId),
    /// It is damaged.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// The bytes of `record`. No length is cut off to fit its field.
pub fn encode(record: &Record, placement: Placement) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_len(record, placement));
    encode_into(&mut out, record, placement);
    out
}

/// The number of bytes that [`encode_into`] writes.
pub fn encoded_len(record: &Record, placement: Placement) -> usize {
    let rest = match (&record.state, placement) {
        (State::InFlight | State::Unknown { .. }, _) => 0,
        (State::Completed { reply, .. }, placement) => {
            let body = match placement.of(reply) {
                Placement::Within => reply.body.stored().iter().map(Bytes::len).sum(),
                Placement::Apart(_) => CUT,
            };
            let body = body + compression::extension(&reply.body).map_or(0, |extension| extension.len());
            fields_len(reply.headers.iter()) + fields_len(reply.trailers.iter()) + body
        }
        (State::Unreplayable { location, .. }, _) => fields_len(located(location.as_ref())),
    };
    HEAD + record.claim.extensions.as_bytes().len() + rest + CHECKSUM
}

/// The bytes of `record`, its answer encrypted if it has one.
pub fn encode_encrypted(
    record: &Record,
    placement: Placement,
    name: &RecordName,
    encryption: Encryption<'_>,
) -> Vec<u8> {
    let key = match &record.state {
        State::InFlight | State::Unknown { .. } => return encode(record, placement),
        State::Completed { .. } | State::Unreplayable { .. } => match record.apart_body() {
            // A body that is stored already stays as it is, and so does what is said of it.
            Some(ApartBody { key: None, .. }) => return encode(record, placement),
            Some(ApartBody { key: Some(key), .. }) => key,
            None => encryption.key,
        },
    };
    let header = EncryptionHeader::new(Encryption { key, ..encryption });
    let mut out = Vec::with_capacity(encoded_len(record, placement) + encryption::EXTENSION + encryption::TAG);
    let content = put_record(&mut out, record, placement, &header.extension());
    header.seal(key, name, record.claim.token, &mut out, (0, content));
    put_checksum(&mut out, 0);
    out
}

/// Appends the bytes of `record`.
pub fn encode_into(out: &mut Vec<u8>, record: &Record, placement: Placement) {
    let start = out.len();
    put_record(out, record, placement, &[]);
    put_checksum(out, start);
}

/// All but the checksum. Returns where the extensions end.
fn put_record(out: &mut Vec<u8>, record: &Record, placement: Placement, encryption: &[u8]) -> usize {
    match &record.state {
        State::InFlight => put_claim(out, &record.claim, [&[]; 2], (IN_FLIGHT, 0), None, 0),
        State::Unknown { settled_at } => put_claim(out, &record.claim, [&[]; 2], (UNKNOWN, 0), None, *settled_at),
        State::Completed { settled_at, reply } => {
            let placement = placement.of(reply);
            let flags = if placement == Placement::Within { 0 } else { BODY_APART };
            let status = Some(reply.status);
            let compression = compression::extension(&reply.body);
            let critical = [compression.as_ref().map_or(&[][..], |extension| &extension[..]), encryption];
            let content = put_claim(out, &record.claim, critical, (COMPLETED, flags), status, *settled_at);
            put_fields(out, reply.headers.len(), reply.headers.iter());
            put_fields(out, reply.trailers.len(), reply.trailers.iter());
            match placement {
                Placement::Within => reply.body.stored().iter().for_each(|piece| out.extend_from_slice(piece)),
                Placement::Apart(cut) => {
                    out.extend_from_slice(&cut.length().to_le_bytes());
                    out.extend_from_slice(&cut.size().to_le_bytes());
                }
            }
            content
        }
        State::Unreplayable { settled_at, status, location } => {
            let content =
                put_claim(out, &record.claim, [&[], encryption], (UNREPLAYABLE, 0), Some(*status), *settled_at);
            put_fields(out, location.iter().len(), located(location.as_ref()));
            content
        }
    }
}

/// The bytes of a record in flight.
pub fn encode_claim(claim: &Claim) -> Vec<u8> {
    let mut out = Vec::with_capacity(claim_len(claim));
    encode_claim_into(&mut out, claim);
    out
}

/// The number of bytes that [`encode_claim_into`] writes.
pub fn claim_len(claim: &Claim) -> usize {
    HEAD + claim.extensions.as_bytes().len() + CHECKSUM
}

/// Appends the bytes of a record in flight.
pub fn encode_claim_into(out: &mut Vec<u8>, claim: &Claim) {
    let start = out.len();
    put_claim(out, claim, [&[]; 2], (IN_FLIGHT, 0), None, 0);
    put_checksum(out, start);
}

fn put_checksum(out: &mut Vec<u8>, start: usize) {
    let checksum = xxh3_64(&out[start..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

/// The first [`HEAD`] bytes, and the extensions: those of the claim, and `critical` ones. Returns where they end.
fn put_claim(
    out: &mut Vec<u8>,
    claim: &Claim,
    critical: [&[u8]; 2],
    (state, flags): (u8, u16),
    status: Option<StatusCode>,
    settled_at: u64,
) -> usize {
    let Claim { token, attempt, terms, fingerprint, claimed_at, extensions } = claim;
    let (retry, hold_for) = match terms.on_unknown {
        UnknownPolicy::Hold(hold_for) => (0, millis(hold_for)),
        UnknownPolicy::Retry => (RETRY, 0),
    };
    let extensions = extensions.as_bytes();
    let mut head = [0; HEAD];
    let mut at = 0;
    let mut put = |bytes: &[u8]| {
        head[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(&[VERSION, state]);
    put(&(retry | flags).to_le_bytes());
    put(&token.0);
    put(&attempt.to_le_bytes());
    put(&status.map_or(0, |status| status.as_u16()).to_le_bytes());
    // They were read with a length of this size, and with room for critical ones.
    put(&((extensions.len() + critical[0].len() + critical[1].len()) as u16).to_le_bytes());
    for number in [millis(terms.lease), millis(terms.retention), hold_for, *claimed_at, settled_at, fingerprint.recipe]
    {
        put(&number.to_le_bytes());
    }
    put(&fingerprint.target);
    put(&fingerprint.body);
    debug_assert_eq!(at, HEAD);
    out.extend_from_slice(&head);
    out.extend_from_slice(extensions);
    critical.iter().for_each(|extension| out.extend_from_slice(extension));
    out.len()
}

fn located(location: Option<&HeaderValue>) -> impl Iterator<Item = (&http::HeaderName, &HeaderValue)> {
    location.into_iter().map(|location| (&header::LOCATION, location))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Reads a record that is not encrypted. Its body and header values share the bytes.
pub fn decode(bytes: &Bytes) -> Result<Record, Unreadable> {
    read(bytes, None)
}

/// Reads the record of this name, whether it is encrypted with one of these keys or not.
pub fn decode_under(bytes: &Bytes, name: &RecordName, keys: &[Arc<EncryptionKey>]) -> Result<Record, Unreadable> {
    read(bytes, Some((name, keys)))
}

fn read(bytes: &Bytes, keyring: Option<(&RecordName, &[Arc<EncryptionKey>])>) -> Result<Record, Unreadable> {
    check_version(bytes)?;
    let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM>().filter(|(content, _)| content.len() >= HEAD)
    else {
        return Err(Unreadable::Damaged("it is too short"));
    };
    if xxh3_64(content) != u64::from_le_bytes(*checksum) {
        return Err(Unreadable::Damaged("its checksum does not match"));
    }
    let mut input = RecordInput::new(bytes, content.len());
    let RecordHead { phase, flags, mut claim, status, settled_at, extensions } = decode_head(&mut input)?;
    let (expands_to, encrypted) = match extensions {
        0 => (None, None),
        length => {
            let ReadExtensions { kept, expands_to, encryption } = Extensions::read(&input.share(length.into())?)?;
            claim.extensions = kept;
            (expands_to, encryption)
        }
    };
    let opened;
    let key = match encrypted {
        None => None,
        Some(_) if matches!(phase, Phase::InFlight | Phase::Unknown) => {
            return Err(Unreadable::Damaged("it is encrypted, and has no answer"));
        }
        Some(header) => {
            let (name, keys) = keyring.ok_or(Unreadable::NoKey(header.key()))?;
            let key = header.key_of(keys)?;
            let head = HEAD + usize::from(extensions);
            opened = header.open(key, name, claim.token, &content[..head], &content[head..])?;
            input = RecordInput::new(&opened, opened.len());
            Some(key)
        }
    };
    if (flags & BODY_APART != 0 || expands_to.is_some()) && phase != Phase::Completed {
        return Err(Unreadable::Damaged("it has a body that none of its kind has"));
    }
    let state = match (phase, status) {
        (Phase::InFlight, None) if settled_at != 0 => return Err(Unreadable::Damaged("it is settled and in flight")),
        (Phase::InFlight, None) => State::InFlight,
        (Phase::Unknown, None) => State::Unknown { settled_at },
        (Phase::Completed, Some(status)) => {
            let (headers, trailers) = (input.fields()?, input.fields()?);
            let body = if flags & BODY_APART != 0 {
                let cut = Cut::read(u64::from_le_bytes(input.array()?), u32::from_le_bytes(input.array()?));
                let cut = cut.ok_or(Unreadable::Damaged("its body lies in chunks of nothing"))?;
                let cut = if key.is_some() { cut.encrypted() } else { cut };
                ReplyBody::Apart(ApartBody { token: claim.token, cut, key: key.cloned(), expands_to })
            } else if let Some(length) = expands_to {
                ReplyBody::Compressed(CompressedBody { frame: input.rest(), length })
            } else {
                ReplyBody::Held(Some(input.rest()).filter(|body| !body.is_empty()).into_iter().collect())
            };
            State::Completed { settled_at, reply: Arc::new(Reply { status, headers, body, trailers }) }
        }
        (Phase::Unreplayable, Some(status)) => {
            let fields = input.fields()?;
            let location = fields.get(header::LOCATION).cloned();
            if fields.len() > usize::from(location.is_some()) {
                return Err(Unreadable::Damaged("it has fields that none of its kind has"));
            }
            State::Unreplayable { settled_at, status, location }
        }
        (Phase::InFlight | Phase::Unknown, Some(_)) | (Phase::Completed | Phase::Unreplayable, None) => {
            return Err(Unreadable::Damaged("its status is not one of its kind"));
        }
    };
    if !input.is_empty() {
        return Err(Unreadable::Damaged("something stands behind its end"));
    }
    Ok(Record { claim, state })
}

/// Reads a summary from the first [`HEAD`] bytes of a record, or more of them. They do not tell whether the record is
/// damaged. Of its extensions, only the one that says who has settled it is read, if it is there.
pub fn summarise(bytes: &Bytes) -> Result<Summary, Unreadable> {
    check_version(bytes)?;
    if bytes.len() < HEAD {
        return Err(Unreadable::Damaged("it is too short"));
    }
    let head = decode_head(&mut RecordInput::new(bytes, HEAD))?;
    let RecordHead { phase, mut claim, settled_at, status, extensions, flags: _ } = head;
    let behind = &bytes[HEAD..];
    claim.extensions = Extensions::settled_by(&behind[..behind.len().min(extensions.into())]);
    Ok(Summary { claim, phase, settled_at: (phase != Phase::InFlight).then_some(settled_at), status })
}

fn check_version(bytes: &[u8]) -> Result<(), Unreadable> {
    match bytes.first() {
        None => Err(Unreadable::Damaged("it is empty")),
        Some(&VERSION) => Ok(()),
        Some(&older @ ..VERSION) => Err(Unreadable::Older(older)),
        Some(&newer) => Err(Unreadable::Newer(newer)),
    }
}

/// The first [`HEAD`] bytes of a record. The claim does not have its extensions yet.
struct RecordHead {
    phase: Phase,
    flags: u16,
    claim: Claim,
    status: Option<StatusCode>,
    settled_at: u64,
    extensions: u16,
}

fn decode_head(input: &mut RecordInput<'_>) -> Result<RecordHead, Unreadable> {
    let [_, state] = input.array()?;
    let phase = match state {
        IN_FLIGHT => Phase::InFlight,
        COMPLETED => Phase::Completed,
        UNREPLAYABLE => Phase::Unreplayable,
        UNKNOWN => Phase::Unknown,
        _ => return Err(Unreadable::Damaged("it has a state of no known meaning")),
    };
    let flags = u16::from_le_bytes(input.array()?);
    if flags & !(BODY_APART | RETRY) != 0 {
        return Err(Unreadable::Damaged("it has flags of no known meaning"));
    }
    let token = Token(input.array()?);
    let attempt = u32::from_le_bytes(input.array()?);
    let status = match u16::from_le_bytes(input.array()?) {
        0 => None,
        status => Some(StatusCode::from_u16(status).map_err(|_| Unreadable::Damaged("its status is none"))?),
    };
    let extensions = u16::from_le_bytes(input.array()?);
    let mut number = || input.array().map(u64::from_le_bytes);
    let (lease, retention, hold_for, claimed_at, settled_at, recipe) =
        (number()?, number()?, number()?, number()?, number()?, number()?);
    let fingerprint = Fingerprint { recipe, target: input.array()?, body: input.array()? };
    let on_unknown = match (flags & RETRY, hold_for) {
        (0, _) => UnknownPolicy::Hold(Duration::from_millis(hold_for)),
        (_, 0) => UnknownPolicy::Retry,
        (_, _) => return Err(Unreadable::Damaged("it is held under retry")),
    };
    let terms = Terms { lease: Duration::from_millis(lease), retention: Duration::from_millis(retention), on_unknown };
    let claim = Claim { token, attempt, terms, fingerprint, claimed_at, extensions: Extensions::default() };
    Ok(RecordHead { phase, flags, claim, status, settled_at, extensions })
}

/// What distinguishes a record from all earlier and later ones of its name: state, token and attempt, as they are at
/// offsets 1 and 4.
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
