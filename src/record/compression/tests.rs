use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::record::chunks::{self, ApartBody, Cut};
use crate::record::codec::{HEAD, Placement, decode, decode_under, encode, encode_encrypted, encoded_len, summarise};
use crate::record::encryption::{Encryption, EncryptionKey};
use crate::record::{Claim, Extensions, Fingerprint, Record, RecordName, Reply, State, Terms, Token, UnknownPolicy};

fn record(body: ReplyBody) -> Record {
    let claim = Claim {
        token: Token(*b"0123456789abcdef"),
        attempt: 2,
        terms: Terms {
            lease: Duration::from_secs(30),
            retention: Duration::from_secs(86_400),
            on_unknown: UnknownPolicy::Hold(Duration::from_secs(3_600)),
        },
        fingerprint: Fingerprint { target: [1; 16], recipe: 7, body: [2; 16] },
        claimed_at: 1_763_700_000_000,
        extensions: Extensions::default(),
    };
    let reply = Reply { status: StatusCode::CREATED, headers: HeaderMap::new(), body, trailers: HeaderMap::new() };
    Record { claim, state: State::Completed { settled_at: 1_763_700_001_000, reply: Arc::new(reply) } }
}

fn name() -> RecordName {
    RecordName { route: "orders".into(), digest: [9; 16] }
}

/// Text in which much is said again.
fn text(length: usize) -> Vec<u8> {
    (0..)
        .flat_map(|line: u32| format!("{{\"line\": {line}, \"product\": \"a thing\"}}\n").into_bytes())
        .take(length)
        .collect()
}

fn compressed(body: &[u8]) -> CompressedBody {
    compress(&[Bytes::copy_from_slice(body)]).expect("shorter")
}

/// What a frame, given in parts of this length, expands to.
fn expand(body: &CompressedBody, part: usize) -> Result<Vec<u8>, Unreadable> {
    let mut expander = Expander::new(body.length)?;
    let (mut rest, mut whole) = (body.frame.clone(), Vec::new());
    loop {
        if let Some(piece) = expander.expand()? {
            assert!(!piece.is_empty() && piece.len() <= PIECE);
            whole.extend_from_slice(&piece);
        } else if expander.is_at_end() || rest.is_empty() {
            return if expander.is_at_end() && rest.is_empty() { Ok(whole) } else { Err(NOT_EXPANDABLE) };
        } else {
            expander.feed(rest.split_to(part.min(rest.len())));
        }
    }
}

#[test]
fn what_becomes_hardly_shorter_stays_as_it_is() {
    let noise: Vec<u8> = (0..100_000_u32).flat_map(|at| xxh3_64(&at.to_le_bytes()).to_le_bytes()).collect();
    for body in [&noise[..], &noise[..100], b"x", b""] {
        assert_eq!(compress(&[Bytes::copy_from_slice(body)]), None, "{} bytes", body.len());
    }
    let body = compressed(&text(1_000_000));
    assert!(body.frame.len() < 100_000, "{}", body.frame.len());
}

#[test]
fn a_frame_expands_to_no_more_than_it_should_and_no_less() {
    let body = compressed(&text(300_000));
    for length in [1, 299_999, 300_001, u64::MAX] {
        assert_eq!(expand(&CompressedBody { length, ..body.clone() }, 1000), Err(NOT_EXPANDABLE), "{length}");
    }
    for end in [0, 1, body.frame.len() / 2, body.frame.len() - 1] {
        let cut = CompressedBody { frame: body.frame.slice(..end), ..body.clone() };
        assert_eq!(expand(&cut, 1000), Err(NOT_EXPANDABLE), "cut to {end}");
    }
    let more = CompressedBody { frame: [&body.frame[..], b"x"].concat().into(), ..body.clone() };
    let twice = CompressedBody { frame: [&body.frame[..], &body.frame].concat().into(), ..body.clone() };
    for other in [more, twice] {
        for part in [1000, usize::MAX] {
            assert_eq!(expand(&other, part), Err(NOT_EXPANDABLE));
        }
    }
    let other = CompressedBody { frame: Bytes::from_static(b"something else"), length: 14 };
    assert_eq!(expand(&other, 1000), Err(NOT_EXPANDABLE));
}

/// A megabyte of one letter in 200 bytes, and a window that no body of ours has.
#[test]
fn a_bomb_goes_off_one_piece_at_a_time_and_a_large_window_is_refused() {
    let mut encoder = Encoder::new(19).expect("an encoder");
    encoder.set_parameter(CParameter::WindowLog(27)).expect("a window");
    let body = vec![b'x'; 64 << 20];
    let mut frame = vec![0; 1 << 20];
    let mut out = OutBuffer::around(&mut frame[..]);
    let mut input = InBuffer::around(&body);
    while input.pos() < body.len() {
        encoder.run(&mut input, &mut out).expect("compressed");
    }
    while encoder.finish(&mut out, true).expect("compressed") > 0 {}
    let written = out.pos();
    frame.truncate(written);
    let wide = CompressedBody { frame: frame.into(), length: body.len() as u64 };
    assert_eq!(expand(&wide, usize::MAX), Err(NOT_EXPANDABLE));

    let bomb = compressed(&body);
    assert!(bomb.frame.len() < 10_000);
    let mut expander = Expander::new(bomb.length).expect("an expander");
    expander.feed(bomb.frame);
    for _ in 0..body.len() / PIECE {
        assert_eq!(expander.expand().expect("expands").expect("a piece").len(), PIECE);
    }
}

