//! Opening a folder: reads what must be read, and refuses files that do not belong together.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use super::error::EmbeddedError;
use super::folder::{self, StoreFolder};
use super::index::{Growing, IndexHeader, Sorted};
use super::log::{ActiveSegment, RecordLog, new_segment};
use super::manifest::{Manifest, ManifestEntry, ManifestError, SegmentState};
use super::segment::{self, Index, Scan, Segment, scan};
use super::view::Segments;
use crate::clock;
use crate::config::Durability;

/// What opening a folder found.
pub(super) struct OpenedLog {
    pub(super) log: RecordLog,
    /// The latest time that the store has written.
    pub(super) clock: u64,
    pub(super) is_new: bool,
    /// `false`: the disk is full.
    pub(super) is_writable: bool,
}

impl RecordLog {
    /// Opens the store in `path`, or makes one.
    pub(super) fn open(path: &Path, durability: Durability) -> Result<OpenedLog, EmbeddedError> {
        let mut folder = StoreFolder::open(path)?;
        let inaccessible = |error| EmbeddedError::inaccessible(path, error);
        let found = folder.segments().map_err(inaccessible)?;
        let (mut manifest, is_new) = match folder.read_manifest().map_err(inaccessible)? {
            Some(bytes) => match Manifest::decode(&bytes) {
                Ok(manifest) => (manifest, false),
                Err(ManifestError::Newer(_)) => return Err(EmbeddedError::Newer(path.to_owned())),
                Err(ManifestError::Older(_)) => return Err(EmbeddedError::Older(path.to_owned())),
                Err(error @ ManifestError::Damaged) => return Err(EmbeddedError::damaged(path, error)),
            },
            None if found.is_empty() => (found_manifest(&mut folder)?, true),
            None => {
                return Err(EmbeddedError::not_whole(path, "its records are there, and its file `manifest` is gone"));
            }
        };
        remove_leftovers(&folder, &manifest, &found)?;

        let mut clock = manifest.clock;
        let (full, open) = read_segments(&folder, &manifest)?;
        let gone = full.iter().filter_map(|(id, segment)| segment.is_none().then_some(*id));
        gone.for_each(|id| drop(manifest.segments.remove(&id)));
        let full: Vec<_> = full.into_iter().filter_map(|(_, segment)| segment).map(Arc::new).collect();
        let mut usage: BTreeMap<_, _> =
            manifest.segments.iter().map(|(id, entry)| (*id, entry.usage.clone())).collect();

        let (open, index) = match open {
            Some((open, scan)) => {
                clock = clock.max(scan.clock);
                usage.insert(open.id, scan.usage);
                (open, scan.index)
            }
            // A crash came between the manifest and the first segment.
            None => {
                let id = manifest.next_segment;
                let file = new_segment(&folder, &manifest, id).map_err(inaccessible)?;
                (ActiveSegment::new(id, file), Growing::default())
            }
        };
        let segments = Segments { full, open: open.seen(index) };
        let mut log = Self::new(folder, manifest, usage, segments, open, durability);
        // From now on, the manifest does not say where the open segment ends.
        let is_writable = match log.write_manifest(clock) {
            Ok(()) => true,
            // A full disk: the records can still be read.
            Err(error) if folder::is_full(&error) && !is_new => false,
            Err(error) => return Err(inaccessible(error)),
        };
        Ok(OpenedLog { log, clock, is_new, is_writable })
    }
}

/// The full segments in order. `None`: the file was removed when it was not needed any more.
type FullSegments = Vec<(u64, Option<Segment>)>;

/// Reads what must be read of all segments: the indexes of the full segments, on a thread beside this one, and all
/// frames of the open segment.
fn read_segments(
    folder: &StoreFolder,
    manifest: &Manifest,
) -> Result<(FullSegments, Option<(ActiveSegment, Scan)>), EmbeddedError> {
    let read_all_full = || -> Result<FullSegments, EmbeddedError> {
        let full = manifest.segments.iter().filter_map(|(id, entry)| match entry.state {
            SegmentState::Full(length) => Some((*id, entry, length)),
            SegmentState::Open | SegmentState::Closed(_) => None,
        });
        full.map(|(id, entry, length)| Ok((id, read_full(folder, manifest, id, entry, length)?))).collect()
    };
    let read_last = || {
        let mut open = manifest.segments.iter().filter_map(|(id, entry)| match entry.state {
            SegmentState::Full(_) => None,
            SegmentState::Open => Some((*id, None)),
            SegmentState::Closed(length) => Some((*id, Some(length))),
        });
        open.next().map(|(id, closed)| read_open(folder, manifest, id, closed)).transpose()
    };
    thread::scope(|scope| {
        let reading = thread::Builder::new().name("store-indexes".to_owned()).spawn_scoped(scope, read_all_full);
        let open = read_last();
        let full = match reading {
            Ok(reading) => reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => read_all_full(),
        };
        Ok((full?, open?))
    })
}

