use std::io;
use std::path::{Path, PathBuf};

use crate::store::Cause;

/// Why a folder cannot be used as a store.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The path is not a folder.
    #[error("{0} is not a folder")]
    NotAFolder(PathBuf),
    /// Another process uses the folder.
    #[error("another onlyonce uses {0}: one folder is for one sidecar. Name another folder, or stop the other one")]
    InUse(PathBuf),
    /// The system denies access.
    #[error("{path} cannot be read and written")]
    Inaccessible {
        /// The folder.
        path: PathBuf,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// Other users of the machine could read the folder, and onlyonce cannot change its mode.
    #[error(
        "{0} is open to other users, and belongs to another one, so that onlyonce cannot close it: name a folder inside \
         it that does not exist yet, and onlyonce makes it for itself alone"
    )]
    OpenToOthers(PathBuf),
    /// The folder holds files that are not of a store.
    #[error(
        "{path} is no store of onlyonce, and not empty: `{file}` is in it. Name an empty folder, or one that does not \
         exist yet"
    )]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// One of these files.
        file: String,
    },
    /// Some files, or parts of them, are gone.
    #[error(
        "the store in {path} is not whole: {missing}. Requests whose records are lost would run again. Put the files \
         back; or move the folder away to go on with a new store, without the earlier records"
    )]
    NotWhole {
        /// The folder.
        path: PathBuf,
        /// What is gone.
        missing: String,
    },
    /// The files do not hold what was written to them.
    #[error(
        "the store in {path} is damaged. Requests whose records are lost would run again. Move the folder away to go on \
         with a new store, without the earlier records"
    )]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// The part that is damaged.
        #[source]
        source: Cause,
    },
    /// An older version wrote the store.
    #[error(
        "the store in {0} was written by an older version of onlyonce, which kept its records in another way: move the \
         folder away, once the retention of its records is over or where they may be forgotten"
    )]
    Older(PathBuf),
    /// A newer version wrote the store.
    #[error("the store in {0} was written by a newer version of onlyonce")]
    Newer(PathBuf),
    /// The store was used with a digest key that is not configured now.
    #[error(
        "the store in {0} was used with another store.digest_key, and none is set: set it, or use an empty folder to go \
         on without the earlier records"
    )]
    DigestKeyWithheld(PathBuf),
    /// The system gives no random bytes.
    #[error("there is no randomness to make a digest key of")]
    Randomness(#[from] getrandom::Error),
    /// The system starts no thread.
    #[error("the store's thread cannot be started")]
    Thread(#[source] io::Error),
}

impl EmbeddedError {
    pub(super) fn inaccessible(path: &Path, source: io::Error) -> Self {
        Self::Inaccessible { path: path.to_owned(), source }
    }

    pub(super) fn damaged(path: &Path, source: impl Into<Cause>) -> Self {
        Self::Damaged { path: path.to_owned(), source: source.into() }
    }

    pub(super) fn not_whole(path: &Path, missing: impl Into<String>) -> Self {
        Self::NotWhole { path: path.to_owned(), missing: missing.into() }
    }
}
