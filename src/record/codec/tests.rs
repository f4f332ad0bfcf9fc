use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{chunks, code};
use super::*;
use crate::record::RecordName;
use http::{HeaderMap, HeaderName};

fn claim() -> Claim {
    Claim {
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
    }
}

/// With what a later version may have put there.
fn extended() -> Claim {
    let extensions = Extensions::read(&Bytes::from_static(b"\x01\x03\0who\x7f\0\0")).expect("skippable").kept;
    Claim { extensions, ..claim() }
}

const APART: Placement = Placement::Apart(Cut::of(4));

fn name() -> RecordName {
    RecordName { route: "orders".into(), digest: [9; 16] }
}

fn completed() -> Record {
    let mut headers = HeaderMap::new();
    headers.append("location", HeaderValue::from_static("/orders/1"));
    headers.append("link", HeaderValue::from_static("<a>"));
    headers.append("link", HeaderValue::from_bytes(b"<\xfcber>").expect("obs-text"));
    let reply = Reply {
        status: StatusCode::CREATED,
        headers,
        body: vec![Bytes::from_static(b"\x00\xff"), Bytes::from_static(b"{}")].into(),
        trailers: HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]),
    };
    Record { claim: claim(), state: State::Completed { settled_at: 1_763_700_001_000, reply: Arc::new(reply) } }
}

/// A record in the pieces that reading it makes.
fn joined(mut record: Record) -> Record {
    if let State::Completed { reply, .. } = &mut record.state {
        let body = reply.body.pieces().concat();
        Arc::make_mut(reply).body = if body.is_empty() { Vec::new() } else { vec![body.into()] }.into();
    }
    record
}

fn states() -> Vec<Record> {
    let settled_at = 5;
    let location = Some(HeaderValue::from_static("/orders/1"));
    let retry = Claim { terms: Terms { on_unknown: UnknownPolicy::Retry, ..claim().terms }, ..claim() };
    vec![
        Record { claim: claim(), state: State::InFlight },
        Record { claim: retry, state: State::InFlight },
        completed(),
        Record { claim: claim(), state: State::Unreplayable { settled_at, status: StatusCode::OK, location } },
        Record { claim: claim(), state: State::Unreplayable { settled_at, status: StatusCode::OK, location: None } },
        Record { claim: claim(), state: State::Unknown { settled_at } },
        Record { claim: extended(), state: State::Unknown { settled_at } },
        Record { claim: extended(), ..completed() },
        Record { claim: extended(), state: State::InFlight },
        Record { claim: extended(), state: State::Unreplayable { settled_at, status: StatusCode::OK, location: None } },
    ]
}

#[test]
fn what_was_written_is_read() {
    for record in states() {
        let decoded = decode(&encode(&record, Placement::Within).into()).expect("readable");
        assert_eq!(decoded, joined(record));
    }
}

#[test]
fn a_few_bytes_tell_all_but_the_answer() {
    for record in states() {
        for placement in [Placement::Within, APART] {
            let bytes = Bytes::from(encode(&record, placement));
            assert_eq!(bytes.len(), encoded_len(&record, placement));
            let claim = Claim { extensions: Extensions::default(), ..record.claim.clone() };
            let summary = Summary { claim, ..record.summary() };
            assert_eq!(summarise(&bytes.slice(..HEAD)), Ok(summary.clone()));
            assert_eq!(summarise(&bytes), Ok(summary));
            let (state, owner) = identity(&record.summary());
            assert_eq!((bytes[1], &bytes[4..24]), (state, &owner[..]));
        }
    }
    assert_eq!(summarise(&Bytes::new()), Err(Unreadable::Damaged("it is empty")));
    assert_eq!(summarise(&Bytes::from_static(b"\x02too short")), Err(Unreadable::Damaged("it is too short")));
}

#[test]
fn a_claim_is_a_record_in_flight() {
    for claim in [claim(), extended()] {
        let bytes = encode_claim(&claim);
        assert_eq!(bytes.len(), claim_len(&claim));
        assert_eq!(bytes, encode(&Record { claim, state: State::InFlight }, Placement::Within));
    }
}

#[test]
fn a_record_may_be_written_behind_something_else() {
    for record in states() {
        let mut out = b"before".to_vec();
        encode_into(&mut out, &record, Placement::Within);
        assert_eq!(out, [&b"before"[..], &encode(&record, Placement::Within)].concat());
    }
}

#[test]
fn a_record_tells_where_its_body_lies() {
    let record = completed();
    let State::Completed { reply, .. } = &record.state else { panic!("completed") };
    let (_, cut) = chunks::cut(&name(), record.claim.token, reply.body.pieces(), None);
    let bytes = Bytes::from(encode(&record, Placement::Apart(cut)));
    let read = decode(&bytes).expect("readable");
    assert_eq!(read.apart_body(), Some(&ApartBody { token: record.claim.token, cut, key: None, expands_to: None }));
    let State::Completed { reply: read_reply, .. } = &read.state else { panic!("completed") };
    assert_eq!((read_reply.body_len(), read_reply.body.pieces()), (reply.body_len(), &[][..]));
    // Where a body lies that is not at hand is not the writer's to say.
    for placement in [Placement::Within, APART, Placement::Apart(cut)] {
        assert_eq!(encode(&read, placement), bytes[..]);
        assert_eq!(encoded_len(&read, placement), bytes.len());
    }
}

