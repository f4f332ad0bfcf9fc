//! Fuzz tests of everything that reads foreign bytes: records, keys, configuration files. Arbitrary input, and valid
//! input with changes. `fuzz/` runs the same checks with coverage guidance.

// In a binary, nothing is reachable from outside.
#![allow(unreachable_pub)]

mod config;
mod key;
mod record;

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use onlyonce::record::chunks::Cut;
use onlyonce::record::codec::{Placement, encode};
use onlyonce::record::{Claim, Fingerprint, Record, Reply, State, Terms, Token, UnknownPolicy};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A change to a list of bytes or characters.
#[derive(Debug, Clone)]
enum Change<T> {
    Replace(Index, Vec<T>),
    Insert(Index, Vec<T>),
    Remove(Index, usize),
    /// Copies a piece to another place.
    Copy(Index, usize, Index),
}

impl<T: Clone> Change<T> {
    fn make(self, list: &mut Vec<T>) {
        let place = |index: Index| index.index(list.len() + 1);
        match self {
            Self::Replace(at, with) => {
                let at = place(at);
                list.splice(at..(at + with.len()).min(list.len()), with);
            }
            Self::Insert(at, what) => {
                let at = place(at);
                list.splice(at..at, what);
            }
            Self::Remove(at, length) => {
                let at = place(at);
                list.drain(at..(at + length).min(list.len()));
            }
            Self::Copy(from, length, to) => {
                let (from, to) = (place(from), place(to));
                let piece = list[from..(from + length).min(list.len())].to_vec();
                list.splice(to..to, piece);
            }
        }
    }
}

/// One of `seeds`, with a few changes from `pieces`.
fn changed<T, P>(seeds: Vec<Vec<T>>, pieces: P) -> impl Strategy<Value = Vec<T>>
where
    T: Clone + std::fmt::Debug + 'static,
    P: Strategy<Value = Vec<T>> + Clone + 'static,
{
    let change = prop_oneof![
        4 => (any::<Index>(), pieces.clone()).prop_map(|(at, with)| Change::Replace(at, with)),
        2 => (any::<Index>(), pieces).prop_map(|(at, what)| Change::Insert(at, what)),
        1 => (any::<Index>(), 1_usize..40).prop_map(|(at, length)| Change::Remove(at, length)),
        1 => (any::<Index>(), 1_usize..40, any::<Index>()).prop_map(|(from, length, to)| Change::Copy(from, length, to)),
    ];
    (select(seeds), vec(change, 1..5)).prop_map(|(mut list, changes)| {
        changes.into_iter().for_each(|change| change.make(&mut list));
        list
    })
}

/// A few bytes: random ones, or boundary values.
fn bytes() -> impl Strategy<Value = Vec<u8>> + Clone {
    let edges = select(vec![vec![0], vec![1], vec![0xff], vec![0; 8], vec![0xff; 2], vec![0xff; 4], vec![0xff; 8]]);
    prop_oneof![vec(any::<u8>(), 1..3), edges]
}

/// The bytes of records of every kind, without their checksums.
fn records() -> Vec<Vec<u8>> {
    let fields = |names: &[&'static str]| {
        let field = |name: &&'static str| (HeaderName::from_static(name), HeaderValue::from_static("value"));
        names.iter().map(field).collect::<HeaderMap>()
    };
    let body = vec![Bytes::from_static(b"{\"id\":1}")].into();
    let (status, settled_at) = (StatusCode::CREATED, 1);
    let reply = Reply { status, headers: fields(&["link", "link", "location"]), body, trailers: fields(&["trailer"]) };
    let states = [
        State::InFlight,
        State::Completed { settled_at, reply: Arc::new(reply) },
        State::Unreplayable { settled_at, status, location: Some(HeaderValue::from_static("/1")) },
        State::Unreplayable { settled_at, status, location: None },
        State::Unknown { settled_at },
    ];
    let second = Duration::from_secs(1);
    let claims = [UnknownPolicy::Hold(second), UnknownPolicy::Retry].map(|on_unknown| Claim {
        token: Token([7; 16]),
        attempt: 1,
        terms: Terms { lease: second, retention: second, on_unknown },
        fingerprint: Fingerprint { target: [1; 16], recipe: 2, body: [3; 16] },
        claimed_at: 4,
        extensions: Default::default(),
    });
    let records =
        claims.into_iter().flat_map(|claim| states.clone().map(|state| Record { claim: claim.clone(), state }));
    let encoded = records
        .flat_map(|record| [Placement::Within, Placement::Apart(Cut::of(1))].map(|place| encode(&record, place)));
    encoded.map(|bytes| bytes[..bytes.len() - record::CHECKSUM].to_vec()).collect()
}

