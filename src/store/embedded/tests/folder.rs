use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn nobody_else_on_the_machine_reads_an_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("store");
    for round in 0..2 {
        let store = Embedded::open(&path, &config(Durability::Disk), HOUR).expect("a store");
        let mine = claim(1, RETRY);
        // Enough for a full segment with its index.
        for _ in 0..100 {
            store.settle(&name(), &completed(&mine, &[7; 4000])).await.expect("an answer");
        }
        drop(store);
        assert_eq!(mode(&path), 0o700, "round {round}");
        for entry in fs::read_dir(&path).expect("a folder") {
            let file = entry.expect("an entry").path();
            assert_eq!(mode(&file), 0o600, "round {round}: {}", file.display());
            // Files of an earlier run that other users could read.
            fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("changed");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("changed");
    }
}

#[tokio::test]
async fn a_folder_that_goes_is_noticed_and_its_answers_are_replayed_meanwhile() {
    type Harm = dyn Fn(&Path);
    let harms: [(&str, &Harm); 6] = [
        ("removed", &|path| fs::remove_dir_all(path).expect("removed")),
        ("moved away", &|path| fs::rename(path, path.with_extension("old")).expect("moved")),
        ("replaced", &|path| {
            fs::rename(path, path.with_extension("old")).expect("moved");
            fs::create_dir(path).expect("made");
        }),
        ("emptied", &|path| {
            fs::read_dir(path).expect("a folder").for_each(|entry| {
                fs::remove_file(entry.expect("an entry").path()).expect("removed");
            });
        }),
        ("without a segment", &|path| remove_first(path, ".log")),
        ("without its manifest", &|path| remove_first(path, "manifest")),
    ];
    for (what, harm) in harms {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store");
        let store = Embedded::open(&path, &config(Durability::Disk), HOUR).expect("a store");
        let (known, mine) = (name(), claim(1, RETRY));
        let record = completed(&mine, b"{}");
        store.settle(&known, &record).await.expect("an answer");
        assert_eq!((store.health(), store.losses()), (Health::Up, 0));
        harm(&path);
        until(|| store.health() == Health::Down).await;
        assert_eq!(store.losses(), 1, "{what}");
        let refused = store.claim(&name(), &mine).await.expect_err("no claim");
        assert!(matches!(refused, StoreError::Unavailable(_)), "{what}: {refused:?}");
        assert_eq!(store.find(&known).await.expect("an answer").expect("a record").record, record, "{what}");
        // A loss is counted only once.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(store.losses(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_folder_that_is_put_back_is_used_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let (path, elsewhere) = (folder.path().join("store"), folder.path().join("elsewhere"));
    let store = Embedded::open(&path, &config(Durability::Disk), HOUR).expect("a store");
    let (before, after, mine) = (name(), name(), claim(1, RETRY));
    store.claim(&before, &mine).await.expect("an answer");
    fs::rename(&path, &elsewhere).expect("moved");
    until(|| store.health() == Health::Down).await;
    fs::rename(&elsewhere, &path).expect("moved back");
    until(|| store.health() == Health::Up).await;
    store.claim(&after, &mine).await.expect("an answer");
    drop(store);
    let store = Embedded::open(&path, &config(Durability::Disk), HOUR).expect("a store");
    for name in [before, after] {
        assert!(store.find(&name).await.expect("an answer").is_some());
    }
}

fn remove_first(path: &Path, end: &str) {
    let mut entries = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path());
    let file = entries.find(|path| path.to_string_lossy().ends_with(end)).expect("such a file");
    fs::remove_file(file).expect("removed");
}

/// Without these syncs a power cut may remove the folder, with records that were on the disk.
#[test]
fn the_names_of_a_new_store_and_of_the_folders_above_it_are_on_the_disk() {
    let above = tempfile::tempdir().expect("a folder");
    for path in ["records", "a/b/records"].map(|path| above.path().join(path)) {
        let output = Command::new("strace")
            .args(["-f", "-y", "-qq", "-e", "trace=fsync"])
            .arg(std::env::current_exe().expect("this test"))
            .args(["--exact", "store::embedded::tests::folder::making", "--nocapture"])
            .env(FOLDER, &path)
            .output()
            .expect("strace, which tests/run installs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        for parent in path.ancestors().skip(1).take_while(|parent| parent.starts_with(above.path())) {
            let synced = format!("<{}>)", parent.display());
            assert!(text.lines().any(|line| line.contains("fsync(") && line.contains(&synced)), "{synced}: {text}");
        }
    }
}

const FOLDER: &str = "ONLYONCE_TEST_FOLDER";

/// Runs in the child process. Does nothing in a run of all tests.
#[test]
fn making() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    drop(Embedded::open(Path::new(&folder), &config(Durability::Disk), HOUR).expect("a store"));
}