#[test]
fn the_layout_is_fixed() {
    let names = [
        "in flight, held",
        "in flight, retried",
        "completed",
        "unreplayable, with Location",
        "unreplayable",
        "unknown",
        "unknown, with extensions",
        "completed, with extensions",
        "in flight, with extensions",
        "unreplayable, with extensions",
    ];
    let mut written = String::new();
    for (name, record) in names.into_iter().zip(states()) {
        for (placement, apart) in [(Placement::Within, ""), (APART, ", its body apart")] {
            if placement == Placement::Within || matches!(record.state, State::Completed { .. }) {
                let bytes: String = encode(&record, placement).iter().map(|byte| format!("{byte:02x}")).collect();
                written.push_str(&format!("{name}{apart}: {bytes}\n"));
            }
        }
    }
    assert_eq!(written, include_str!("golden.txt"), "these bytes are stored by users: a change needs a new version");
}

#[test]
fn no_flipped_bit_goes_unnoticed() {
    let bytes = encode(&completed(), Placement::Within);
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged.into()).is_err(), "bit {bit}");
    }
}

#[test]
fn another_layout_is_named_and_never_read() {
    for (layout, why) in [(0, Unreadable::Older(0)), (1, Unreadable::Older(1)), (3, Unreadable::Newer(3))] {
        let mut bytes = encode(&completed(), Placement::Within);
        bytes[0] = layout;
        bytes.truncate(bytes.len() - CHECKSUM);
        let bytes = sealed(bytes);
        assert_eq!((decode(&bytes), summarise(&bytes)), (Err(why.clone()), Err(why)));
    }
}

/// An operation in flight, and one that is completed.
#[test]
fn a_record_of_the_layout_before_the_first_release_is_not_misread() {
    for text in include_str!("layout_1.txt").lines() {
        let bytes = (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hex"));
        let bytes: Bytes = bytes.collect::<Vec<_>>().into();
        assert_eq!((decode(&bytes), summarise(&bytes)), (Err(Unreadable::Older(1)), Err(Unreadable::Older(1))));
    }
}

/// `record` with these bytes in another place, and the checksum right again.
fn changed(record: &Record, at: usize, to: &[u8]) -> Result<Record, Unreadable> {
    let mut bytes = encode(record, Placement::Within);
    bytes.truncate(bytes.len() - CHECKSUM);
    bytes.splice(at..at + to.len(), to.iter().copied());
    decode(&sealed(bytes))
}

fn sealed(mut bytes: Vec<u8>) -> Bytes {
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes.into()
}

/// Where the length of the extensions stands.
const EXTENSIONS: std::ops::Range<usize> = 26..28;

/// With extensions put into a record that has none, and the checksum right again.
fn with_extensions(record: &Record, extensions: &[u8]) -> Bytes {
    let mut bytes = encode(record, Placement::Within);
    bytes.truncate(bytes.len() - CHECKSUM);
    bytes.splice(EXTENSIONS, (extensions.len() as u16).to_le_bytes());
    bytes.splice(HEAD..HEAD, extensions.iter().copied());
    sealed(bytes)
}

#[test]
fn an_extension_that_may_be_skipped_is_kept_and_one_that_may_not_makes_the_record_unreadable() {
    for record in [Record { claim: claim(), state: State::InFlight }, joined(completed())] {
        let bytes = with_extensions(&record, b"\x03\x04\0what");
        let read = decode(&bytes).expect("readable");
        assert_eq!(read.state, record.state);
        assert_eq!(encode(&read, Placement::Within), bytes, "kept");
        for code in [code::COMPRESSION, code::ENCRYPTION, 0xfe] {
            let bytes = with_extensions(&record, &[3, 0, 0, code, 0, 0]);
            assert_eq!(decode(&bytes), Err(Unreadable::Extension(code)));
            assert!(summarise(&bytes).is_ok(), "what its first bytes say holds");
        }
        for damaged in [&b"\x03"[..], b"\x03\xff\xff", b"\x03\0\0\x02\0\0"] {
            assert!(matches!(decode(&with_extensions(&record, damaged)), Err(Unreadable::Damaged(_))));
        }
        let mut longer = encode(&record, Placement::Within);
        longer.truncate(longer.len() - CHECKSUM);
        longer.splice(EXTENSIONS, u16::MAX.to_le_bytes());
        assert!(matches!(decode(&sealed(longer)), Err(Unreadable::Damaged(_))));
    }
}

#[test]
fn what_would_be_written_otherwise_is_refused() {
    let [held, retried, completed, moved, ..] = &states()[..] else { panic!("all states") };
    let (flags, status, hold_for, settled_at) = (2, 24, 44, 60);
    for (record, at, to) in [
        (held, flags, &[BODY_APART as u8][..]),
        (moved, flags, &[BODY_APART as u8]),
        (held, flags, &[4]),
        (retried, hold_for, &[1]),
        (held, settled_at, &[1]),
        (held, status, &[200, 0]),
        (completed, status, &[0, 0]),
        (completed, status, &[99, 0]),
        (moved, status, &[0, 0]),
        // `Location`, not `location`; and any other field than this.
        (moved, HEAD + 2, b"L"),
        (moved, HEAD + 2, b"m"),
        // A count, and a length, of two bytes where one will do.
        (moved, HEAD, &[0x81, 0]),
        (completed, HEAD + 1, &[0x88, 0]),
        (completed, HEAD, &[0xff; 5]),
    ] {
        assert!(matches!(changed(record, at, to), Err(Unreadable::Damaged(_))), "{to:?} at {at} of {record:?}");
    }
    // Three fields, of which the last becomes another line of the second, or of the first.
    let mut three = completed.clone();
    let State::Completed { reply, .. } = &mut three.state else { panic!("completed") };
    let fields = ["linj", "link", "lint"].map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x")));
    Arc::make_mut(reply).headers = HeaderMap::from_iter(fields);
    let last = HEAD + 1 + 2 * (1 + 4 + 1 + 1);
    assert!(changed(&three, last + 1, b"link").is_ok());
    assert!(changed(&three, last + 1, b"linj").is_err());
}

#[test]
fn no_record_that_is_cut_short_is_read() {
    let bytes = encode(&completed(), Placement::Within);
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length].to_vec().into()).is_err(), "{length}");
    }
    // Nor one whose checksum is right, as long as it lacks more than its body.
    let body = bytes.len() - CHECKSUM - 4;
    for length in HEAD..body {
        assert!(decode(&sealed(bytes[..length].to_vec())).is_err(), "{length}");
    }
}

