//! Whether a folder can be used as a store, without a change to it.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::fs::{Access, access};

use super::error::EmbeddedError;
use super::folder::{LOCK, MANIFEST, refuse_others_files};

/// What is at the path of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExaminedFolder {
    /// Nothing. The folder can be made.
    Missing,
    /// A folder without a store.
    Empty,
    /// A store that nobody uses.
    Store,
    /// A store that another process uses.
    InUse,
}

/// Looks at the folder. What only an open store tells, such as damage, is not looked for.
pub(super) fn examine(path: &Path) -> Result<ExaminedFolder, EmbeddedError> {
    let inaccessible = |error| EmbeddedError::inaccessible(path, error);
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(EmbeddedError::NotAFolder(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let above =
                path.ancestors().skip(1).map(|above| if above.as_os_str().is_empty() { Path::new(".") } else { above });
            let Some(above) = above.into_iter().find(|above| above.exists()) else { return Err(inaccessible(error)) };
            if !above.is_dir() {
                return Err(EmbeddedError::NotAFolder(above.to_owned()));
            }
            may_write(above).map_err(|error| EmbeddedError::inaccessible(above, error))?;
            return Ok(ExaminedFolder::Missing);
        }
        Err(error) => return Err(inaccessible(error)),
    }
    refuse_others_files(path)?;
    may_write(path).map_err(inaccessible)?;
    match File::open(path.join(LOCK)) {
        Ok(lock) => match lock.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(ExaminedFolder::InUse),
            Err(TryLockError::Error(error)) => return Err(inaccessible(error)),
        },
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(inaccessible(error)),
    }
    Ok(if path.join(MANIFEST).exists() { ExaminedFolder::Store } else { ExaminedFolder::Empty })
}

fn may_write(folder: &Path) -> io::Result<()> {
    Ok(access(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::embedded::folder::StoreFolder;

    #[test]
    fn a_folder_is_looked_at_and_left_as_it_is() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("data/store");
        assert_eq!(examine(&path).ok(), Some(ExaminedFolder::Missing));
        assert!(!root.path().join("data").exists(), "nothing is made");
        fs::create_dir_all(&path).expect("a folder");
        assert_eq!(examine(&path).ok(), Some(ExaminedFolder::Empty));
        assert_eq!(fs::read_dir(&path).expect("a folder").count(), 0, "nothing is written");
        let open = StoreFolder::open(&path).expect("a store");
        assert_eq!(examine(&path).ok(), Some(ExaminedFolder::InUse));
        drop(open);
        assert_eq!(examine(&path).ok(), Some(ExaminedFolder::Empty));
        fs::write(path.join(MANIFEST), b"x").expect("a file");
        assert_eq!(examine(&path).ok(), Some(ExaminedFolder::Store));
    }

    #[test]
    fn what_no_store_can_be_in_is_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let file = root.path().join("file");
        fs::write(&file, b"x").expect("a file");
        assert!(matches!(examine(&file), Err(EmbeddedError::NotAFolder(_))));
        assert!(matches!(
            examine(&file.join("store")),
            Err(EmbeddedError::NotAFolder(_) | EmbeddedError::Inaccessible { .. })
        ));
        assert!(matches!(examine(root.path()), Err(EmbeddedError::NotAStore { .. })));
        assert!(matches!(examine(Path::new("/proc/self/store")), Err(EmbeddedError::Inaccessible { .. })));
    }

    /// A sidecar that starts meanwhile waits for longer than the look takes.
    #[test]
    fn a_start_is_not_in_the_way_of_a_look() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("store");
        drop(StoreFolder::open(&path).expect("a store"));
        let look = File::open(path.join(LOCK)).expect("the lock");
        look.try_lock_shared().expect("nobody has it");
        let starting = std::thread::spawn(move || StoreFolder::open(&path).map(drop));
        std::thread::sleep(Duration::from_millis(50));
        drop(look);
        starting.join().expect("no panic").expect("it starts");
    }
}
