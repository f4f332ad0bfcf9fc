use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn claim() -> Claim {
    Claim {
        token: Token(*b"0123456789abcdef"),
        attempt: 2,
        terms: Terms {
            lease: Duration::from_secs(30),
            retention: Duration::from_secs(86_400),
            on_unknown: Unknown::Hold(Duration::from_secs(3_600)),
        },
        fingerprint: Fingerprint { target: [1; 16], recipe: 7, body: [2; 16] },
        claimed_at: 1_763_700_000_000,
    }
}

fn completed() -> Record {
    let mut headers = HeaderMap::new();
    headers.append("location", HeaderValue::from_static("/orders/1"));
    headers.append("link", HeaderValue::from_static("<a>"));
    headers.append("link", HeaderValue::from_bytes(b"<\xfcber>").expect("obs-text"));
    let reply = Reply {
        status: StatusCode::CREATED,
        headers,
        body: vec![Bytes::from_static(b"\x00\xff"), Bytes::from_static(b"{}")],
        trailers: HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]),
    };
    Record { claim: claim(), state: State::Completed { settled_at: 1_763_700_001_000, reply: Arc::new(reply) } }
}

/// A record in the pieces that reading it makes.
fn joined(mut record: Record) -> Record {
    if let State::Completed { reply, .. } = &mut record.state {
        let body = reply.body.concat();
        Arc::make_mut(reply).body = if body.is_empty() { Vec::new() } else { vec![body.into()] };
    }
    record
}

fn states() -> Vec<Record> {
    let settled_at = 5;
    let location = Some(HeaderValue::from_static("/orders/1"));
    let retry = Claim { terms: Terms { on_unknown: Unknown::Retry, ..claim().terms }, ..claim() };
    vec![
        Record { claim: claim(), state: State::InFlight },
        Record { claim: retry, state: State::InFlight },
        completed(),
        Record { claim: claim(), state: State::Unreplayable { settled_at, status: StatusCode::OK, location } },
        Record { claim: claim(), state: State::Unreplayable { settled_at, status: StatusCode::OK, location: None } },
        Record { claim: claim(), state: State::Unknown { settled_at } },
    ]
}

#[test]
fn what_was_written_is_read() {
    for record in states() {
        let decoded = decode(&encode(&record, Placement::Within).into()).expect("readable");
        assert_eq!(decoded, Decoded::Whole(joined(record)));
    }
}

#[test]
fn a_few_bytes_tell_all_but_the_answer() {
    for record in states() {
        for placement in [Placement::Within, Placement::Apart] {
            let bytes = Bytes::from(encode(&record, placement));
            assert_eq!(summarise(&bytes.slice(..HEAD)), Ok(record.summary()));
            assert_eq!(summarise(&bytes), Ok(record.summary()));
            let (state, owner) = identity(&record.summary());
            assert_eq!((bytes[1], &bytes[4..24]), (state, &owner[..]));
        }
    }
    assert_eq!(summarise(&Bytes::new()), Err(Unreadable::Damaged("it is empty")));
    assert_eq!(summarise(&Bytes::from_static(b"\x01too short")), Err(Unreadable::Damaged("it is too short")));
}

#[test]
fn a_body_apart_is_put_back_and_no_other() {
    let bytes = Bytes::from(encode(&completed(), Placement::Apart));
    let Decoded::Bodiless(bodiless) = decode(&bytes).expect("readable") else { panic!("the body lies apart") };
    let restored = bodiless.clone().with_body(Bytes::from_static(b"\x00\xff{}")).expect("the body");
    assert_eq!(restored, joined(completed()));
    let error = bodiless.with_body(Bytes::from_static(b"\x00\xff{]")).expect_err("another body");
    assert_eq!(error, Unreadable::Damaged("its body is not the one that was stored"));
}

