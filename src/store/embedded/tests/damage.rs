use std::fs;
use std::path::PathBuf;

use super::*;

fn error(path: &Path) -> EmbeddedError {
    Embedded::open(path, &config(Durability::Disk), HOUR).err().expect("no store")
}

type Damage<'a> = &'a dyn Fn(&Path);

/// The files whose names end with `end`, the oldest first.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = entries.filter(|path| path.to_string_lossy().ends_with(end)).collect();
    files.sort();
    files
}

fn said(error: &EmbeddedError) -> String {
    crate::store::causes(error)
}

#[test]
fn what_cannot_be_opened_is_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    fs::write(&file, "text").expect("written");
    assert!(matches!(error(&file), EmbeddedError::NotAFolder(_)));
    assert!(matches!(error(&file.join("store")), EmbeddedError::Inaccessible { .. }));

    let path = folder.path().join("store");
    let store = Embedded::open(&path, &config(Durability::Disk), HOUR).expect("a store");
    let in_use = error(&path);
    assert!(matches!(in_use, EmbeddedError::InUse(_)));
    assert!(in_use.to_string().starts_with(&format!("another onlyonce uses {}: ", path.display())), "{in_use}");
    drop(store);

    fs::write(path.join("manifest"), "nonsense").expect("written");
    assert!(matches!(error(&path), EmbeddedError::Damaged { .. }));
}

#[test]
fn a_folder_of_another_use_is_left_as_it_is() {
    for (file, older) in [("notes.txt", false), ("app.log", false), ("keyspaces", true), ("0.jnl", true)] {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(file), "text").expect("written");
        let error = error(folder.path());
        match older {
            false => assert!(matches!(&error, EmbeddedError::NotAStore { file: said, .. } if said == file), "{error}"),
            true => assert!(matches!(error, EmbeddedError::Older(_)), "{error}"),
        }
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }
    // A new volume may contain this folder.
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir(folder.path().join("lost+found")).expect("made");
    drop(open(&folder));
}

/// A store of three segments, closed in good order or as if killed, and the names of its records.
async fn filled(crash: bool) -> (TempDir, Vec<RecordName>) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let mine = claim(1, RETRY);
    let mut names = Vec::new();
    while files(folder.path(), ".log").len() < 3 {
        names.push(name());
        store.settle(&names[names.len() - 1], &completed(&mine, &[7; 3000])).await.expect("an answer");
    }
    for _ in 0..5 {
        names.push(name());
        store.settle(&names[names.len() - 1], &completed(&mine, &[7; 3000])).await.expect("an answer");
    }
    if !crash {
        drop(store);
        return (folder, names);
    }
    let killed = tempfile::tempdir().expect("a folder");
    until(|| files(folder.path(), ".idx").len() == 2).await;
    for entry in fs::read_dir(folder.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, killed.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    (killed, names)
}

#[tokio::test]
async fn a_store_that_is_not_whole_is_refused() {
    for crash in [false, true] {
        let (whole, _) = filled(crash).await;
        let count = files(whole.path(), ".log").len();
        let damages: [(&str, Damage<'_>); 8] = [
            ("`manifest` is gone", &|path| fs::remove_file(path.join("manifest")).expect("removed")),
            (".log` is gone", &|path| fs::remove_file(&files(path, ".log")[0]).expect("removed")),
            (".log` is gone", &|path| fs::remove_file(&files(path, ".log")[count - 1]).expect("removed")),
            ("bytes, and had", &|path| cut(&files(path, ".log")[0], 100)),
            ("is another one", &|path| fs::write(&files(path, ".log")[count - 1], "").expect("written")),
            ("is another one", &|path| {
                let logs = files(path, ".log");
                fs::copy(&logs[0], &logs[count - 1]).map(drop).expect("copied");
            }),
            // In the head of a frame that is not the last one.
            ("is damaged", &|path| flip(&files(path, ".log")[count - 1], 60)),
            ("manifest", &|path| {
                let (_, manifest) = empty_store();
                fs::write(path.join("manifest"), manifest).expect("written");
            }),
        ];
        for (expected, damage) in damages {
            let copy = copy_of(whole.path());
            damage(copy.path());
            let error = error(copy.path());
            let fine = matches!(error, EmbeddedError::NotWhole { .. } | EmbeddedError::Damaged { .. });
            assert!(fine && said(&error).contains(expected), "{expected}, after a crash: {crash}: {}", said(&error));
        }
        // Files that can be made again are made again.
        let copy = copy_of(whole.path());
        files(copy.path(), ".idx").iter().for_each(|path| fs::write(path, "nonsense").expect("written"));
        fs::remove_file(copy.path().join("reserve")).expect("removed");
        drop(open(&copy));
    }
}

#[tokio::test]
async fn a_store_that_is_closed_must_be_found_as_it_was_left() {
    let (whole, _) = filled(false).await;
    let last = |path: &Path| files(path, ".log").pop().expect("a segment");
    for cut_off in [1, 100, 4000] {
        let copy = copy_of(whole.path());
        cut(&last(copy.path()), cut_off);
        assert!(matches!(error(copy.path()), EmbeddedError::NotWhole { .. }), "{cut_off}");
    }
}

#[tokio::test]
async fn what_was_being_written_at_a_crash_is_cut_off_and_all_else_is_there() {
    let (killed, mut names) = filled(true).await;
    let last = files(killed.path(), ".log").pop().expect("a segment");
    // The last record was not written as a whole.
    let torn = names.pop().expect("a name");
    for damage in [&(|path: &Path| cut(path, 50)) as Damage<'_>, &|path| flip_from_end(path, 200)] {
        let copy = copy_of(killed.path());
        damage(&copy.path().join(last.file_name().expect("a name")));
        let store = open(&copy);
        for name in &names {
            assert!(store.find(name).await.expect("an answer").is_some());
        }
        assert_eq!(store.find(&torn).await.expect("an answer"), None);
        // The store appends after the cut.
        store.claim(&torn, &claim(2, RETRY)).await.expect("an answer");
        drop(store);
        assert!(open(&copy).find(&torn).await.expect("an answer").is_some());
    }
}

#[tokio::test]
async fn a_flipped_bit_is_a_record_that_cannot_be_read() {
    // In a full segment and in the open one, each after a close and after a crash.
    for (crash, segment) in [(false, 0), (false, 2), (true, 0), (true, 2)] {
        let (folder, names) = filled(crash).await;
        let path = &files(folder.path(), ".log")[segment];
        // In the body of the first record.
        flip(path, 1000);
        let store = open(&folder);
        let mut unreadable = 0;
        for name in &names {
            match store.find(name).await {
                Ok(held) => assert_eq!(held.expect("a record").record, completed(&claim(1, RETRY), &[7; 3000])),
                Err(StoreError::Unreadable { .. }) => {
                    unreadable += 1;
                    let claimed = store.claim(name, &claim(2, RETRY)).await;
                    assert!(matches!(claimed, Err(StoreError::Unreadable { .. })), "{claimed:?}");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(unreadable, 1, "after a crash: {crash}, segment {segment}");
    }
}

#[tokio::test]
async fn a_flipped_bit_anywhere_while_the_store_is_open_is_never_an_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let (name, mine) = (name(), claim(1, RETRY));
    let record = completed(&mine, b"{\"order\":1}");
    store.settle(&name, &record).await.expect("an answer");
    let path = &files(folder.path(), ".log")[0];
    // A frame that holds only the time may come first.
    let begin = store.shared.view.find(&name).expect("an answer").expect("a record").place.offset();
    let end = begin + frame::frame_len(&name, codec::encode(&record, Placement::Within).len());
    for at in begin..end {
        flip(path, at);
        match store.find(&name).await {
            Err(StoreError::Unreadable { .. }) => {}
            // The padding after the record has no meaning.
            Ok(Some(held)) if at > end - 8 => assert_eq!(held.record, record),
            other => panic!("{at}: {other:?}"),
        }
        flip(path, at);
    }
}

fn empty_store() -> (TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(&folder));
    let manifest = fs::read(folder.path().join("manifest")).expect("a manifest");
    (folder, manifest)
}

fn copy_of(folder: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, copy.path().join(path.file_name().expect("a name"))).expect("copied");
    }
    copy
}

