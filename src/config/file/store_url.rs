//! `store.url`. Nothing of its value may be quoted in a message: it may hold a password.

use std::path::PathBuf;

use super::super::{RedisAddress, Secret, StoreLocation};
use super::item::Item;
use super::uri::percent_decoded;

const ADVICE: &str = "one of these is right: \"redis://host:6379/0\", \"embedded:/var/lib/onlyonce\", \"memory:\"";
const REDIS: &str = "the form is redis://[user[:password]@]host[:port][/database]; write @ : / in a password as \
                     %40 %3A %2F, or take the whole URL from the environment: url = \"env:ONLYONCE_STORE_URL\"";

/// Which store, and where it is.
pub(super) fn read(item: &Item<'_>) -> Option<StoreLocation> {
    let text = item.text()?;
    let Some((scheme, rest)) = text.value.split_once(':') else {
        return item.refuse("store.url does not say which kind of store it is", ADVICE);
    };
    match scheme.to_ascii_lowercase().as_str() {
        "redis" | "valkey" => redis(item, rest).map(StoreLocation::Redis),
        "rediss" | "valkeys" => {
            item.not_built("a Redis over TLS (rediss:) is", "reach it without TLS: redis://host:6379/0")
        }
        "redis+unix" | "unix" => {
            item.not_built("a Redis behind a Unix socket (redis+unix:) is", "reach it over TCP: redis://host:6379/0")
        }
        "postgres" | "postgresql" => {
            item.not_built("the PostgreSQL store (postgres:) is", "use a Redis: redis://host:6379/0")
        }
        "redis+sentinel" => item.not_built("redis+sentinel: is", "name the Redis server itself: redis://host:6379/0"),
        "redis+cluster" => item.not_built("redis+cluster: is", "use one Redis server: redis://host:6379/0"),
        "embedded" => embedded(item, rest).map(StoreLocation::Embedded),
        "memory" if rest.is_empty() => Some(StoreLocation::Memory),
        "memory" => item.refuse("nothing can follow memory: in store.url", "url = \"memory:\""),
        _ => item.refuse("store.url names no kind of store that there is", ADVICE),
    }
}

fn embedded(item: &Item<'_>, path: &str) -> Option<PathBuf> {
    if path.is_empty() || path.starts_with("//") {
        let advice = "a folder follows the colon: \"embedded:/var/lib/onlyonce\", or \"embedded:data\"";
        return item.refuse("store.url names no folder for the embedded store", advice);
    }
    Some(item.path(path))
}

fn redis(item: &Item<'_>, rest: &str) -> Option<RedisAddress> {
    let Some(rest) = rest.strip_prefix("//") else {
        return item.refuse("store.url has no // after redis:", REDIS);
    };
    if rest.contains(['?', '#']) {
        return item.refuse("store.url takes no parameters", REDIS);
    }
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => (Some(credentials), rest),
        None => (None, rest),
    };
    let (authority, database) = match rest.split_once('/') {
        Some((authority, database)) => (authority, database),
        None => (rest, ""),
    };
    let Some((username, password)) = user(credentials) else {
        return item.refuse("user or password in store.url cannot be read", REDIS);
    };
    let Some((host, port)) = host_and_port(authority) else {
        return item.refuse("store.url has no valid host and port", REDIS);
    };
    let Some(database) = number(database) else {
        return item.refuse("the database in store.url is not a number", REDIS);
    };
    Some(RedisAddress { host, port, database, username, password })
}

/// `user`, `user:password` or `:password`
fn user(credentials: Option<&str>) -> Option<(Option<String>, Option<Secret>)> {
    let Some(credentials) = credentials else { return Some((None, None)) };
    let (user, password) = match credentials.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (credentials, None),
    };
    if credentials.contains('/') {
        return None;
    }
    let username = Some(percent_decoded(user)?).filter(|user| !user.is_empty());
    let password = match password {
        Some(password) => Some(Secret::new(percent_decoded(password)?)),
        None => None,
    };
    Some((username, password))
}

fn host_and_port(authority: &str) -> Option<(String, u16)> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok().filter(|port| *port != 0)?),
        _ => (authority, 6379),
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
        assert_eq!(host_and_port("redis"), Some(("redis".into(), 6379)));
        assert_eq!(host_and_port("[::1]:7000"), Some(("::1".into(), 7000)));
        assert_eq!(host_and_port("[::1]"), Some(("::1".into(), 6379)));
        assert_eq!(host_and_port("::1"), None);
        assert_eq!(host_and_port(":6379"), None);
        assert_eq!(host_and_port("redis:99999"), None);
    }
}