/// Records that were written must stay readable: if this fails, the layout changed, and it needs a new version.
#[test]
fn the_layout_is_fixed() {
    let golden = include_str!("../golden.hex");
    let written: String = states()
        .iter()
        .flat_map(|record| [encode(record, Placement::Within), encode(record, Placement::Apart)])
        .map(|bytes| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
        .collect();
    assert_eq!(written, golden);
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
fn a_newer_layout_is_said_to_be_newer() {
    let mut bytes = encode(&completed(), Placement::Within);
    bytes[0] = 2;
    assert_eq!(decode(&bytes.into()), Err(Unreadable::Newer(2)));
}

/// `record` with these bytes in another place, and the checksum right again.
fn changed(record: &Record, at: usize, to: &[u8]) -> Result<Decoded, Unreadable> {
    let mut bytes = encode(record, Placement::Within);
    bytes.truncate(bytes.len() - CHECKSUM);
    bytes.splice(at..at + to.len(), to.iter().copied());
    decode(&sealed(bytes))
}

fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let checksum = blake3::hash(&bytes);
    bytes.extend(&checksum.as_bytes()[..CHECKSUM]);
    bytes.into()
}

#[test]
fn what_would_be_written_otherwise_is_refused() {
    let [held, retried, completed, moved, ..] = &states()[..] else { panic!("all states") };
    let settled_at = 56;
    for (record, at, to) in [
        (held, 2, [BODY_APART as u8]),
        (moved, 2, [BODY_APART as u8]),
        (retried, 40, [1]),
        (held, settled_at, [1]),
        // `Location`, not `location`; and any other field than this.
        (moved, FIXED + 6, *b"L"),
        (moved, FIXED + 6, *b"m"),
    ] {
        assert!(matches!(changed(record, at, &to), Err(Unreadable::Damaged(_))), "{to:?} at {at} of {record:?}");
    }
    // Three fields, of which the last becomes another line of the second, or of the first.
    let mut three = completed.clone();
    let State::Completed { reply, .. } = &mut three.state else { panic!("completed") };
    let fields = ["linj", "link", "lint"].map(|name| (HeaderName::from_static(name), HeaderValue::from_static("x")));
    Arc::make_mut(reply).headers = HeaderMap::from_iter(fields);
    let last = FIXED + 4 + 2 * (2 + 4 + 4 + 1);
    assert!(changed(&three, last + 2, b"link").is_ok());
    assert!(changed(&three, last + 2, b"linj").is_err());
}

/// The map of fields panics when it is asked for more than it can hold.
#[test]
fn a_record_of_too_many_fields_is_refused() {
    let mut bytes = encode(&completed(), Placement::Within);
    bytes.truncate(FIXED + 2);
    bytes.extend(u16::MAX.to_le_bytes());
    for number in 0..u16::MAX {
        encode_field(&mut bytes, &format!("x{number}").parse().expect("a name"), &HeaderValue::from_static(""))
            .expect("a short one");
    }
    assert_eq!(decode(&sealed(bytes)), Err(Unreadable::Damaged("it has too many fields")));
}

/// A count that wraps would leave a record that nobody can read.
#[test]
fn an_answer_of_more_lines_than_can_be_counted_is_not_to_be_replayed() {
    for (lines, is_whole) in [(usize::from(u16::MAX), true), (usize::from(u16::MAX) + 1, false), (70_000, false)] {
        for in_trailers in [false, true] {
            let mut record = completed();
            let State::Completed { reply, settled_at } = &mut record.state else { panic!("completed") };
            let reply = Arc::make_mut(reply);
            let fields = if in_trailers { &mut reply.trailers } else { &mut reply.headers };
            for _ in fields.len()..lines {
                fields.append("x-line", HeaderValue::from_static("1"));
            }
            let unreplayable = State::Unreplayable {
                settled_at: *settled_at,
                status: reply.status,
                location: Some(HeaderValue::from_static("/orders/1")),
            };
            for placement in [Placement::Within, Placement::Apart] {
                match (decode(&encode(&record, placement).into()).expect("readable"), is_whole) {
                    (Decoded::Whole(read), true) => assert_eq!(read, joined(record.clone())),
                    (Decoded::Bodiless(read), true) => assert_eq!(read.record().summary(), record.summary()),
                    (Decoded::Whole(read), false) => {
                        assert_eq!(read, Record { claim: record.claim.clone(), state: unreplayable.clone() });
                    }
                    (Decoded::Bodiless(_), false) => panic!("there is no body"),
                }
            }
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
        let lines = headers.len().max(trailers.len());
        let body = body.into_iter().map(Bytes::from).collect();
        let reply = Reply { status, headers, body, trailers };
        let record = Record { claim, state: State::Completed { settled_at, reply: Arc::new(reply) } };
        let decoded = decode(&encode(&record, Placement::Within).into()).expect("readable");
        match decoded {
            Decoded::Whole(Record { state: State::Unreplayable { status: kept, .. }, .. }) => {
                prop_assert!(lines > usize::from(u16::MAX));
                prop_assert_eq!(kept, status);
            }
            decoded => prop_assert_eq!(decoded, Decoded::Whole(joined(record.clone()))),
        }
        prop_assert!(decode(&encode(&record, Placement::Apart).into()).is_ok());
        let location = location.map(|text| HeaderValue::try_from(text).expect("a value"));
        let unreplayable = Record { state: State::Unreplayable { settled_at, status, location }, ..record };
        let decoded = decode(&encode(&unreplayable, Placement::Within).into());
        prop_assert_eq!(decoded, Ok(Decoded::Whole(unreplayable)));
    }
}
