use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::*;
use crate::record::chunks::{self, ApartBody, Chunk, Cut};
use crate::record::codec::{HEAD, Placement, decode, decode_under, encode, encode_encrypted, summarise};
use crate::record::{Claim, Extensions, Fingerprint, Record, Reply, State, Terms, UnknownPolicy};

fn key(of: u8) -> Arc<EncryptionKey> {
    Arc::new(EncryptionKey::new(&[of; SECRET]))
}

/// Always the same, which is wrong but for a test.
fn nonce() -> [u8; NONCE] {
    *b"twelve bytes"
}

fn name() -> RecordName {
    RecordName { route: "orders".into(), digest: [9; 16] }
}

const TOKEN: Token = Token(*b"0123456789abcdef");

fn claim() -> Claim {
    Claim {
        token: TOKEN,
        attempt: 2,
        terms: Terms {
            lease: Duration::from_secs(30),
            retention: Duration::from_secs(86_400),
            on_unknown: UnknownPolicy::Hold(Duration::from_secs(3_600)),
        },
        fingerprint: Fingerprint { target: [1; 16], recipe: 7, body: [2; 16] },
        claimed_at: 1_763_700_000_000,
        extensions: Extensions::default(),
    }
}

fn completed(headers: HeaderMap, body: &[u8]) -> Record {
    let body = if body.is_empty() { Vec::new() } else { vec![Bytes::copy_from_slice(body)] };
    let reply = Reply { status: StatusCode::CREATED, headers, body: body.into(), trailers: HeaderMap::new() };
    Record { claim: claim(), state: State::Completed { settled_at: 1_763_700_001_000, reply: Arc::new(reply) } }
}

fn answer() -> Record {
    let location = (HeaderName::from_static("location"), HeaderValue::from_static("/orders/secret"));
    completed(HeaderMap::from_iter([location]), b"{\"card\":\"4242\"}")
}

fn unreplayable() -> Record {
    let location = Some(HeaderValue::from_static("/orders/secret"));
    Record { claim: claim(), state: State::Unreplayable { settled_at: 5, status: StatusCode::OK, location } }
}

fn encrypted(record: &Record, with: &Arc<EncryptionKey>) -> Bytes {
    encode_encrypted(record, Placement::Within, &name(), Encryption { key: with, nonce }).into()
}

/// With the checksum right again: what a writer who has no key can do.
fn forged(bytes: &Bytes, change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = bytes[..bytes.len() - 8].to_vec();
    change(&mut bytes);
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes.into()
}

fn is_within(part: &[u8], whole: &[u8]) -> bool {
    whole.windows(part.len()).any(|window| window == part)
}

#[test]
fn what_is_encrypted_is_read_with_its_key_and_told_by_a_few_bytes_without_it() {
    for record in [answer(), unreplayable(), completed(HeaderMap::new(), b"")] {
        let bytes = encrypted(&record, &key(1));
        assert_eq!(decode_under(&bytes, &name(), &[key(1)]), Ok(record.clone()));
        assert_eq!(summarise(&bytes.slice(..HEAD)), Ok(record.summary()));
        for part in [&b"location"[..], b"/orders", b"secret", b"card", b"4242"] {
            assert!(!is_within(part, &bytes), "{record:?}");
        }
    }
}

#[test]
fn a_claim_and_an_unknown_outcome_have_nothing_to_encrypt() {
    for state in [State::InFlight, State::Unknown { settled_at: 5 }] {
        let record = Record { claim: claim(), state };
        let bytes = encrypted(&record, &key(1));
        assert_eq!(bytes, encode(&record, Placement::Within));
        assert_eq!(decode_under(&bytes, &name(), &[]), Ok(record));
    }
}