/// Writes the manifest of a new store to the disk.
fn found_manifest(folder: &mut StoreFolder) -> Result<Manifest, EmbeddedError> {
    let mut store = [0; 16];
    getrandom::fill(&mut store)?;
    let manifest = Manifest { store, clock: 0, digest_key: None, next_segment: 1, segments: BTreeMap::new() };
    let written = folder.write_manifest(&manifest.encode()).and_then(|()| folder.sync_name());
    written.map_err(|error| EmbeddedError::inaccessible(folder.path(), error))?;
    Ok(manifest)
}

/// Removes the files of segments that the manifest does not name any more, or not yet.
fn remove_leftovers(folder: &StoreFolder, manifest: &Manifest, found: &[u64]) -> Result<(), EmbeddedError> {
    let inaccessible = |error| EmbeddedError::inaccessible(folder.path(), error);
    for id in found.iter().filter(|id| !manifest.segments.contains_key(id)) {
        let length = fs::metadata(folder.segment_path(*id)).map_or(0, |metadata| metadata.len());
        if *id >= manifest.next_segment && length > segment::HEADER {
            let what = format!("its file `manifest` is older than `{}`", folder::segment_name(*id));
            return Err(EmbeddedError::not_whole(folder.path(), what));
        }
        folder.remove_segment(*id).map_err(inaccessible)?;
    }
    Ok(())
}

/// Reads a full segment. `None`: its file is gone, and was not needed any more.
fn read_full(
    folder: &StoreFolder,
    manifest: &Manifest,
    id: u64,
    entry: &ManifestEntry,
    length: u64,
) -> Result<Option<Segment>, EmbeddedError> {
    // The store's clock starts from this clock, too.
    let wall = clock::unix_millis();
    let file = match open_segment(folder, manifest, id) {
        // If the disk was full, the file may have been removed and the manifest not written again.
        Err(EmbeddedError::NotWhole { .. }) if entry.kept_until <= manifest.clock.max(wall) => {
            return Ok(None);
        }
        file => file?,
    };
    let found = file.metadata().map_err(|error| EmbeddedError::inaccessible(folder.path(), error))?.len();
    if found != length {
        let what = format!("its file `{}` has {found} bytes, and had {length}", folder::segment_name(id));
        return Err(EmbeddedError::not_whole(folder.path(), what));
    }
    let about = IndexHeader { store: manifest.store, segment: id, length };
    let index = match fs::read(folder.index_path(id)).ok().and_then(|bytes| Sorted::decode(&bytes, about)) {
        Some(index) => index,
        None => {
            let index = scanned(folder, id, &file, length, length)?.index.sorted();
            // With this file, the next start need not read the segment.
            let _ = folder::write_whole(&folder.index_path(id), &index.encode(about));
            index
        }
    };
    Ok(Some(Segment { id, file: Arc::new(file), length, index: Index::Sorted(index) }))
}

/// Reads the last segment. `closed` is its length if the store was closed in good order.
fn read_open(
    folder: &StoreFolder,
    manifest: &Manifest,
    id: u64,
    closed: Option<u64>,
) -> Result<(ActiveSegment, Scan), EmbeddedError> {
    let inaccessible = |error| EmbeddedError::inaccessible(folder.path(), error);
    let file = open_segment(folder, manifest, id)?;
    let length = file.metadata().map_err(inaccessible)?.len();
    if let Some(closed) = closed.filter(|closed| *closed != length) {
        let what = format!("its file `{}` has {length} bytes, and had {closed}", folder::segment_name(id));
        return Err(EmbeddedError::not_whole(folder.path(), what));
    }
    let scan = scanned(folder, id, &file, length, closed.unwrap_or(0))?;
    // Cuts off what does not count, and syncs what a crash left to the system to write.
    file.set_len(scan.end).and_then(|()| file.sync_all()).map_err(inaccessible)?;
    let open = ActiveSegment {
        length: scan.end,
        synced: scan.end,
        filled: scan.end,
        kept_until: scan.kept_until,
        ..ActiveSegment::new(id, file)
    };
    Ok((open, scan))
}

fn open_segment(folder: &StoreFolder, manifest: &Manifest, id: u64) -> Result<fs::File, EmbeddedError> {
    let inaccessible = |error| EmbeddedError::inaccessible(folder.path(), error);
    let file = match folder.open_segment(id) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(EmbeddedError::not_whole(
                folder.path(),
                format!("its file `{}` is gone", folder::segment_name(id)),
            ));
        }
        file => file.map_err(inaccessible)?,
    };
    if !segment::has_header(&file, manifest.store, id).map_err(inaccessible)? {
        let what = format!("its file `{}` is another one", folder::segment_name(id));
        return Err(EmbeddedError::not_whole(folder.path(), what));
    }
    Ok(file)
}

fn scanned(folder: &StoreFolder, id: u64, file: &fs::File, length: u64, synced: u64) -> Result<Scan, EmbeddedError> {
    let scan = scan(file, length, synced).map_err(|error| EmbeddedError::inaccessible(folder.path(), error))?;
    scan.map_err(|lost| EmbeddedError::damaged(folder.path(), format!("`{}`: {lost}", folder::segment_name(id))))
}
