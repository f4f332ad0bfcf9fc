//! `[admin]`

use std::net::{Ipv4Addr, SocketAddr};

use super::super::{AdminToken, Secret};
use super::address;
use super::admin_token::{self, NamedTokens};
use super::declare::settings;
use super::report::FileReport;
use super::section::Section;
use super::server::ServerTable;
use super::setting::Setting;

settings! {
    /// `[admin]`
    #[derive(Debug, Clone)]
    pub struct AdminConfig, "admin", read as AdminTable {
        made {
            /// The tokens of those who may see and change records. Without any, the sidecar's own machine may.
            tokens: Vec<AdminToken> = Self::tokens, at_once;
        }
        read {
            token: Secret = optional(admin_token::secret);
            named: NamedTokens = group(NamedTokens::read);
        }
        keys {
            /// Where `/metrics`, `/healthz` and `/readyz` are served; `None` when it is `"off"`.
            listen: Option<SocketAddr> = default(address::listen_or_off, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9464)))), at_start;
        }
    }
}

impl AdminTable {
    pub(super) fn check(&self, server: &ServerTable, report: &FileReport<'_>) {
        self.named.check(self.token.given(), report);
        let Some(Some(admin)) = self.listen.get() else { return };
        for (client, span) in server.addresses().filter(|(client, _)| address::collide(*client, *admin)) {
            let given = server.listen.span().map(|_| span.clone());
            report.add(
                self.listen.span().or(given),
                format!("admin.listen ({admin}) and server.listen ({client}) are the same port"),
                "give each its own, or turn the admin listener off: admin.listen = \"off\"",
            );
        }
    }

    fn tokens(&self) -> Option<Vec<AdminToken>> {
        self.named.with(self.token.clone().optional()?)
    }
}
