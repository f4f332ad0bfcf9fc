//! A disk of a few megabytes, for what happens when it is full.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A file system in memory, unmounted when this is dropped.
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Only root can mount one; `None` for others, who are told that `what` is skipped.
    pub fn mount(megabytes: u32, what: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            why => {
                // Not captured by the test harness.
                let why = why.map(|output| String::from_utf8_lossy(&output.stderr).trim().to_owned());
                writeln!(std::io::stderr(), "skipped: {what} needs root ({why:?})").expect("a stderr");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut filler = OpenOptions::new().create(true).append(true).open(self.filler()).expect("a file");
        for piece in [64 * 1024, 1024, 1] {
            while filler.write_all(&vec![7; piece]).is_ok() {}
        }
    }

    pub fn make_room(&self) {
        std::fs::remove_file(self.filler()).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the program may still have files open.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
