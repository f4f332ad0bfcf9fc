//! `onlyonce check --connect`: whether the store can be used.

use std::io;

use serde::Serialize;

use super::block_on;
use super::text::labelled;
use crate::config::{self, StoreLocation};
use crate::run::{self, NodeTrial, ServerFinding, Trial};
use crate::text::WIDTH;

/// The result of connecting.
#[derive(Serialize)]
pub(super) struct StoreTrial {
    store: String,
    /// Why the store cannot be used, if it cannot.
    error: Option<String>,
    /// What was found out about one that can.
    findings: Vec<ServerFinding>,
    /// The same of each node of a cluster.
    nodes: Vec<NodeTrial>,
    /// The command that creates an ACL user for it.
    acl: Option<String>,
    /// The statements that give a role the rights for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    grants: Option<String>,
}

/// Rules add up, so that they may stand in several commands.
const SET_USER: &str = "ACL SETUSER onlyonce";

impl StoreTrial {
    /// Connects without a change to the store.
    pub(super) fn make(store: &config::StoreConfig) -> io::Result<Self> {
        Ok(match block_on(run::try_store(store))? {
            Some(Trial { kind, server, error, findings, nodes, rights }) => {
                let (acl, grants) = match store.location {
                    StoreLocation::Postgres(_) => (None, Some(rights)),
                    _ => (Some(format!("{SET_USER} on >PASSWORD {rights}")), None),
                };
                Self { store: format!("{kind} at {server}"), error, findings, nodes, acl, grants }
            }
            None => {
                let store = without_connection(&store.location);
                Self { store, error: None, findings: Vec::new(), nodes: Vec::new(), acl: None, grants: None }
            }
        })
    }

    pub(super) fn is_usable(&self) -> bool {
        self.error.is_none()
    }

    pub(super) fn write(&self, out: &mut String) {
        out.push('\n');
        let verdict = match (&self.error, self.acl.as_ref().or(self.grants.as_ref())) {
            (Some(error), _) => format!("{}: cannot be used: {error}", self.store),
            (None, Some(_)) => format!("{}: can be used", self.store),
            (None, None) => format!("{}: nothing to connect to", self.store),
        };
        labelled(out, "store", &verdict);
        listed(out, "  ", &self.findings);
        for NodeTrial { node, error, findings } in &self.nodes {
            let verdict = match error {
                Some(error) => format!("{node}: cannot be used: {error}"),
                None => format!("{node}: can be used"),
            };
            labelled(out, "  node", &verdict);
            listed(out, "    ", findings);
        }
        if let Some(acl) = &self.acl {
            labelled(out, "its user", "may be made by these commands:");
            out.push_str(&commands(acl));
        }
        if let Some(grants) = &self.grants {
            labelled(out, "its user", "needs these rights, if it is not the owner of the tables:");
            out.push_str(grants);
        }
    }
}

fn listed(out: &mut String, indent: &str, findings: &[ServerFinding]) {
    for ServerFinding { what, found } in findings {
        labelled(out, &format!("{indent}{what}"), found);
    }
}

/// A command that fits 80 columns, or several.
fn commands(acl: &str) -> String {
    let mut out = String::new();
    let mut column = WIDTH;
    for rule in acl.strip_prefix(SET_USER).unwrap_or(acl).split_whitespace() {
        if column + 1 + rule.len() > WIDTH {
            out.push_str(if out.is_empty() { "" } else { "\n" });
            out.push_str(SET_USER);
            column = SET_USER.len();
        }
        out.push(' ');
        out.push_str(rule);
        column += 1 + rule.len();
    }
    out.push('\n');
    out
}

fn without_connection(location: &StoreLocation) -> String {
    match location {
        StoreLocation::Embedded(path) => format!("embedded in {}", path.display()),
        StoreLocation::Memory | StoreLocation::Redis(_) | StoreLocation::Postgres(_) => "memory".to_owned(),
    }
}
