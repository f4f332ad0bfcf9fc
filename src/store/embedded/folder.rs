//! The store's folder, and the files in it.
//!
//! ```text
//! lock                   held while the store is open
//! manifest               the digest key and the segments of the store
//! 000000000000002a.log   a segment
//! 000000000000002a.idx   its index, which can be made again
//! 000000000000002a.ends  how long its frames are needed, which can be made again
//! reserve                room for outcomes when the disk is full otherwise
//! ```

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::error::EmbeddedError;

/// A folder that only this process uses.
#[derive(Debug)]
pub(super) struct StoreFolder {
    path: PathBuf,
    identity: FileIdentity,
    manifest: Option<FileIdentity>,
    lock: File,
}

/// What identifies a file for the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

/// Why the folder is not the one that was opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FolderLoss {
    #[error("it cannot be found")]
    Gone,
    #[error("another one is in its place")]
    Replaced,
    #[error("`{0}` was removed from it, or replaced")]
    File(String),
}

pub(super) const LOCK: &str = "lock";
pub(super) const MANIFEST: &str = "manifest";
const NEW_MANIFEST: &str = "manifest.new";
const RESERVE: &str = "reserve";

const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// Files of a store of an earlier version.
const OLDER: [&str; 3] = ["keyspaces", "version", "0.jnl"];

/// Enough for the outcomes of some hundred requests in flight.
const RESERVE_BYTES: u64 = 256 * 1024;
/// A disk counts as full if less than this is left beside the reserve.
const ROOM: u64 = 512 * 1024;

impl StoreFolder {
    /// Opens the folder, or makes it.
    pub(super) fn open(path: &Path) -> Result<Self, EmbeddedError> {
        let inaccessible = |error| EmbeddedError::inaccessible(path, error);
        if path.exists() && !path.is_dir() {
            return Err(EmbeddedError::NotAFolder(path.to_owned()));
        }
        if !path.exists() {
            make(path).map_err(inaccessible)?;
        }
        refuse_others_files(path)?;
        close_to_others(path)?;
        let lock = options().truncate(false).open(path.join(LOCK)).map_err(inaccessible)?;
        let mut tries = LOCK_TRIES;
        while let Err(error) = lock.try_lock() {
            match error {
                // A process that is being replaced may be about to end.
                TryLockError::WouldBlock if tries > 0 => thread::sleep(LOCK_PAUSE),
                TryLockError::WouldBlock => return Err(EmbeddedError::InUse(path.to_owned())),
                TryLockError::Error(error) => return Err(inaccessible(error)),
            }
            tries -= 1;
        }
        let identity = FileIdentity::of(&fs::metadata(path).map_err(inaccessible)?);
        Ok(Self { path: path.to_owned(), identity, manifest: None, lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the folder is still the one that was opened.
    pub(super) fn check(&self) -> Result<(), FolderLoss> {
        let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| FileIdentity::of(&metadata));
        match identity(&self.path) {
            None => return Err(FolderLoss::Gone),
            Some(found) if found != self.identity => return Err(FolderLoss::Replaced),
            Some(_) => {}
        }
        // Without the lock file, another process could use the folder too.
        let lock = self.lock.metadata().ok().map(|metadata| FileIdentity::of(&metadata));
        if identity(&self.path.join(LOCK)) != lock {
            return Err(FolderLoss::File(LOCK.to_owned()));
        }
        if self.manifest.is_some() && identity(&self.path.join(MANIFEST)) != self.manifest {
            return Err(FolderLoss::File(MANIFEST.to_owned()));
        }
        Ok(())
    }

    /// Fails if the folder is not the one that was opened. It may be the store of another sidecar, which must not be
    /// changed.
    fn refuse_another(&self) -> io::Result<()> {
        self.check().map_err(io::Error::other)
    }

    pub(super) fn read_manifest(&mut self) -> io::Result<Option<Vec<u8>>> {
        let path = self.path.join(MANIFEST);
        match fs::read(&path) {
            Ok(bytes) => {
                self.manifest = Some(FileIdentity::of(&fs::metadata(path)?));
                Ok(Some(bytes))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the manifest. After a crash, either the old one or the new one is on the disk.
    pub(super) fn write_manifest(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.refuse_another()?;
        let new = self.path.join(NEW_MANIFEST);
        let mut file = options().truncate(true).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        let identity = FileIdentity::of(&file.metadata()?);
        fs::rename(new, self.path.join(MANIFEST))?;
        self.manifest = Some(identity);
        self.sync()
    }

    /// The numbers of the segments that have files here.
    pub(super) fn segments(&self) -> io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            found.extend(name.to_str().and_then(segment_number));
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    pub(super) fn create_segment(&self, id: u64) -> io::Result<File> {
        self.refuse_another()?;
        options().truncate(true).open(self.segment_path(id))
    }

    pub(super) fn open_segment(&self, id: u64) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.segment_path(id))
    }

    /// Removes all files of a segment.
    pub(super) fn remove_segment(&self, id: u64) -> io::Result<()> {
        self.refuse_another()?;
        [self.index_path(id), self.ends_path(id), self.segment_path(id)].into_iter().try_for_each(|path| removed(&path))
    }

    pub(super) fn segment_path(&self, id: u64) -> PathBuf {
        self.path.join(segment_name(id))
    }

    pub(super) fn index_path(&self, id: u64) -> PathBuf {
        self.path.join(index_name(id))
    }

    pub(super) fn ends_path(&self, id: u64) -> PathBuf {
        self.path.join(ends_name(id))
    }

    /// Syncs the folder, so that the names of its files are on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Syncs the folder above, so that the name of this folder is on the disk.
    pub(super) fn sync_name(&self) -> io::Result<()> {
        sync_name(&self.path)
    }

    /// Takes room on the disk for the reserve, unless it is taken already. `false`: the disk counts as full, and the
    /// reserve is given back.
    pub(super) fn take_reserve(&self) -> io::Result<bool> {
        let path = self.path.join(RESERVE);
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.len() == RESERVE_BYTES) {
            // These bytes have no pattern: a file system can neither leave a hole for them nor compress them.
            let mut bytes = vec![0; RESERVE_BYTES as usize];
            blake3::Hasher::new().finalize_xof().fill(&mut bytes);
            let mut file = options().truncate(true).open(&path)?;
            if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_all()) {
                self.give_reserve()?;
                return Err(error);
            }
        }
        // A file system that cannot tell how much is left counts as having enough.
        let left = self.left().unwrap_or(u64::MAX);
        if left < ROOM {
            self.give_reserve()?;
        }
        Ok(left >= ROOM)
    }

    /// The bytes left on the disk. `None` if the file system cannot tell.
    pub(super) fn left(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.path).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Gives the room of the reserve back, for writes that must succeed now.
    pub(super) fn give_reserve(&self) -> io::Result<()> {
        removed(&self.path.join(RESERVE))
    }
}

/// Makes the folder and the missing folders above it. All their names are synced: otherwise a power cut could take one
/// of them, and the store with it.
fn make(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().skip(1).take_while(|above| !above.exists()).collect();
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    DirBuilder::new().mode(0o700).create(path)?;
    missing.into_iter().filter(|above| !above.as_os_str().is_empty()).try_for_each(sync_name)
}

/// Syncs the folder above, so that the name of this folder is on the disk.
fn sync_name(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(above).and_then(|above| above.sync_all());
    match synced {
        // In some folders names may be made but not listed. Some file systems keep names in another way.
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) => Ok(()),
        synced => synced,
    }
}

