//! `onlyonce keys`: the keys of `store.encryption_keys`.

use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Subcommand;

use super::output;
use crate::random::random;
use crate::record::encryption::{EncryptionKey, SECRET};

#[derive(Subcommand)]
pub(super) enum KeysCommand {
    /// Print a new key, and nothing else, on standard output
    ///
    /// Keep it where secrets are kept, and name it in the configuration:
    ///
    ///   [store]
    ///   encryption_keys = ["env:ONLYONCE_KEY_1"]
    ///
    /// The first key of the list encrypts, all of them decrypt. To change keys, put the new one first, and leave the old
    /// one in the list until the records of before are over: for the longest retention.
    Generate,
}

pub(super) fn keys(command: &KeysCommand) -> ExitCode {
    match command {
        KeysCommand::Generate => generate(),
    }
}

fn generate() -> ExitCode {
    let secret: [u8; SECRET] = random();
    let printed = output::print(&format!("{}\n", STANDARD.encode(secret)));
    // Not on standard output: that is for a variable, or for a file.
    let id = EncryptionKey::new(&secret).id();
    output::complain(format_args!(
        "records name this key {id}. To use it:\n  ONLYONCE_KEY_1=… onlyonce serve\nwith\n  [store]\n  \
         encryption_keys = [\"env:ONLYONCE_KEY_1\"]"
    ));
    printed
}
