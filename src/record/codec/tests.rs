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
        encode_field(&mut bytes, &format!("x{number}").parse().expect("a name"), &HeaderValue::from_static(""));
    }
    assert_eq!(decode(&sealed(bytes)), Err(Unreadable::Damaged("it has too many fields")));
}
