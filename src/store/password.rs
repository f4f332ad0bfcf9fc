//! The password for a server.

use std::io;

use crate::config::{Secret, StorePassword};

/// The file that `store.password` names cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("store.password cannot be read: {0}: {1}")]
pub(super) struct PasswordUnreadable(String, #[source] io::Error);

/// The current password. A password file is read at each connect, because it may change.
pub(super) async fn current(password: Option<&StorePassword>) -> Result<Option<Secret>, PasswordUnreadable> {
    let path = match password {
        None => return Ok(None),
        Some(StorePassword::Fixed(secret)) => return Ok(Some(secret.clone())),
        Some(StorePassword::File(path)) => path.clone(),
    };
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    let read = read.map_err(io::Error::other).and_then(|read| read);
    let text = read.map_err(|error| PasswordUnreadable(shown, error))?;
    // Editors and shells end a file with a line break.
    Ok(Some(Secret::new(text.trim_end_matches(['\r', '\n']))))
}
