//! `onlyonce check --connect`: whether the store can be used.

use std::io;

use serde::Serialize;

use super::block_on;
use super::text::labelled;
use crate::config::{self, StoreLocation};
use crate::run::{self, ServerFinding, Trial};

/// The result of connecting.
#[derive(Serialize)]
pub(super) struct StoreTrial {
    store: String,
    /// Why the store cannot be used, if it cannot.
    error: Option<String>,
    /// What was found out about one that can.
    findings: Vec<ServerFinding>,
    /// The command that creates an ACL user for it.
    acl: Option<String>,
}

impl StoreTrial {
    /// Connects without a change to the store.
    pub(super) fn make(store: &config::StoreConfig) -> io::Result<Self> {
        Ok(match block_on(run::try_store(store))? {
            Some(Trial { server, error, findings, acl }) => {
                let acl = format!("ACL SETUSER onlyonce on >PASSWORD {acl}");
                Self { store: format!("Redis at {server}"), error, findings, acl: Some(acl) }
            }
            None => Self { store: without_connection(&store.location), error: None, findings: Vec::new(), acl: None },
        })
    }

    pub(super) fn is_usable(&self) -> bool {
        self.error.is_none()
    }

    pub(super) fn write(&self, out: &mut String) {
        out.push('\n');
        let verdict = match (&self.error, &self.acl) {
            (Some(error), _) => format!("{}: cannot be used: {error}", self.store),
            (None, Some(_)) => format!("{}: can be used", self.store),
            (None, None) => format!("{}: nothing to connect to", self.store),
        };
        labelled(out, "store", &verdict);
        for ServerFinding { what, found } in &self.findings {
            labelled(out, &format!("  {what}"), found);
        }
        if let Some(acl) = &self.acl {
            labelled(out, "its user", "may be made like this, on one line:");
            out.push_str(acl);
            out.push('\n');
        }
    }
}

fn without_connection(location: &StoreLocation) -> String {
    match location {
        StoreLocation::Embedded(path) => format!("embedded in {}", path.display()),
        StoreLocation::Memory | StoreLocation::Redis(_) => "memory".to_owned(),
    }
}
