use std::fmt::Write as _;

use super::super::super::encryption::{NONCE, SECRET};
use super::super::super::{
    Extensions, Fingerprint, Hex, Record, SettledRecord, Settlement, State, Terms, Token, UnknownPolicy, codec,
};
use super::*;

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

fn claim() -> Claim {
    Claim {
        token: Token(*b"0123456789abcdef"),
        attempt: 1,
        terms: Terms {
            lease: Duration::from_secs(30),
            retention: Duration::from_secs(86_400),
            on_unknown: UnknownPolicy::Hold(Duration::from_secs(3_600)),
        },
        fingerprint: Fingerprint { target: [1; 16], recipe: 7, body: [2; 16] },
        claimed_at: 1_763_700_000_000,
        extensions: Extensions::of(code::TRACE, b"trace"),
    }
}

fn facts() -> ProbeFacts {
    let value = |name: &str, value: &[u8]| (name.to_owned(), value.to_vec());
    let values = vec![value("key", b"secret-key"), value("json:/order", b"\xff\x00"), value("header:x-empty", b"")];
    ProbeFacts { attempt_timeout: Duration::from_secs(600), values }
}

fn kept(facts: &ProbeFacts) -> Claim {
    let mut claim = claim();
    facts.keep(&mut claim, &name(), Some(Encryption { key: &key(1), nonce }));
    claim
}

#[test]
fn what_is_kept_with_a_claim_is_read_with_its_key_and_shows_nothing() {
    let none = ProbeFacts { values: Vec::new(), ..facts() };
    for facts in [facts(), none] {
        let claim = kept(&facts);
        for keys in [&[key(1)][..], &[key(2), key(1)]] {
            assert_eq!(ProbeFacts::of(&claim, &name(), keys), Some(facts.clone()));
        }
        let bytes = codec::encode_claim(&claim);
        for part in [&b"secret"[..], b"json", b"key"] {
            assert!(!bytes.windows(part.len()).any(|window| window == part));
        }
        // It stays with the record, beside what else is kept.
        let read = codec::decode(&bytes.into()).expect("a record");
        assert_eq!(read.claim, claim);
        assert_eq!(read.claim.extensions.get(code::TRACE), Some(&b"trace"[..]));
    }
    assert_eq!(facts().value("json:/order"), Some(&b"\xff\x00"[..]));
    assert_eq!(facts().value("json:/other"), None);
    let shown = format!("{:?}", facts());
    assert!(shown.contains("json:/order") && !shown.contains("secret-key"), "{shown}");
}

#[test]
fn without_a_key_and_when_it_is_too_long_nothing_is_kept() {
    let mut bare = claim();
    facts().keep(&mut bare, &name(), None);
    assert_eq!(bare, claim());
    let of = |length| ProbeFacts { values: vec![("key".to_owned(), vec![b'k'; length])], ..facts() };
    let most = of(MOST - 3);
    assert_eq!(ProbeFacts::of(&kept(&most), &name(), &[key(1)]), Some(most));
    assert_eq!(kept(&of(MOST - 2)), claim());
    assert_eq!(ProbeFacts::of(&claim(), &name(), &[key(1)]), None);
}

#[test]
fn what_was_changed_or_moved_or_has_no_key_is_as_if_it_was_not_there() {
    let claim = kept(&facts());
    let sealed = claim.extensions.get(code::PROBE).expect("it is there").to_vec();
    let with = |sealed: &[u8]| {
        let mut claim = claim.clone();
        claim.extensions.insert(code::PROBE, sealed);
        ProbeFacts::of(&claim, &name(), &[key(1)])
    };
    assert_eq!(with(&sealed), Some(facts()));
    for bit in 0..sealed.len() * 8 {
        let mut changed = sealed.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(with(&changed), None, "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert_eq!(with(&sealed[..length]), None, "cut to {length}");
    }
    assert_eq!(ProbeFacts::of(&claim, &name(), &[key(2)]), None);
    assert_eq!(ProbeFacts::of(&claim, &name(), &[]), None);
    let other_token = Claim { token: Token([0; 16]), ..claim.clone() };
    assert_eq!(ProbeFacts::of(&other_token, &name(), &[key(1)]), None);
    for other in [RecordName { digest: [8; 16], ..name() }, RecordName { route: "order".into(), ..name() }] {
        assert_eq!(ProbeFacts::of(&claim, &other, &[key(1)]), None);
    }
}

#[test]
fn a_layout_of_another_version_is_as_if_it_was_not_there() {
    let plain = facts().encode().expect("short");
    assert_eq!(ProbeFacts::decode(&plain), Some(facts()));
    assert_eq!(ProbeFacts::decode(&[&[LAYOUT + 1], &plain[1..]].concat()), None);
    // No prefix that ends within a value is one.
    let whole = (0..plain.len()).filter(|length| ProbeFacts::decode(&plain[..*length]).is_some()).count();
    assert_eq!(whole, 3, "as many as there are values, without the last");
}

#[test]
fn it_is_kept_while_the_outcome_is_not_known() {
    let settled = |settlement: &Settlement| SettledRecord::new(kept(&facts()), settlement, 5).claim.clone();
    assert_eq!(settled(&Settlement::Unknown), kept(&facts()));
    let unreplayable = Settlement::Unreplayable { status: http::StatusCode::OK, location: None };
    assert_eq!(settled(&unreplayable), claim());
}

#[test]
fn the_bytes_are_fixed() {
    let mut written = String::new();
    for (what, state) in [("in flight", State::InFlight), ("unknown", State::Unknown { settled_at: 5 })] {
        let record = Record { claim: kept(&facts()), state };
        let bytes = codec::encode(&record, codec::Placement::Within);
        let _ =
            writeln!(written, "{what}: {}", bytes.iter().map(|byte| Hex::of(&[*byte]).to_string()).collect::<String>());
    }
    assert_eq!(written, include_str!("golden.txt"), "these bytes are stored by users: a change needs a new layout");
}