#[test]
fn keys_are_changed_one_after_the_other() {
    let (old, new) = (key(1), key(2));
    let before = encrypted(&answer(), &old);
    let after = encrypted(&answer(), &new);
    for keys in [&[new.clone(), old.clone()][..], &[old.clone(), new.clone()]] {
        assert_eq!(decode_under(&before, &name(), keys), Ok(answer()));
        assert_eq!(decode_under(&after, &name(), keys), Ok(answer()));
    }
    // What was stored before there were keys stays readable, too.
    let clear = encode(&answer(), Placement::Within).into();
    assert_eq!(decode_under(&clear, &name(), std::slice::from_ref(&new)), Ok(answer()));
    for keys in [&[new][..], &[]] {
        assert_eq!(decode_under(&before, &name(), keys), Err(Unreadable::NoKey(old.id())));
    }
    assert_eq!(decode(&before), Err(Unreadable::NoKey(old.id())));
    let said = Unreadable::NoKey(old.id()).to_string();
    assert!(said.contains(&old.id().to_string()), "{said}");
}

#[test]
fn nothing_that_was_changed_or_moved_decrypts() {
    for record in [answer(), unreplayable()] {
        let bytes = encrypted(&record, &key(1));
        for bit in 0..(bytes.len() - 8) * 8 {
            let forged = forged(&bytes, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
            assert!(decode_under(&forged, &name(), &[key(1)]).is_err(), "bit {bit}");
        }
        for length in HEAD..bytes.len() - 8 {
            let forged = forged(&bytes, |bytes| bytes.truncate(length));
            assert!(decode_under(&forged, &name(), &[key(1)]).is_err(), "cut to {length}");
        }
        let longer = forged(&bytes, |bytes| bytes.push(0));
        assert!(decode_under(&longer, &name(), &[key(1)]).is_err());
        for other in [
            RecordName { digest: [8; 16], ..name() },
            RecordName { route: "order".into(), ..name() },
            RecordName { route: "orderss".into(), ..name() },
        ] {
            assert_eq!(decode_under(&bytes, &other, &[key(1)]), Err(NOT_AUTHENTIC));
        }
    }
    // The answer of another attempt, or of one that began at another time, under this one's head.
    let content = HEAD + EXTENSION;
    for other in [Claim { token: Token([3; 16]), ..claim() }, Claim { attempt: 3, ..claim() }] {
        let other = encrypted(&Record { claim: other, ..answer() }, &key(1));
        let forged = forged(&encrypted(&answer(), &key(1)), |bytes| {
            bytes.truncate(content);
            bytes.extend_from_slice(&other[content..other.len() - 8]);
        });
        assert_eq!(decode_under(&forged, &name(), &[key(1)]), Err(NOT_AUTHENTIC));
    }
}

#[test]
fn what_another_version_encrypts_otherwise_is_named() {
    let bytes = encrypted(&answer(), &key(1));
    let algorithm = HEAD + 3;
    let other = forged(&bytes, |bytes| bytes[algorithm] = 2);
    assert_eq!(decode_under(&other, &name(), &[key(1)]), Err(Unreadable::Extension(code::ENCRYPTION)));
    // A claim whose head says that something follows.
    let claim = forged(&bytes, |bytes| (bytes[1], bytes[24], bytes[25]) = (1, 0, 0));
    assert!(matches!(decode_under(&claim, &name(), &[key(1)]), Err(Unreadable::Damaged(_))));
}

fn pieces(body: &[u8]) -> Vec<Bytes> {
    vec![Bytes::copy_from_slice(body)]
}

/// What is stored of each chunk.
fn stored(name: &RecordName, token: Token, body: &[u8], key: &Arc<EncryptionKey>) -> (Vec<Bytes>, Cut) {
    let (chunks, cut) = chunks::cut(name, token, &pieces(body), Some(Encryption { key, nonce }));
    (chunks.iter().map(|chunk: &Chunk| chunk.pieces.concat().into()).collect(), cut)
}

fn read(name: &RecordName, key: &Arc<EncryptionKey>, cut: Cut, chunks: &[Bytes]) -> Result<Vec<u8>, Unreadable> {
    let mut reader = ApartBody { token: TOKEN, cut, key: Some(key.clone()), expands_to: None }.reader(name);
    let mut body = Vec::new();
    for chunk in chunks {
        body.extend_from_slice(&reader.read(chunk.clone())?);
    }
    assert!(reader.is_at_end());
    Ok(body)
}

fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8).collect()
}

