//! Large answers, whose chunks are frames of their own.

use std::fs;

use super::*;
use crate::record::chunks::Cut;
use crate::record::{Record, Reply, Settlement};
use crate::store::StoredBody;
use crate::store::embedded::bodies::chunk_name;
use http::{HeaderMap, StatusCode};

fn answer(claim: &Claim, length: usize) -> SettledRecord {
    answer_in_pieces(claim, length, 50_000)
}

/// An answer whose body is in pieces of `piece` bytes.
fn answer_in_pieces(claim: &Claim, length: usize, piece: usize) -> SettledRecord {
    let body: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
    let body = body.chunks(piece).map(Bytes::copy_from_slice).collect::<Vec<_>>().into();
    let reply = Reply { status: StatusCode::OK, headers: HeaderMap::new(), body, trailers: HeaderMap::new() };
    SettledRecord::new(claim.clone(), &Settlement::Completed(reply.into()), 9)
}

async fn body_of(store: &Embedded, name: &RecordName) -> StoredBody {
    let held = store.find(name).await.expect("an answer").expect("a record");
    let body = held.record.apart_body().expect("a body that lies apart").clone();
    StoredBody::open(store, name, body).await.expect("a body")
}

async fn is_whole(store: &Embedded, name: &RecordName, record: &Record) -> bool {
    let State::Completed { reply, .. } = &record.state else { panic!("it is completed") };
    body_of(store, name).await.rest().await.expect("all of it").concat() == reply.body.pieces().concat()
}

async fn listed(store: &Embedded) -> usize {
    let page = store.list(&ListQuery { route: None, after: None, limit: 1000 }).await.expect("an answer");
    assert_eq!(page.next, None);
    page.records.len()
}

#[tokio::test]
async fn a_large_answer_lies_beside_its_record_and_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    for durability in [Durability::Disk, Durability::Process] {
        let open = || Embedded::open(folder.path(), &config(durability), HOUR).expect("a store");
        let (store, mine) = (open(), claim(1, RETRY));
        let (before, large) = (listed(&store).await, [name(), name()]);
        let records = [65_537, 5 << 20].map(|length| answer(&mine, length));
        for (name, record) in large.iter().zip(&records) {
            assert_eq!(store.settle(name, record).await.expect("an answer"), Settled::Written);
            // The same settle again has the same result.
            let again = store.settle(name, record).await.expect("an answer");
            assert!(matches!(again, Settled::Kept(kept) if *kept == **record), "{durability:?}");
        }
        assert_eq!(listed(&store).await, before + 2, "chunks are no records");
        drop(store);
        let store = open();
        for (name, record) in large.iter().zip(&records) {
            assert!(is_whole(&store, name, record).await, "{durability:?}");
        }
    }
}

/// Only the chunks that are requested are read from the disk and kept.
#[test]
fn of_a_large_answer_no_more_is_read_than_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let store = open(&folder);
        let (name, mine) = (name(), claim(1, RETRY));
        let record = answer(&mine, 64 << 20);
        store.settle(&name, &record).await.expect("an answer");
        let mut body = body_of(&store, &name).await;
        assert_eq!(body.length(), 64 << 20);
        let chunk = body.next().await.expect("read").expect("a chunk");
        assert_eq!(chunk.len() as u64, u64::from(Cut::of(1).size()));
        let refused = store.claim(&name, &claim(2, RETRY)).await.expect("an answer");
        let Claimed::Refused(held) = refused else { panic!("it is completed") };
        let State::Completed { reply, .. } = held.record.state else { panic!("it is completed") };
        assert!(reply.body.pieces().is_empty());
    });
}

#[tokio::test]
async fn a_large_answer_outlives_the_segments_that_it_was_written_to_and_its_own_record() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (stays, mine) = (name(), claim(1, Terms { retention: HOUR * 3, ..RETRY }));
    let record = answer(&mine, 400_000);
    store.settle(&stays, &record).await.expect("an answer");
    // Many bytes that expire soon are in the same segments.
    let short = claim(1, Terms { retention: HOUR / 2, ..RETRY });
    for _ in 0..40 {
        store.settle(&name(), &answer(&short, 100_000)).await.expect("an answer");
    }
    assert!(size(&folder) > 4_400_000);
    let mut reading = body_of(&store, &stays).await;
    let first = reading.next().await.expect("read").expect("a chunk");
    // The chunks of these answers outlive their records by an hour.
    store.shared.clock.advance(HOUR * 2);
    until(|| size(&folder) < 1_300_000).await;
    assert!(is_whole(&store, &stays, &record).await);
    // The record expires before its chunks.
    store.shared.clock.advance(HOUR + HOUR / 2);
    assert_eq!(store.find(&stays).await.expect("an answer"), None);
    let rest = reading.rest().await.expect("all of it");
    let State::Completed { reply, .. } = &record.state else { panic!("it is completed") };
    assert!([vec![first], rest].concat().concat() == reply.body.pieces().concat());
    store.shared.clock.advance(HOUR);
    until(|| size(&folder) < 600_000).await;
}

#[tokio::test]
async fn a_flipped_bit_of_a_chunk_is_never_an_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (name, mine) = (name(), claim(1, RETRY));
    let record = answer(&mine, 70_000);
    store.settle(&name, &record).await.expect("an answer");
    let path = fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").path());
    let path = path.filter(|path| path.extension().is_some_and(|end| end == "log")).max().expect("a segment");
    let bytes = fs::read(&path).expect("readable");
    let chunk = bytes.windows(8).position(|bytes| bytes == [0, 1, 2, 3, 4, 5, 6, 7]).expect("the first chunk");
    // One bit in the first chunk, in its head, and in the second chunk.
    for (at, read) in [(chunk + 7, 0), (chunk - 30, 0), (chunk + 66_000, 1)] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        fs::write(&path, damaged).expect("written");
        let mut body = body_of(&store, &name).await;
        for _ in 0..read {
            body.next().await.expect("read").expect("a chunk");
        }
        assert!(matches!(body.next().await, Err(StoreError::Unreadable { .. })), "{at}");
        fs::write(&path, &bytes).expect("written");
    }
    assert!(is_whole(&store, &name, &record).await);
}

