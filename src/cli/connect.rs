//! `onlyonce check --connect`: whether the store can be used.

use std::io;

use serde::Serialize;

use super::block_on;
use super::text::labelled;
use crate::config::{self, StoreLocation};
use crate::run::{self, ExaminedFolder, NodeTrial, ServerFinding, Trial};
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
            None => Self::without_server(&store.location),
        })
    }

    fn without_server(location: &StoreLocation) -> Self {
        let (store, examined) = match location {
            StoreLocation::Embedded(path) => (format!("embedded in {}", path.display()), Some(run::try_folder(path))),
            StoreLocation::Memory | StoreLocation::Redis(_) | StoreLocation::Postgres(_) => ("memory".to_owned(), None),
        };
        let (findings, error) = match examined {
            Some(Ok(folder)) => (vec![ServerFinding { what: "folder", found: in_words(folder).to_owned() }], None),
            Some(Err(why)) => (Vec::new(), Some(why)),
            None => (Vec::new(), None),
        };
        Self { store, error, findings, nodes: Vec::new(), acl: None, grants: None }
    }

    pub(super) fn is_usable(&self) -> bool {
        self.error.is_none()
    }

    pub(super) fn write(&self, out: &mut String) {
        out.push('\n');
        let is_examined = self.acl.is_some() || self.grants.is_some() || !self.findings.is_empty();
        let verdict = match &self.error {
            Some(error) => format!("{}: cannot be used: {error}", self.store),
            None if is_examined => format!("{}: can be used", self.store),
            None => format!("{}: nothing to connect to", self.store),
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

fn in_words(folder: ExaminedFolder) -> &'static str {
    match folder {
        ExaminedFolder::Missing => "is not there yet: a start makes it",
        ExaminedFolder::Empty => "is empty: a start makes a store in it",
        ExaminedFolder::Store => "holds a store",
        ExaminedFolder::InUse => "holds a store, which a running sidecar uses",
    }
}