#[test]
fn a_record_says_that_its_body_is_compressed() {
    let body = compressed(&text(10_000));
    let in_record = record(ReplyBody::Compressed(body.clone()));
    let bytes = Bytes::from(encode(&in_record, Placement::Within));
    assert_eq!(bytes.len(), encoded_len(&in_record, Placement::Within));
    assert_eq!(decode(&bytes), Ok(in_record.clone()));
    assert_eq!(summarise(&bytes), Ok(in_record.summary()));
    let State::Completed { reply, .. } = &in_record.state else { panic!("completed") };
    assert_eq!((reply.body_len(), reply.body.pieces()), (10_000, &[][..]));

    let frame = std::slice::from_ref(&body.frame);
    let key = Arc::new(EncryptionKey::new(&[1; 32]));
    let encryption = Encryption { key: &key, nonce: || [7; 12] };
    let keys = std::slice::from_ref(&key);
    for encryption in [None, Some(encryption)] {
        let (_, cut) = chunks::cut(&name(), in_record.claim.token, frame, encryption);
        let bytes = |record: &Record| -> Bytes {
            match encryption {
                None => encode(record, Placement::Apart(cut)).into(),
                Some(encryption) => encode_encrypted(record, Placement::Apart(cut), &name(), encryption).into(),
            }
        };
        let apart = decode_under(&bytes(&in_record), &name(), keys).expect("readable");
        let key = encryption.map(|_| key.clone());
        let wanted = ApartBody { token: in_record.claim.token, cut, key, expands_to: Some(10_000) };
        assert_eq!((apart.apart_body(), wanted.length()), (Some(&wanted), 10_000));
        assert_eq!(bytes(&apart), bytes(&in_record), "written anew");
    }
    let both = Bytes::from(encode_encrypted(&in_record, Placement::Within, &name(), encryption));
    assert_eq!(decode_under(&both, &name(), keys), Ok(in_record));
}

#[test]
fn what_does_not_say_how_it_is_compressed_is_not_read() {
    let good = encode(&record(ReplyBody::Compressed(compressed(&text(10_000)))), Placement::Within);
    let with = |at: usize, to: &[u8]| {
        let mut bytes = good[..good.len() - 8].to_vec();
        bytes[at..at + to.len()].copy_from_slice(to);
        bytes.extend(xxh3_64(&bytes).to_le_bytes());
        decode(&bytes.into())
    };
    assert!(with(HEAD + 3, &[ZSTD]).is_ok());
    assert_eq!(with(HEAD + 3, &[2]), Err(Unreadable::Extension(code::COMPRESSION)));
    assert!(matches!(with(HEAD + 4, &[0; 8]), Err(Unreadable::Damaged(_))));
    // A claim has no body, and neither has an answer that is not kept.
    assert!(matches!(with(1, &[1]), Err(Unreadable::Damaged(_))));
    assert!(matches!(with(1, &[3]), Err(Unreadable::Damaged(_))));
}

/// A later zstd may write other bytes; these must be read for ever.
#[test]
fn records_of_before_are_read() {
    let body = text(2_000);
    let key = Arc::new(EncryptionKey::new(&[1; 32]));
    for line in include_str!("golden.txt").lines() {
        let (what, hex) = line.split_once(": ").expect("a name and bytes");
        let bytes = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).expect("hex"));
        let bytes = Bytes::from(bytes.collect::<Vec<_>>());
        let read = decode_under(&bytes, &name(), std::slice::from_ref(&key)).expect("readable");
        let State::Completed { reply, .. } = &read.state else { panic!("{what}") };
        assert_eq!(reply.body_len(), 2_000, "{what}");
        match &reply.body {
            ReplyBody::Compressed(frame) => assert_eq!(expand(frame, 100), Ok(body.clone()), "{what}"),
            ReplyBody::Apart(apart) => assert_eq!((apart.cut, apart.expands_to), (Cut::of(100), Some(2_000)), "{what}"),
            ReplyBody::Held(_) => panic!("{what}"),
        }
        if !what.contains("encrypted") {
            assert_eq!(encode(&read, Placement::Within), bytes[..], "{what}: what is not at hand stays as it is");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_is_compressed_expands_to_the_same(
        length in prop_oneof![1_000..5_000_usize, 65_000..66_000_usize, 500_000..1_200_000_usize],
        lengths in vec(1..80_000_usize, 1..4),
        part in prop_oneof![1..50_usize, 1_000..70_000_usize],
        noise in vec(any::<u8>(), 0..400),
    ) {
        let body = [noise, text(length)].concat();
        let (mut rest, mut pieces) = (Bytes::from(body.clone()), Vec::new());
        for length in lengths.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            pieces.push(rest.split_to(*length.min(&rest.len())));
        }
        let compressed = compress(&pieces).expect("shorter");
        prop_assert_eq!(expand(&compressed, part), Ok(body));
    }

    #[test]
    fn whatever_is_no_frame_ends_in_an_error(frame in vec(any::<u8>(), 0..200), length in 1..100_000_u64) {
        let _ = expand(&CompressedBody { frame: frame.into(), length }, 7);
        let mut damaged = compressed(&text(5_000));
        let at = usize::try_from(length).expect("small") % damaged.frame.len();
        let mut bytes = damaged.frame.to_vec();
        bytes[at] ^= 0x55;
        damaged.frame = bytes.into();
        let _ = expand(&damaged, 7);
    }
}