#[tokio::test]
async fn a_write_that_fails_after_the_chunks_does_not_take_them_along() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let mine = claim(1, RETRY);
    let (large, other) = (name(), name());
    let record = answer(&mine, 300_000);
    store.settle(&large, &record).await.expect("an answer");
    store.shared.fails.store(true, Ordering::Relaxed);
    store.claim(&other, &mine).await.expect_err("the disk failed");
    until(|| store.health() == Health::Up).await;
    assert!(is_whole(&store, &large, &record).await);
    // Now the write of the chunks fails.
    store.shared.fails.store(true, Ordering::Relaxed);
    let (name, record) = (name(), answer(&mine, 200_000));
    store.settle(&name, &record).await.expect_err("the disk failed");
    while store.settle(&name, &record).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(store);
    let store = open(&folder);
    assert!(is_whole(&store, &name, &record).await);
}

/// A large answer takes its time. Other writes wait for a MiB of it at most, also if its body is a single piece.
#[tokio::test]
async fn others_are_written_while_a_large_answer_is() {
    const LENGTH: usize = 32 << 20;
    for piece in [50_000, LENGTH] {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Arc::new(open(&folder));
        let mine = claim(1, RETRY);
        let (writer, record) = (Arc::clone(&store), answer_in_pieces(&mine, LENGTH, piece));
        let large = name();
        let writing = tokio::spawn({
            let (large, record) = (large.clone(), record.clone());
            async move { writer.settle(&large, &record).await.expect("an answer") }
        });
        let mut meanwhile = 0;
        while !writing.is_finished() {
            store.claim(&name(), &mine).await.expect("an answer");
            meanwhile += 1;
        }
        assert!(meanwhile > 10, "{meanwhile}");
        assert_eq!(writing.await.expect("no panic"), Settled::Written);
        assert!(is_whole(&store, &large, &record).await);
    }
}

#[tokio::test]
async fn a_large_answer_waits_for_the_others_no_longer_than_the_timeout() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = config::StoreConfig { timeout: Duration::from_millis(100), ..config(Durability::Disk) };
    let store = Embedded::open(folder.path(), &config, HOUR).expect("a store");
    let (name, record) = (name(), answer(&claim(1, RETRY), 100_000));
    let _another = store.shared.body_turn.lock().await;
    let settled =
        tokio::time::timeout(Duration::from_secs(20), store.settle(&name, &record)).await.expect("an answer in time");
    assert!(matches!(settled, Err(StoreError::Refused(_))), "{settled:?}");
}

/// The bytes of all frames.
fn written(store: &Embedded) -> u64 {
    let segments = store.shared.view.read();
    segments.full.iter().map(|segment| segment.length).sum::<u64>() + segments.open.length
}

/// A settle that failed after its chunks were written is tried again.
#[tokio::test]
async fn a_large_answer_that_is_settled_again_is_not_stored_twice() {
    const LENGTH: usize = 3 << 20;
    let encrypted = vec![config::SecretKey::new([1; 32])];
    // Each try encrypts anew.
    for (encryption_keys, keeps) in [(Vec::new(), true), (encrypted, false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = config::StoreConfig { encryption_keys, ..config(Durability::Disk) };
        let store = Embedded::open(folder.path(), &config, HOUR).expect("a store");
        let (name, mine) = (name(), claim(1, RETRY));
        let record = answer(&mine, LENGTH);
        let State::Completed { reply, .. } = &record.state else { panic!("it is completed") };
        let (pieces, time_to_live) = (reply.body.pieces(), transitions::time_to_live(&record));
        let write = async || store.write_body(&name, mine.token, pieces, time_to_live).await.expect("written");
        write().await;
        let once = written(&store);
        write().await;
        // The thread may write the time meanwhile, and give back the room of what is superseded.
        assert!(!keeps || written(&store) < once + 1000);
        assert_eq!(store.settle(&name, &record).await.expect("an answer"), Settled::Written);
        assert!(is_whole(&store, &name, &record).await);
        drop(store);
        let mut opened = RecordLog::open(folder.path(), Durability::Disk).expect("a store");
        assert!((LENGTH as u64..LENGTH as u64 + 100_000).contains(&opened.log.used()), "{}", opened.log.used());
        assert_eq!(opened.log.records(opened.clock), 1);
    }
}

/// Chunks that would not outlive the record are written again.
#[tokio::test]
async fn a_large_answer_that_is_settled_much_later_has_chunks_that_last() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (name, mine) = (name(), claim(1, RETRY));
    let record = answer(&mine, 300_000);
    let State::Completed { reply, .. } = &record.state else { panic!("it is completed") };
    let time_to_live = transitions::time_to_live(&record);
    store.write_body(&name, mine.token, reply.body.pieces(), time_to_live).await.expect("written");
    store.shared.clock.advance(HOUR + HOUR / 2);
    store.settle(&name, &record).await.expect("an answer");
    let needed = store.shared.clock.now() + (time_to_live + HOUR).as_millis() as u64;
    for index in 0..5 {
        let chunk = store.shared.view.find(&chunk_name(&name, mine.token, index)).expect("readable").expect("a chunk");
        assert!(chunk.head.expires_at >= needed, "{index}");
    }
    assert!(is_whole(&store, &name, &record).await);
}
