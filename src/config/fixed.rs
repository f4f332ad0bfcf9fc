//! What a running sidecar cannot change.

use super::{AdminConfig, Config, LogConfig, ServerConfig, StoreConfig};

/// The settings that take effect at a start only: they are bound, opened or divided up by then.
#[derive(Debug, Clone)]
pub struct Fixed {
    server: ServerConfig,
    log: LogConfig,
    admin: Option<AdminConfig>,
    store: StoreConfig,
}

impl Fixed {
    /// Those of `config`.
    pub fn of(config: &Config) -> Self {
        let Config { server, log, admin, upstream: _, store, trust: _, routes: _ } = config;
        Self { server: server.clone(), log: log.clone(), admin: admin.clone(), store: store.clone() }
    }

    /// The keys that `config` sets to something else.
    pub fn differing(&self, config: &Config) -> Vec<&'static str> {
        let mut differing = Vec::new();
        let mut compare = |key, same: bool| {
            if !same {
                differing.push(key);
            }
        };

        // Taken apart by name, so that nobody adds a setting without a thought of this.
        let ServerConfig {
            listen,
            header_timeout,
            body_timeout: _,
            idle_timeout,
            max_connections,
            max_in_flight,
            max_buffered,
            drain_delay,
            drain_timeout,
            header_case,
            threads,
            tls: _,
        } = &self.server;
        let wanted = &config.server;
        compare("server.listen", *listen == wanted.listen);
        compare("server.header_timeout", *header_timeout == wanted.header_timeout);
        compare("server.idle_timeout", *idle_timeout == wanted.idle_timeout);
        compare("server.max_connections", *max_connections == wanted.max_connections);
        compare("server.max_in_flight", *max_in_flight == wanted.max_in_flight);
        compare("server.max_buffered", *max_buffered == wanted.max_buffered);
        compare("server.drain_delay", *drain_delay == wanted.drain_delay);
        compare("server.drain_timeout", *drain_timeout == wanted.drain_timeout);
        compare("server.header_case", *header_case == wanted.header_case);
        compare("server.threads", *threads == wanted.threads);

        let LogConfig { format, level: _, keys: _ } = &self.log;
        compare("log.format", *format == config.log.format);

        let listen = |admin: &Option<AdminConfig>| admin.as_ref().map(|AdminConfig { listen, token: _ }| *listen);
        let token = |admin: &Option<AdminConfig>| admin.as_ref().and_then(|admin| admin.token.clone());
        compare("admin.listen", listen(&self.admin) == listen(&config.admin));
        compare("admin.token", token(&self.admin) == token(&config.admin));

        let StoreConfig {
            location,
            prefix,
            timeout,
            on_error: _,
            digest_key,
            durability,
            accept_eviction,
            replica_acks,
        } = &self.store;
        let wanted = &config.store;
        compare("store.url", *location == wanted.location);
        compare("store.prefix", *prefix == wanted.prefix);
        compare("store.timeout", *timeout == wanted.timeout);
        compare("store.digest_key", *digest_key == wanted.digest_key);
        compare("store.durability", *durability == wanted.durability);
        compare("store.accept_eviction", *accept_eviction == wanted.accept_eviction);
        compare("store.replica_acks", *replica_acks == wanted.replica_acks);
        differing
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

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
            &format!("retention = \"9d\"\n[log]\nlevel = \"debug\"\nkeys = \"plain\"\n{STORE}\non_error = \"forward\""),
        );
        assert_eq!(fixed.differing(&other), Vec::<&str>::new());
    }
}
