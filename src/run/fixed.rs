//! The settings that a reload cannot change.

use crate::config::{AdminConfig, Config, LogConfig, ServerConfig, StoreConfig, UpstreamConfig};

/// The settings that take effect only at start: sockets, stores and limits are created from them.
#[derive(Debug, Clone)]
pub(super) struct Fixed {
    server: ServerConfig,
    log: LogConfig,
    admin: AdminConfig,
    upstream: UpstreamConfig,
    store: StoreConfig,
}

impl Fixed {
    /// Those of `config`.
    pub(super) fn of(config: &Config) -> Self {
        let Config { server, log, admin, upstream, store, trust: _, routes: _, auth_tls: _ } = config;
        let (server, log, admin) = (server.clone(), log.clone(), admin.clone());
        Self { server, log, admin, upstream: upstream.clone(), store: store.clone() }
    }

    /// The keys that `config` sets to something else.
    pub(super) fn differing(&self, config: &Config) -> Vec<&'static str> {
        [
            self.server.changed_at_start(&config.server),
            self.log.changed_at_start(&config.log),
            self.upstream.changed_at_start(&config.upstream),
            self.admin.changed_at_start(&config.admin),
            self.store.changed_at_start(&config.store),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    fn config(server: &str, rest: &str) -> Config {
        let text = format!(
            "[server]\n{server}\n[upstream]\nurl = \"http://backend\"\n[[route]]\nname = \"r\"\npath = \"/r\"\n\
             scope = []\n{rest}\n"
        );
        parse("test.toml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"))
    }

    const STORE: &str = "[store]\nurl = \"memory:\"";

    #[test]
    fn what_takes_effect_at_a_start_only_is_named() {
        let fixed = Fixed::of(&config("", STORE));
        assert_eq!(fixed.differing(&config("", STORE)), Vec::<&str>::new());
        let moved = config(
            "listen = \"127.0.0.1:81\"\nmax_connections = 5\nheader_case = \"title\"",
            "[store]\nurl = \"redis://elsewhere\"",
        );
        assert_eq!(
            fixed.differing(&moved),
            ["server.listen", "server.max_connections", "server.header_case", "store.url"]
        );
        let off = config("", &format!("[admin]\nlisten = \"off\"\n{STORE}"));
        assert_eq!(fixed.differing(&off), ["admin.listen"]);
    }

    #[test]
    fn what_takes_effect_at_once_is_not() {
        let fixed = Fixed::of(&config("", STORE));
        let other = config(
            "body_timeout = \"1s\"",
            &format!(
                "retention = \"9d\"\n[admin]\ntoken = \"a-token-of-some-length\"\n[log]\nlevel = \"debug\"\nkeys = \"plain\"\n{STORE}\non_error = \"forward\""
            ),
        );
        assert_eq!(fixed.differing(&other), Vec::<&str>::new());
    }
}
