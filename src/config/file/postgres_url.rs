//! `store.url` of a PostgreSQL, as libpq writes it. Messages never quote it, because it may contain a password.

use std::path::PathBuf;

use super::super::{PostgresAddress, StoreEndpoint, StorePassword};
use super::item::Item;
use super::store_url::{decoded, host_and_port, user};

const FORM: &str = "the form is postgres://user[:password]@host[:port][,host…]/database, and for TLS ?sslmode=verify-full \
                    behind it; write @ : / in \
                    a password as %40 %3A %2F, or take it from elsewhere: password = \"env:PGPASSWORD\"";
const PORT: u16 = 5432;

/// What the parameters say.
#[derive(Default)]
struct Parameters {
    is_tls: bool,
    /// Hosts that are not in the authority, as sockets usually are.
    host: Option<String>,
}

/// Which servers, and whether they are spoken to in TLS.
pub(super) fn read(item: &Item<'_>, rest: &str) -> Option<(PostgresAddress, bool)> {
    let refuse = |message: &str| item.refuse(message, FORM);
    let Some(rest) = rest.strip_prefix("//").filter(|rest| !rest.contains('#')) else {
        return refuse("store.url has no // after the scheme");
    };
    let (rest, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let parameters = read_parameters(item, parameters)?;
    let (credentials, rest) = match rest.rsplit_once('@') {
        Some((credentials, rest)) => (Some(credentials), rest),
        None => (None, rest),
    };
    let Some((username, password)) = user(credentials) else {
        return refuse("user or password in store.url cannot be read");
    };
    let Some(username) = username else { return refuse("store.url names no user") };
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let Some(database) = decoded(database).filter(|database| !database.contains(['/', '\0'])) else {
        return refuse("the database in store.url cannot be read");
    };
    let hosts = match (&parameters.host, authority) {
        (None, "") => return refuse("store.url has no host"),
        (None, authority) => authority,
        (Some(host), "") => host,
        (Some(_), _) => return refuse("store.url has two places for its hosts: before the database, and host="),
    };
    let servers: Option<Vec<StoreEndpoint>> = hosts.split(',').map(endpoint).collect();
    let is_distinct = |servers: &Vec<StoreEndpoint>| (1..servers.len()).all(|at| !servers[..at].contains(&servers[at]));
    let Some(servers) = servers.filter(is_distinct) else {
        return refuse("store.url has no valid hosts and ports");
    };
    if parameters.is_tls && servers.iter().any(|server| matches!(server, StoreEndpoint::Unix(_))) {
        return item.refuse("TLS is not spoken over a Unix socket", "leave sslmode out");
    }
    // As psql has it.
    let database = if database.is_empty() { username.clone() } else { database };
    let password = password.map(StorePassword::Fixed);
    Some((PostgresAddress { servers, username, database, password, tls: None }, parameters.is_tls))
}

fn read_parameters(item: &Item<'_>, text: &str) -> Option<Parameters> {
    let mut parameters = Parameters::default();
    for parameter in text.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (name, value) {
            ("sslmode", "disable") => parameters.is_tls = false,
            // Never less than what is asked for: a certificate that nobody checks protects from nobody who is in between.
            ("sslmode", "require" | "verify-ca" | "verify-full") => parameters.is_tls = true,
            ("sslmode", _) => {
                return item.refuse(
                    "sslmode in store.url is none that is spoken",
                    "verify-full is right, and disable where the way to the server is safe. With allow and prefer, whoever is \
                     in between has the choice; require and verify-ca are taken for verify-full",
                );
            }
            ("host", host) => parameters.host = Some(host.to_owned()),
            ("target_session_attrs", "read-write" | "primary") => {}
            ("target_session_attrs", _) => {
                return item.refuse(
                    "target_session_attrs in store.url asks for a server that cannot decide about claims",
                    "leave it out, or write read-write: of several hosts, the one that is the primary is looked for",
                );
            }
            _ => {
                return item.refuse(
                    "store.url has a parameter that is not known",
                    "these are: sslmode, host, target_session_attrs. store.timeout says how long a call may take; \
                     settings of a session are onlyonce's own",
                );
            }
        }
    }
    Some(parameters)
}

/// `host[:port]`, or the folder of a socket with `%2F` for each slash (or as it is, in a parameter).
fn endpoint(text: &str) -> Option<StoreEndpoint> {
    let decoded = decoded(text)?;
    if !decoded.starts_with('/') {
        return host_and_port(text, PORT).map(|(host, port)| StoreEndpoint::Tcp(host, port));
    }
    let (folder, port) = match decoded.rsplit_once(':') {
        Some((folder, port)) => (folder.to_owned(), port.parse().ok().filter(|port| *port != 0)?),
        None => (decoded, PORT),
    };
    Some(StoreEndpoint::Unix(PathBuf::from(folder).join(format!(".s.PGSQL.{port}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_or_the_folder_of_a_socket() {
        let tcp = |host: &str, port| Some(StoreEndpoint::Tcp(host.to_owned(), port));
        let unix = |path: &str| Some(StoreEndpoint::Unix(path.into()));
        assert_eq!(endpoint("db"), tcp("db", 5432));
        assert_eq!(endpoint("db:6432"), tcp("db", 6432));
        assert_eq!(endpoint("[::1]"), tcp("::1", 5432));
        assert_eq!(endpoint("%2Frun%2Fpostgresql"), unix("/run/postgresql/.s.PGSQL.5432"));
        assert_eq!(endpoint("/run/postgresql:5433"), unix("/run/postgresql/.s.PGSQL.5433"));
        for wrong in ["", "db:0", "db:x", "/run:x", "a b"] {
            assert_eq!(endpoint(wrong), None, "{wrong}");
        }
    }
}