/// Files that load, and files that are refused.
static FILES: LazyLock<Vec<Vec<char>>> = LazyLock::new(|| {
    let folder = |name| Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let entries = ["config", "tests/config"].into_iter().flat_map(|name| fs::read_dir(folder(name)).expect("a folder"));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let files = paths.filter(|path| path.extension().is_some_and(|extension| extension == "toml"));
    files.map(|path| fs::read_to_string(path).expect("a file").chars().collect()).collect()
});

/// Tokens of a configuration file.
fn tokens() -> impl Strategy<Value = Vec<char>> + Clone {
    let words = [
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "#",
        "\\",
        "\n",
        "\r\n",
        "\t",
        "0",
        "-1",
        "9e9",
        "99999999999999999999",
        "true",
        "1979-05-27",
        "\"30s\"",
        "\"0s\"",
        "\"1MiB\"",
        "\"env:X\"",
        "\"env:UNSET\"",
        "header:",
        "json:/",
        "{tenant}",
        "é",
        "漢",
        "\u{301}",
        "\u{feff}",
        "\0",
        "route",
        "[[route]]\n",
        "[server]\n",
        "defaults.",
    ];
    let word = select(words.to_vec()).prop_map(|word| word.chars().collect());
    prop_oneof![4 => word, 1 => vec(any::<char>(), 1..4)]
}

const JSON: [&str; 6] = [
    r#"{"tenant":"t","a":[{"k":"key","k":1}],"time":1.5e300}"#,
    r#"{"tenant":"t","a":[{"k":"\u00e9\ud83d\ude00"}]}"#,
    r#"{"a":[{"k":-0.00120e+400}],"tenant":null}"#,
    "[[[[[[]]]]]]",
    "k=key&k=%E9&=&%",
    "--b\r\nContent-Disposition: form-data; name=\"k\"\r\n\r\nkey\r\n--b--\r\n",
];

// `PROPTEST_CASES` sets another number of cases.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn a_record_is_read_as_it_was_written_or_refused(bytes in vec(any::<u8>(), 0..400)) {
        record::check(&bytes);
    }

    #[test]
    fn a_damaged_record_is_read_as_it_was_written_or_refused(bytes in changed(records(), bytes())) {
        record::check(&bytes);
    }

    #[test]
    fn any_line_or_body_has_a_key_or_none(bytes in vec(any::<u8>(), 0..200)) {
        key::check(&bytes);
    }

    #[test]
    fn any_line_of_text_has_a_key_or_none(text in r#"[ -~\t]{0,60}"#) {
        key::check(text.as_bytes());
    }

    #[test]
    fn any_body_that_is_nearly_sound_has_a_key_or_none(
        bytes in changed(JSON.map(|text| text.as_bytes().to_vec()).to_vec(), bytes()),
    ) {
        key::check(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_is_a_file_or_wrong_somewhere(text in any::<String>()) {
        config::check(&text);
    }

    #[test]
    fn any_tokens_are_a_file_or_wrong_somewhere(tokens in vec(tokens(), 0..30)) {
        config::check(&tokens.concat().into_iter().collect::<String>());
    }

    #[test]
    fn any_changed_file_is_a_file_or_wrong_somewhere(text in changed(FILES.clone(), tokens())) {
        config::check(&text.into_iter().collect::<String>());
    }
}