/// Cuts off the last bytes of the frames, and all bytes behind them.
fn cut(path: &Path, by: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).expect("a file");
    file.set_len(written_end(path) - by).expect("cut off");
}

/// The end of the frames. Zeros may follow it.
fn written_end(path: &Path) -> u64 {
    let bytes = fs::read(path).expect("a file");
    let zeros = bytes.iter().rev().take_while(|byte| **byte == 0).count();
    ((bytes.len() - zeros) as u64).next_multiple_of(frame::ALIGN)
}

fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("a byte");
    file.write_all_at(&[byte[0] ^ 4], at).expect("written");
}

fn flip_from_end(path: &Path, by: u64) {
    flip(path, written_end(path) - by);
}

#[tokio::test]
async fn the_last_claim_before_a_crash_is_there() {
    for claims in 1..4 {
        let folder = tempfile::tempdir().expect("a folder");
        let store = open(&folder);
        let names: Vec<_> = (0..claims).map(|_| name()).collect();
        for name in &names {
            store.claim(name, &claim(1, RETRY)).await.expect("an answer");
        }
        let killed = copy_of(folder.path());
        let store = open(&killed);
        for name in &names {
            assert!(store.find(name).await.expect("an answer").is_some(), "the last of {claims}");
        }
    }
}

/// Zeros are written ahead of the next frames. A crash leaves some or all of them, and they are never read as frames.
#[tokio::test]
async fn zeros_that_were_written_ahead_are_cut_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(&folder);
    let names: Vec<_> = (0..3).map(|_| name()).collect();
    for name in &names {
        store.claim(name, &claim(1, RETRY)).await.expect("an answer");
    }
    let log = |folder: &Path| files(folder, ".log").pop().expect("a segment");
    let length = |folder: &Path| fs::metadata(log(folder)).expect("a file").len();
    let (written, filled) = (written_end(&log(folder.path())), length(folder.path()));
    assert!(filled >= written + 60_000, "{filled} bytes, and {written} of them written");
    for left in [filled, filled - 1, written + 5000, written + 1, written] {
        let killed = copy_of(folder.path());
        fs::OpenOptions::new()
            .write(true)
            .open(log(killed.path()))
            .and_then(|file| file.set_len(left))
            .expect("cut off");
        let store = open(&killed);
        // The writer may have told the time since.
        let end = written_end(&log(killed.path()));
        assert!(end == written || end == written + 72, "{left} bytes left, written up to {end}");
        assert_eq!(length(killed.path()), end, "{left} bytes left");
        for name in &names {
            assert!(store.find(name).await.expect("an answer").is_some(), "{left} bytes left");
        }
    }
    // The next write has more zeros ahead of it than before.
    store.settle(&names[0], &completed(&claim(1, RETRY), &[7; 100_000])).await.expect("an answer");
    assert!(length(folder.path()) >= written_end(&log(folder.path())) + 60_000);
    let written = written_end(&log(folder.path()));
    drop(store);
    assert_eq!(length(folder.path()), written);
    drop(open(&folder));
}