/// The chunk with its digest right again, as it would be for this place of this record.
fn chunk_for(place: ChunkPlace, chunk: &Bytes) -> Bytes {
    let payload = &chunk[..chunk.len() - 8];
    let binding = xxh3_64(&[&TOKEN.0[..], &name().digest, name().route.as_bytes()].concat());
    let seed = xxh3_64_with_seed(&place.bytes(), binding);
    [payload, &xxh3_64_with_seed(payload, seed).to_le_bytes()].concat().into()
}

#[test]
fn the_chunks_of_a_body_are_read_with_its_key() {
    let size = chunks::SIZE as usize;
    for length in [0, 1, size - 1, size, size + 1, 2 * size, 2 * size + 7] {
        let body = body(length);
        let (chunks, cut) = stored(&name(), TOKEN, &body, &key(1));
        assert_eq!((cut.length(), cut.stored()), (length as u64, chunks.concat().len() as u64));
        for (index, chunk) in (0..).zip(&chunks) {
            let lies_at = cut.lies_at(index);
            assert_eq!(lies_at.end - lies_at.start, chunk.len() as u64);
        }
        assert_eq!(read(&name(), &key(1), cut, &chunks), Ok(body.clone()));
        assert_eq!(read(&name(), &key(2), cut, &chunks), Err(NOT_AUTHENTIC));
        assert!(body.len() < 16 || !is_within(&body[..16], &chunks.concat()));
        // Others have them, too, and see nothing of it.
        let shared = chunks.clone();
        assert_eq!(read(&name(), &key(1), cut, &chunks), Ok(body));
        assert_eq!(shared, chunks);
    }
}

#[test]
fn a_chunk_of_another_place_record_or_attempt_never_decrypts() {
    let (one, cut) = stored(&name(), TOKEN, &body(3 * chunks::SIZE as usize), &key(1));
    let place = |index| ChunkPlace { index, is_last: index == 2 };
    for (index, (at, chunk)) in [(0, &one[1]), (1, &one[0]), (1, &one[2]), (2, &one[1])].into_iter().enumerate() {
        let mut changed = one.clone();
        changed[at] = chunk_for(place(at as u64), chunk);
        assert_eq!(read(&name(), &key(1), cut, &changed), Err(NOT_AUTHENTIC), "{index}");
    }
    let other = RecordName { digest: [8; 16], ..name() };
    for (other, token) in [(other, TOKEN), (name(), Token([3; 16]))] {
        let (chunks, _) = stored(&other, token, &body(3 * chunks::SIZE as usize), &key(1));
        let mut changed = one.clone();
        changed[1] = chunk_for(place(1), &chunks[1]);
        assert_eq!(read(&name(), &key(1), cut, &changed), Err(NOT_AUTHENTIC));
    }
    // The record tells of two chunks, and its last one lost the sign of it: the record is encrypted, so it cannot be told.
    let shorter = Cut::of(2 * u64::from(chunks::SIZE)).encrypted();
    let last = chunk_for(ChunkPlace { index: 1, is_last: true }, &one[1]);
    assert_eq!(read(&name(), &key(1), shorter, &[one[0].clone(), last]), Err(NOT_AUTHENTIC));
}

#[test]
fn a_body_that_lies_apart_stays_under_its_key_when_its_record_is_written_anew() {
    let (old, new) = (key(1), key(2));
    let (_, cut) = stored(&name(), TOKEN, &body(100_000), &old);
    let placement = Placement::Apart(cut);
    let bytes = Bytes::from(encode_encrypted(&answer(), placement, &name(), Encryption { key: &old, nonce }));
    let keys = [new.clone(), old.clone()];
    let record = decode_under(&bytes, &name(), &keys).expect("readable");
    assert_eq!(record.apart_body(), Some(&ApartBody { token: TOKEN, cut, key: Some(old), expands_to: None }));
    let again = encode_encrypted(&record, Placement::Within, &name(), Encryption { key: &new, nonce });
    assert_eq!(again, bytes[..]);

    let clear = Bytes::from(encode(&answer(), Placement::Apart(Cut::of(100_000))));
    let record = decode_under(&clear, &name(), &keys).expect("readable");
    assert_eq!(encode_encrypted(&record, Placement::Within, &name(), Encryption { key: &new, nonce }), clear[..]);
}

