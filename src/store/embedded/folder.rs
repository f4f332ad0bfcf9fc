//! The store's folder, and the files in it.
//!
//! ```text
//! lock                   held while the store is open
//! manifest               what belongs to the store
//! 000000000000002a.log   a segment
//! 000000000000002a.idx   its index, which can be made again
//! 000000000000002a.ends  until when its frames are needed, which can be made again
//! reserve                room for outcomes on a disk that is full otherwise
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

/// What the system knows a file by.
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

const LOCK: &str = "lock";
const MANIFEST: &str = "manifest";
const NEW_MANIFEST: &str = "manifest.new";
const RESERVE: &str = "reserve";

const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(25);

/// Files that the store of an earlier version began with.
const OLDER: [&str; 3] = ["keyspaces", "version", "0.jnl"];

/// Enough for the outcomes of some hundred requests in flight.
const RESERVE_BYTES: u64 = 256 * 1024;
/// With less than that beside the reserve, a disk counts as full.
const ROOM: u64 = 512 * 1024;

impl StoreFolder {
    /// Opens the folder, and makes it if there is none.
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
        // Without it, another process could use the folder too.
        let lock = self.lock.metadata().ok().map(|metadata| FileIdentity::of(&metadata));
        if identity(&self.path.join(LOCK)) != lock {
            return Err(FolderLoss::File(LOCK.to_owned()));
        }
        if self.manifest.is_some() && identity(&self.path.join(MANIFEST)) != self.manifest {
            return Err(FolderLoss::File(MANIFEST.to_owned()));
        }
        Ok(())
    }

    /// The store of another sidecar may be in the place of ours: it stays as it is.
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

    /// Puts another manifest in the place of the one before: on the disk, one or the other is found.
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

    /// Numbers of the segments that files are there of.
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

    /// Removes what is there of a segment.
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

    /// Makes sure that the names of files are on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    /// Makes sure that the name of the folder itself is.
    pub(super) fn sync_name(&self) -> io::Result<()> {
        sync_name(&self.path)
    }

    /// Takes room on the disk for the reserve, if it is not taken already. `false`: there is hardly more than that.
    pub(super) fn take_reserve(&self) -> io::Result<bool> {
        let path = self.path.join(RESERVE);
        if !fs::metadata(&path).is_ok_and(|metadata| metadata.len() == RESERVE_BYTES) {
            // Neither a hole nor anything that a file system makes smaller.
            let mut bytes = vec![0; RESERVE_BYTES as usize];
            blake3::Hasher::new().finalize_xof().fill(&mut bytes);
            let mut file = options().truncate(true).open(&path)?;
            if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_all()) {
                self.give_reserve()?;
                return Err(error);
            }
        }
        // A file system that does not know how much is left has enough.
        let left = self.left().unwrap_or(u64::MAX);
        if left < ROOM {
            self.give_reserve()?;
        }
        Ok(left >= ROOM)
    }

    /// How much is left on the disk, if the file system can tell.
    pub(super) fn left(&self) -> Option<u64> {
        let found = rustix::fs::statvfs(&self.path).ok()?;
        Some(found.f_bavail.saturating_mul(found.f_frsize))
    }

    /// Gives the room back, for what must be written now.
    pub(super) fn give_reserve(&self) -> io::Result<()> {
        removed(&self.path.join(RESERVE))
    }
}

/// Makes the folder, and those above it that are missing. A power cut must not take the name of one of them, and with it the
/// store.
fn make(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().skip(1).take_while(|above| !above.exists()).collect();
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    DirBuilder::new().mode(0o700).create(path)?;
    missing.into_iter().filter(|above| !above.as_os_str().is_empty()).try_for_each(sync_name)
}

/// Sees to it that the name of a folder is on the disk.
fn sync_name(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(above).and_then(|above| above.sync_all());
    match synced {
        // One in which names may be made and not listed; a file system that keeps names in another way.
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) => Ok(()),
        synced => synced,
    }
}

/// Writes a file that is of use if it is there whole, and no loss otherwise.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = options().truncate(true).open(path)?.write_all(bytes);
    if written.is_err() {
        // Half of it takes room, and is of no use.
        let _ = fs::remove_file(path);
    }
    written
}

/// Whether so many bytes leave enough of what is `left` of the disk for records, as far as that is known.
pub(super) fn has_room_for(left: Option<u64>, bytes: usize) -> bool {
    left.is_none_or(|left| left >= bytes as u64 + ROOM + RESERVE_BYTES)
}

/// Whether there would be no error if there were room.
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

/// A folder of another use stays as it is: a typo must not fill it with files of ours, nor lock others out of it.
fn refuse_others_files(path: &Path) -> Result<(), EmbeddedError> {
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
        // What a file system or a volume begins with.
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

/// What is stored are answers of the backend: nobody else on the machine is to read them.
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
