use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn name() -> RecordName {
    RecordName { route: "orders".into(), digest: [1; 16] }
}

const TOKEN: Token = Token([2; 16]);

/// Bytes that repeat nowhere near a chunk's length.
fn body(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8).collect()
}

/// A body in pieces of these lengths, over and over.
fn pieces(body: &[u8], lengths: &[usize]) -> Vec<Bytes> {
    let mut rest = Bytes::copy_from_slice(body);
    let mut lengths = lengths.iter().cycle();
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let length = lengths.next().copied().unwrap_or(usize::MAX).min(rest.len());
        pieces.push(rest.split_to(length));
    }
    pieces
}

/// What is stored of each chunk.
fn stored(body: &[u8], lengths: &[usize]) -> (Vec<Bytes>, Cut) {
    let (chunks, cut) = cut(&name(), TOKEN, &pieces(body, lengths), None);
    assert!(chunks.iter().map(|chunk| chunk.index).eq(0..cut.count()));
    (chunks.into_iter().map(|chunk| chunk.pieces.concat().into()).collect(), cut)
}

fn read(name: &RecordName, token: Token, cut: Cut, chunks: &[Bytes]) -> Option<Vec<u8>> {
    let mut reader = ApartBody { token, cut, key: None, expands_to: None }.reader(name);
    let mut body = Vec::new();
    for chunk in chunks {
        body.extend_from_slice(&reader.read(chunk.clone()).ok()?);
    }
    reader.is_at_end().then_some(body)
}

/// About one chunk, two, or three.
fn lengths() -> impl Strategy<Value = usize> {
    let size = SIZE as usize;
    prop_oneof![
        Just(0),
        1..100_usize,
        (1..3_usize, -2..3_isize).prop_map(move |(chunks, more)| { (chunks * size).saturating_add_signed(more) })
    ]
}

#[test]
fn the_digest_of_a_chunk_is_fixed() {
    let (chunks, _) = stored(&body(SIZE as usize + 1), &[]);
    let digest = |chunk: &Bytes| u64::from_le_bytes(chunk[chunk.len() - DIGEST..].try_into().expect("eight"));
    let written: String = chunks.iter().map(|chunk| format!("{:016x}\n", digest(chunk))).collect();
    assert_eq!(written, include_str!("golden.txt"), "these bytes are stored by users: a change needs a new version");
}

#[test]
fn an_empty_body_is_one_chunk() {
    let (chunks, cut) = stored(b"", &[]);
    assert_eq!((chunks.len(), chunks[0].len(), cut.stored()), (1, DIGEST, DIGEST as u64));
    assert_eq!(read(&name(), TOKEN, cut, &chunks), Some(Vec::new()));
    assert_eq!(read(&name(), TOKEN, cut, &[]), None);
}

#[test]
fn lengths_that_a_damaged_record_tells_overflow_nowhere() {
    for (length, size) in [(u64::MAX, 1), (u64::MAX, u32::MAX), (0, 1)] {
        let cut = Cut::read(length, size).expect("a cut");
        let _ = (cut.stored(), cut.lies_at(0), cut.lies_at(cut.count() - 1), cut.lies_at(u64::MAX));
        assert!(
            ApartBody { token: TOKEN, cut, key: None, expands_to: None }
                .reader(&name())
                .read(Bytes::from_static(b"x"))
                .is_err()
        );
    }
    assert_eq!(Cut::read(1, 0), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_cut_is_read_however_it_came(length in lengths(), lengths in vec(1..80_000_usize, 1..5)) {
        let body = body(length);
        let (chunks, cut) = stored(&body, &lengths);
        prop_assert_eq!(&chunks, &stored(&body, &[]).0);
        prop_assert_eq!(cut.length(), length as u64);
        prop_assert_eq!(read(&name(), TOKEN, cut, &chunks), Some(body));
        let whole = chunks.concat();
        prop_assert_eq!(cut.stored(), whole.len() as u64);
        for (index, chunk) in (0..).zip(&chunks) {
            let Range { start, end } = cut.lies_at(index);
            prop_assert_eq!(&whole[start as usize..end as usize], &chunk[..]);
        }
    }

    #[test]
    fn no_other_list_of_chunks_is_a_body(
        length in lengths(),
        places in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        kind in 0..4_usize,
    ) {
        let (chunks, cut) = stored(&body(length), &[]);
        let (one, other) = (places.0.index(chunks.len()), places.1.index(chunks.len()));
        let mut changed = chunks.clone();
        match kind {
            0 => changed.swap(one, other),
            1 => drop(changed.remove(one)),
            2 => changed.insert(one, chunks[other].clone()),
            _ => changed[one] = chunks[other].clone(),
        }
        prop_assume!(changed != chunks);
        prop_assert_eq!(read(&name(), TOKEN, cut, &changed), None);
        // Nor for a record that tells of fewer chunks, or of more.
        let fewer = Cut::of(cut.length().saturating_sub(SIZE.into()));
        let more = Cut::of(cut.length() + u64::from(SIZE));
        for other in [fewer, more].into_iter().filter(|other| *other != cut) {
            prop_assert_eq!(read(&name(), TOKEN, other, &changed), None);
            prop_assert_eq!(read(&name(), TOKEN, other, &chunks), None);
        }
    }

    #[test]
    fn no_damaged_chunk_passes(length in lengths(), place in any::<prop::sample::Index>(), bit in 0..8_u32) {
        let (chunks, cut) = stored(&body(length), &[]);
        let index = place.index(chunks.len());
        let mut damaged = chunks[index].to_vec();
        let at = place.index(damaged.len());
        damaged[at] ^= 1 << bit;
        let mut changed = chunks.clone();
        changed[index] = damaged.into();
        prop_assert_eq!(read(&name(), TOKEN, cut, &changed), None);
        for shorter in [0, at] {
            changed[index] = chunks[index].slice(..shorter);
            prop_assert_eq!(read(&name(), TOKEN, cut, &changed), None);
        }
        changed[index] = [&chunks[index][..], b"x"].concat().into();
        prop_assert_eq!(read(&name(), TOKEN, cut, &changed), None);
    }

    #[test]
    fn chunks_of_another_attempt_record_or_route_never_pass(length in lengths(), bit in 0..128_usize) {
        let (chunks, cut) = stored(&body(length), &[]);
        let mut flipped = [0; 16];
        flipped[bit / 8] = 1 << (bit % 8);
        let flip = |bytes: [u8; 16]| std::array::from_fn(|at| bytes[at] ^ flipped[at]);
        prop_assert_eq!(read(&name(), Token(flip(TOKEN.0)), cut, &chunks), None);
        let other = RecordName { digest: flip(name().digest), ..name() };
        prop_assert_eq!(read(&other, TOKEN, cut, &chunks), None);
        let other = RecordName { route: "order".into(), ..name() };
        prop_assert_eq!(read(&other, TOKEN, cut, &chunks), None);
    }
}