/// The map of fields panics when it is asked for more than it can hold.
#[test]
fn a_record_of_too_many_fields_is_refused() {
    let mut bytes = encode(&completed(), Placement::Within);
    bytes.truncate(HEAD);
    bytes.extend([0xff, 0xff, 0x03]);
    for number in 0..u16::MAX {
        let name = format!("x{number}");
        bytes.push(name.len() as u8);
        bytes.extend(name.as_bytes());
        bytes.push(0);
    }
    assert_eq!(decode(&sealed(bytes)), Err(Unreadable::Damaged("it has too many fields")));
}

#[test]
fn an_answer_of_any_number_of_lines_is_read() {
    for lines in [127, 128, usize::from(u16::MAX) + 1, 70_000] {
        for in_trailers in [false, true] {
            let mut record = completed();
            let State::Completed { reply, .. } = &mut record.state else { panic!("completed") };
            let reply = Arc::make_mut(reply);
            let fields = if in_trailers { &mut reply.trailers } else { &mut reply.headers };
            for _ in fields.len()..lines {
                fields.append("x-line", HeaderValue::from_static("1"));
            }
            let read = decode(&encode(&record, Placement::Within).into());
            assert_eq!(read, Ok(joined(record)));
        }
    }
}

/// Lines of few names, so that they often share one; many of them are rare, and short.
fn fields() -> impl Strategy<Value = HeaderMap> {
    let line = ("[a-c]{1,3}", "[ -~]{0,8}");
    let some = vec(line, 0..20);
    let many = (0_usize..70_000).prop_map(|count| vec![("x-line".to_owned(), String::new()); count]);
    prop_oneof![8 => some, 1 => many].prop_map(|lines| {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(HeaderName::try_from(name).expect("a name"), HeaderValue::try_from(value).expect("a value"));
        }
        fields
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_written_is_read(
        headers in fields(),
        trailers in fields(),
        body in vec(vec(any::<u8>(), 0..40), 0..3),
        status in 200_u16..600,
        location in proptest::option::of("[!-~]{0,70}"),
    ) {
        let status = StatusCode::from_u16(status).expect("a status");
        let (settled_at, claim) = (7, claim());
        let body = body.into_iter().map(Bytes::from).collect::<Vec<_>>().into();
        let reply = Reply { status, headers, body, trailers };
        let record = Record { claim, state: State::Completed { settled_at, reply: Arc::new(reply) } };
        let bytes = encode(&record, Placement::Within);
        prop_assert_eq!(bytes.len(), encoded_len(&record, Placement::Within));
        prop_assert_eq!(decode(&bytes.into()), Ok(joined(record.clone())));
        prop_assert!(decode(&encode(&record, APART).into()).is_ok());
        let location = location.map(|text| HeaderValue::try_from(text).expect("a value"));
        let unreplayable = Record { state: State::Unreplayable { settled_at, status, location }, ..record };
        let decoded = decode(&encode(&unreplayable, Placement::Within).into());
        prop_assert_eq!(decoded, Ok(unreplayable));
    }
}