/// Writes a file that is useful only as a whole, and whose loss does no harm.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = options().truncate(true).open(path)?.write_all(bytes);
    if written.is_err() {
        // A part of the file takes room and is useless.
        let _ = fs::remove_file(path);
    }
    written
}

/// Whether the disk keeps enough room for records if so many bytes are written, as far as what is `left` of it is
/// known.
pub(super) fn has_room_for(left: Option<u64>, bytes: usize) -> bool {
    left.is_none_or(|left| left >= bytes as u64 + ROOM + RESERVE_BYTES)
}

/// Whether the error is a lack of room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

pub(super) fn segment_name(id: u64) -> String {
    format!("{id:016x}.log")
}

fn index_name(id: u64) -> String {
    format!("{id:016x}.idx")
}

fn ends_name(id: u64) -> String {
    format!("{id:016x}.ends")
}

impl FileIdentity {
    fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).mode(0o600);
    options
}

fn removed(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Refuses a folder that holds other files. After a typo, the store must not fill it with files or lock others out of
/// it.
pub(super) fn refuse_others_files(path: &Path) -> Result<(), EmbeddedError> {
    let mut other = None;
    for entry in fs::read_dir(path).map_err(|error| EmbeddedError::inaccessible(path, error))? {
        let name = entry.map_err(|error| EmbeddedError::inaccessible(path, error))?.file_name();
        let name = name.to_string_lossy().into_owned();
        if name == MANIFEST {
            return Ok(());
        }
        if OLDER.contains(&name.as_str()) {
            return Err(EmbeddedError::Older(path.to_owned()));
        }
        // Names that a new file system or volume may contain.
        if !is_ours(&name) && name != "lost+found" && !name.starts_with('.') {
            other = Some(name);
        }
    }
    match other {
        Some(file) => Err(EmbeddedError::NotAStore { path: path.to_owned(), file }),
        None => Ok(()),
    }
}

/// The number of the segment that a file belongs to.
fn segment_number(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.split_once('.')?.0, 16).ok()?;
    [segment_name, index_name, ends_name].iter().any(|named| named(number) == name).then_some(number)
}

fn is_ours(name: &str) -> bool {
    [LOCK, MANIFEST, NEW_MANIFEST, RESERVE].contains(&name) || segment_number(name).is_some()
}

/// Makes the folder and the files of the store private. They hold answers of the backend, which no other user of the
/// machine may read.
fn close_to_others(path: &Path) -> Result<(), EmbeddedError> {
    let open = |metadata: &Metadata| metadata.mode() & 0o077 != 0;
    let close = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    let folder = fs::metadata(path).map_err(|error| EmbeddedError::inaccessible(path, error))?;
    if open(&folder) {
        close(path, 0o700).map_err(|_| EmbeddedError::OpenToOthers(path.to_owned()))?;
    }
    for entry in fs::read_dir(path).map_err(|error| EmbeddedError::inaccessible(path, error))? {
        let file = entry.map_err(|error| EmbeddedError::inaccessible(path, error))?.path();
        let ours = file.file_name().and_then(|name| name.to_str()).is_some_and(is_ours);
        if ours && fs::symlink_metadata(&file).is_ok_and(|metadata| metadata.is_file() && open(&metadata)) {
            close(&file, 0o600).map_err(|error| EmbeddedError::inaccessible(&file, error))?;
        }
    }
    Ok(())
}
