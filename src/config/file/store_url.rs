//! `store.url`. Messages never quote its value, which may contain a password.

use std::path::PathBuf;

use super::super::{PostgresAddress, RedisAddress, RedisServers, Secret, StoreEndpoint, StoreLocation, StorePassword};
use super::item::Item;
use super::postgres_url;
use crate::uri;

const ADVICE: &str = "one of these is right: \"redis://host:6379/0\", \"postgres://user@host/database\", \"embedded:/var/lib/onlyonce\", \"memory:\"";
const SECRETS: &str = "write @ : / in a password as %40 %3A %2F, or take it from elsewhere: \
                       password = \"env:REDIS_PASSWORD\", or url = \"env:ONLYONCE_STORE_URL\"";

/// What `store.url` says.
#[derive(Debug, Clone)]
pub(super) enum StoreUrl {
    /// A Redis, and whether it is spoken to in TLS.
    Redis(RedisAddress, bool),
    /// A PostgreSQL, and the same.
    Postgres(PostgresAddress, bool),
    Other(StoreLocation),
}

/// The kinds of URL that name a Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    Unix,
    Sentinel,
    Cluster,
}

/// Which store, and where it is.
pub(super) fn read(item: &Item<'_>) -> Option<StoreUrl> {
    let text = item.text()?;
    let Some((scheme, rest)) = text.value.split_once(':') else {
        return item.refuse("store.url does not say which kind of store it is", ADVICE);
    };
    let scheme = scheme.to_ascii_lowercase();
    if let Some((kind, is_tls)) = of_redis(&scheme) {
        if kind == Kind::Unix && is_tls {
            return item
                .refuse("TLS is not spoken over a Unix socket", "write redis+unix:///path without the second s");
        }
        return redis(item, kind, rest).map(|address| StoreUrl::Redis(address, is_tls));
    }
    match scheme.as_str() {
        "postgres" | "postgresql" => {
            postgres_url::read(item, rest).map(|(address, is_tls)| StoreUrl::Postgres(address, is_tls))
        }
        "embedded" => embedded(item, rest).map(StoreLocation::Embedded).map(StoreUrl::Other),
        "memory" if rest.is_empty() => Some(StoreUrl::Other(StoreLocation::Memory)),
        "memory" => item.refuse("nothing can follow memory: in store.url", "url = \"memory:\""),
        _ => item.refuse("store.url names no kind of store that there is", ADVICE),
    }
}

/// Which kind of URL a scheme begins, and whether it means TLS.
fn of_redis(scheme: &str) -> Option<(Kind, bool)> {
    if scheme == "unix" {
        return Some((Kind::Unix, false));
    }
    let (base, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
    let is_tls = match base {
        "redis" | "valkey" => false,
        "rediss" | "valkeys" => true,
        _ => return None,
    };
    let kind = match kind {
        "" if !scheme.ends_with('+') => Kind::Server,
        "unix" => Kind::Unix,
        "sentinel" => Kind::Sentinel,
        "cluster" => Kind::Cluster,
        _ => return None,
    };
    Some((kind, is_tls))
}

impl Kind {
    fn form(self) -> &'static str {
        match self {
            Self::Server => "redis://[user[:password]@]host[:port][/database]",
            Self::Unix => "redis+unix://[user[:password]@]/path[?db=database]",
            Self::Sentinel => "redis+sentinel://[user[:password]@]host[:port][,host…]/name[/database]",
            Self::Cluster => "redis+cluster://[user[:password]@]host[:port][,host…]",
        }
    }

    /// The port that is meant where none is said.
    fn port(self) -> u16 {
        match self {
            Self::Server | Self::Unix | Self::Cluster => 6379,
            Self::Sentinel => 26379,
        }
    }
}

fn embedded(item: &Item<'_>, path: &str) -> Option<PathBuf> {
    if path.is_empty() || path.starts_with("//") {
        let advice = "a folder follows the colon: \"embedded:/var/lib/onlyonce\", or \"embedded:data\"";
        return item.refuse("store.url names no folder for the embedded store", advice);
    }
    Some(item.path(path))
}

fn redis(item: &Item<'_>, kind: Kind, rest: &str) -> Option<RedisAddress> {
    let refuse = |message: &str| item.refuse(message, format!("the form is {}; {SECRETS}", kind.form()));
    let Some(rest) = rest.strip_prefix("//") else {
        return refuse("store.url has no // after the scheme");
    };
    let (rest, parameters) = match rest.split_once('?') {
        Some((rest, parameters)) => (rest, Some(parameters)),
        None => (rest, None),
    };
    if rest.contains('#') || parameters.is_some() && kind != Kind::Unix {
        return refuse("store.url takes no parameters");
    }
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => (Some(credentials), rest),
        None => (None, rest),
    };
    let Some((username, password)) = user(credentials) else {
        return refuse("user or password in store.url cannot be read");
    };
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, path),
        None => (rest, ""),
    };
    let (servers, database) = match kind {
        Kind::Unix => {
            let Some(path) = decoded(path).filter(|path| authority.is_empty() && !path.is_empty()) else {
                return refuse("store.url names no socket: its path begins with /, after //");
            };
            let database = match parameters {
                None => "",
                Some(parameters) => match parameters.strip_prefix("db=") {
                    Some(database) => database,
                    None => return refuse("store.url takes no other parameter than db"),
                },
            };
            (RedisServers::One(StoreEndpoint::Unix(PathBuf::from(format!("/{path}")))), database)
        }
        Kind::Server if authority.contains(',') => {
            return item.refuse(
                "store.url names several servers, and not what they are",
                "one of these is right: redis+sentinel://host1,host2/name, redis+cluster://host1,host2",
            );
        }
        Kind::Server => {
            let Some((host, port)) = host_and_port(authority, kind.port()) else {
                return refuse("store.url has no valid host and port");
            };
            (RedisServers::One(StoreEndpoint::Tcp(host, port)), path)
        }
        Kind::Sentinel => {
            let Some(sentinels) = hosts(authority, kind.port()) else {
                return refuse("store.url has no valid hosts and ports of sentinels");
            };
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            let Some(master) = decoded(master).filter(|master| !master.is_empty()) else {
                return refuse("store.url does not say by which name the sentinels know the primary");
            };
            (RedisServers::Sentinel { sentinels, master }, database)
        }
        Kind::Cluster => {
            let Some(nodes) = hosts(authority, kind.port()) else {
                return refuse("store.url has no valid hosts and ports of nodes");
            };
            (RedisServers::Cluster(nodes), path)
        }
    };
    let Some(database) = number(database) else {
        return refuse("the database in store.url is not a number");
    };
    if kind == Kind::Cluster && database != 0 {
        return refuse("a Redis Cluster has database 0 only");
    }
    let password = password.map(StorePassword::Fixed);
    Some(RedisAddress { servers, database, username, password, tls: None })
}