#[test]
fn a_key_is_not_shown() {
    let secret: [u8; SECRET] = std::array::from_fn(|at| b'A' + at as u8);
    let shown = format!("{:?}", EncryptionKey::new(&secret));
    assert_eq!(shown, format!("EncryptionKey({})", EncryptionKey::new(&secret).id()));
    assert!(!shown.contains("ABC") && !shown.contains("65, 66") && !shown.contains("414243"));
    let (key, other) = (key(1), key(2));
    assert_ne!(key.id(), other.id());
    assert_ne!(key, other);
    let (chunk, _) = stored(&name(), TOKEN, b"body", &key);
    assert_eq!(chunk.len(), 1);
    assert_eq!(format!("{:?}", ChunkCipher::new(&key, &name(), TOKEN)), "ChunkCipher(…)");
}

#[test]
fn the_layout_is_fixed() {
    let key = key(1);
    let (chunks, cut) = stored(&name(), TOKEN, b"{\"card\":\"4242\"}", &key);
    let encryption = Encryption { key: &key, nonce };
    let mut written = format!("id of the key: {}\n", key.id());
    for (what, bytes) in [
        ("completed", encrypted(&answer(), &key)),
        ("completed, its body apart", encode_encrypted(&answer(), Placement::Apart(cut), &name(), encryption).into()),
        ("unreplayable, with Location", encrypted(&unreplayable(), &key)),
        ("the only chunk of a body", chunks[0].clone()),
    ] {
        let bytes: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        written.push_str(&format!("{what}: {bytes}\n"));
    }
    assert_eq!(written, include_str!("golden.txt"), "these bytes are stored by users: a change needs a new algorithm");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_encrypted_is_read_and_no_changed_byte_is(
        lines in vec(("[a-c]{1,3}", "[ -~]{0,8}"), 0..6),
        body in vec(any::<u8>(), 0..300),
        secret in any::<[u8; SECRET]>(),
        place in any::<prop::sample::Index>(),
        to in 1..=255_u8,
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::try_from(name).expect("a name"), HeaderValue::try_from(value).expect("a value"));
        }
        let key = Arc::new(EncryptionKey::new(&secret));
        let record = completed(headers, &body);
        let bytes = encrypted(&record, &key);
        prop_assert_eq!(decode_under(&bytes, &name(), std::slice::from_ref(&key)), Ok(record));
        let at = place.index(bytes.len() - 8);
        // Without the mark of encryption, it is a record in clear.
        prop_assume!(at != HEAD);
        let forged = forged(&bytes, |bytes| bytes[at] ^= to);
        prop_assert!(decode_under(&forged, &name(), &[key]).is_err(), "byte {at}");
    }

    #[test]
    fn whatever_is_cut_and_encrypted_is_read_and_no_changed_byte_is(
        length in prop_oneof![0..100_usize, 65_500..65_600_usize, 131_000..131_100_usize],
        place in any::<prop::sample::Index>(),
        to in 1..=255_u8,
    ) {
        let (key, body) = (key(1), body(length));
        let (chunks, cut) = stored(&name(), TOKEN, &body, &key);
        prop_assert_eq!(read(&name(), &key, cut, &chunks), Ok(body));
        let index = place.index(chunks.len());
        let at = place.index(chunks[index].len() - 8);
        let mut changed = chunks.clone();
        let mut bytes = chunks[index].to_vec();
        bytes[at] ^= to;
        let place = ChunkPlace { index: index as u64, is_last: index + 1 == chunks.len() };
        changed[index] = chunk_for(place, &bytes.into());
        prop_assert_eq!(read(&name(), &key, cut, &changed), Err(NOT_AUTHENTIC));
    }
}
