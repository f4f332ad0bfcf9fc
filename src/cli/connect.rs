//! `onlyonce check --connect`: whether the store can be used.

use serde::Serialize;

use super::block_on;
use super::text::labelled;
use crate::config::{self, StoreLocation};
use crate::store::{Redis, acl_rule};

/// What came of connecting.
#[derive(Serialize)]
pub(super) struct Connection {
    store: String,
    /// Why it cannot be used, if it cannot.
    error: Option<String>,
    /// The rules of an ACL user that suffice.
    acl: Option<String>,
}

impl Connection {
    /// Connects, and changes nothing.
    pub(super) fn make(store: &config::Store) -> Self {
        let address = match &store.location {
            StoreLocation::Redis(address) => address,
            StoreLocation::Embedded(path) => return Self::without(format!("embedded in {}", path.display())),
            StoreLocation::Memory => return Self::without("memory".to_owned()),
        };
        let tried = block_on(async { Redis::open_to_look(address, store).tried().await });
        let error = match tried {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(crate::store::causes(&why)),
            Err(error) => Some(error.to_string()),
        };
        let acl = acl_rule(&store.prefix);
        Self {
            store: format!("Redis at {}", address.server()),
            error,
            acl: Some(format!("ACL SETUSER onlyonce on >PASSWORD {acl}")),
        }
    }

    /// There is nothing to connect to.
    fn without(store: String) -> Self {
        Self { store, error: None, acl: None }
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
        if let Some(acl) = &self.acl {
            labelled(out, "its user", "as an ACL rule, on one line:");
            out.push_str(acl);
            out.push('\n');
        }
    }
}