/// `user`, `user:password` or `:password`
pub(super) fn user(credentials: Option<&str>) -> Option<(Option<String>, Option<Secret>)> {
    let Some(credentials) = credentials else { return Some((None, None)) };
    let (user, password) = match credentials.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (credentials, None),
    };
    if credentials.contains('/') {
        return None;
    }
    let username = Some(decoded(user)?).filter(|user| !user.is_empty());
    let password = match password {
        Some(password) => Some(Secret::new(decoded(password)?)),
        None => None,
    };
    Some((username, password))
}

/// Hosts with a comma between them. None may be there twice.
fn hosts(authority: &str, default: u16) -> Option<Vec<(String, u16)>> {
    let hosts: Vec<_> = authority.split(',').map(|host| host_and_port(host, default)).collect::<Option<_>>()?;
    let is_distinct = hosts.iter().enumerate().all(|(index, host)| !hosts[..index].contains(host));
    is_distinct.then_some(hosts)
}

pub(super) fn host_and_port(authority: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok().filter(|port| *port != 0)?),
        _ => (authority, default),
    };
    let name = |host: &str| !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok().map(|_| (address.to_owned(), port)),
        None => name(host).then(|| (host.to_owned(), port)),
    }
}

fn number(database: &str) -> Option<i64> {
    if database.is_empty() { Some(0) } else { database.parse().ok().filter(|number| *number >= 0) }
}

/// `store.password`: the password itself, which `env:NAME` takes from the environment, or `file:PATH`.
pub(super) fn password(item: &Item<'_>) -> Option<StorePassword> {
    let text = item.text()?;
    match text.value.strip_prefix("file:") {
        Some("") => item.refuse("store.password names no file", "write password = \"file:/run/secrets/redis\""),
        Some(path) => Some(StorePassword::File(item.path(path))),
        None if text.value.is_empty() => {
            item.refuse("store.password is empty", "leave it out where the server asks for none")
        }
        None => Some(StorePassword::Fixed(Secret::new(text.value))),
    }
}

pub(super) fn decoded(text: &str) -> Option<String> {
    String::from_utf8(uri::percent_decode(text.as_bytes())?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_decoded() {
        assert_eq!(user(Some("a:p%40ss")), Some((Some("a".into()), Some(Secret::new("p@ss")))));
        assert_eq!(user(Some(":pw")), Some((None, Some(Secret::new("pw")))));
        assert_eq!(user(Some("a")), Some((Some("a".into()), None)));
        assert_eq!(user(Some("a:%zz")), None);
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        assert_eq!(host_and_port("redis", 6379), Some(("redis".into(), 6379)));
        assert_eq!(host_and_port("[::1]:7000", 6379), Some(("::1".into(), 7000)));
        assert_eq!(host_and_port("[::1]", 6379), Some(("::1".into(), 6379)));
        assert_eq!(host_and_port("::1", 6379), None);
        assert_eq!(host_and_port(":6379", 6379), None);
        assert_eq!(host_and_port("redis:99999", 6379), None);
    }

    #[test]
    fn several_hosts_have_a_comma_between_them() {
        let all = [("a".to_owned(), 26379), ("b".to_owned(), 7), ("::1".to_owned(), 26379)];
        assert_eq!(hosts("a,b:7,[::1]", 26379), Some(all.to_vec()));
        assert_eq!(hosts("a,,b", 1), None);
        assert_eq!(hosts("a,a:1", 1), None);
        assert_eq!(hosts("", 1), None);
    }

    #[test]
    fn schemes_say_what_is_behind_them() {
        for (scheme, kind) in [
            ("redis", Some((Kind::Server, false))),
            ("valkeys", Some((Kind::Server, true))),
            ("unix", Some((Kind::Unix, false))),
            ("valkey+unix", Some((Kind::Unix, false))),
            ("rediss+sentinel", Some((Kind::Sentinel, true))),
            ("valkey+cluster", Some((Kind::Cluster, false))),
            ("redis+", None),
            ("redis+sentinels", None),
            ("reddis", None),
        ] {
            assert_eq!(of_redis(scheme), kind, "{scheme}");
        }
    }
}
