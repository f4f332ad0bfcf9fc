//! A client of the admin listener, with one connection for each call.

use std::error::Error;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use crate::admin::BY_OPERATOR;
use crate::admin::shape::AdminProblem;
use crate::config::{self, Config, Secret, UNNAMED_TOKEN};

/// The admin listener of one sidecar.
pub(super) struct AdminClient {
    authority: Authority,
    token: Option<Secret>,
    pub(super) token_from: TokenFrom,
    connect_timeout: Duration,
    timeout: Duration,
    /// An admin listener has answered at this address.
    is_known: AtomicBool,
}

/// What only an admin listener answers `GET /status` with, out of the [whole](crate::admin::Status).
#[derive(Deserialize)]
#[expect(dead_code, reason = "they are there, whatever they say")]
struct AdminGreeting {
    version: String,
    lease_lost: u64,
}

/// Where the token comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenFrom {
    Environment,
    Configuration,
    Nowhere,
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum AdminCallError {
    /// The command line is invalid.
    Usage(String),
    /// The sidecar does not answer.
    Unreachable(io::Error),
    /// The sidecar refused the call.
    Refused(Box<AdminProblem>),
    /// Not a sidecar, or one of another version.
    Strange(String),
    /// The output cannot be written.
    Output(io::Error),
}

impl From<io::Error> for AdminCallError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

const TOKEN: &str = "ONLYONCE_ADMIN_TOKEN";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Long, because one call may release many keys, each with a write to a disk.
const TIMEOUT: Duration = Duration::from_secs(60);

impl AdminClient {
    /// The sidecar at `admin`, else the one of this configuration. The file is read only if it is needed.
    pub(super) fn new(admin: Option<&str>, config: &Path) -> Result<Self, String> {
        let token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty()).map(Secret::new);
        let (authority, configured) = match admin {
            Some(url) => {
                let authority = authority(url)?;
                // The sidecar of another machine may have no configuration here.
                let configured = if token.is_none() { config::load(config).ok().and_then(token_of) } else { None };
                (authority, configured)
            }
            None => {
                let loaded = config::load(config).map_err(|error| super::refusal(&error))?;
                (listener(&loaded, config)?, token_of(loaded))
            }
        };
        let token_from = match (&token, &configured) {
            (Some(_), _) => TokenFrom::Environment,
            (None, Some(_)) => TokenFrom::Configuration,
            (None, None) => TokenFrom::Nowhere,
        };
        let (connect_timeout, timeout) = (CONNECT_TIMEOUT, TIMEOUT);
        let is_known = AtomicBool::new(false);
        Ok(Self { authority, token: token.or(configured), token_from, connect_timeout, timeout, is_known })
    }

    /// With a short timeout, for calls that are optional.
    pub(super) fn hurried(self) -> Self {
        Self { connect_timeout: Duration::from_millis(300), timeout: Duration::from_secs(2), ..self }
    }

    /// For messages.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.authority)
    }

    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, AdminCallError> {
        let asked = async {
            if !self.is_known.load(Ordering::Relaxed) {
                self.greet().await?;
                self.is_known.store(true, Ordering::Relaxed);
            }
            self.exchange(method, target, body, self.token.as_ref()).await
        };
        let (status, body) = match tokio::time::timeout(self.timeout, asked).await {
            Ok(answer) => answer?,
            Err(_) => {
                return Err(AdminCallError::Unreachable(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")));
            }
        };
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| AdminCallError::Strange(error.to_string()));
        }
        match serde_json::from_slice(&body) {
            Ok(problem) => Err(AdminCallError::Refused(Box::new(problem))),
            Err(_) => Err(AdminCallError::Strange(format!("it answers {status}"))),
        }
    }

    /// Makes sure that the address is an admin listener's. Behind the port of the proxy, the backend would get the token, and
    /// what is asked about.
    async fn greet(&self) -> Result<(), AdminCallError> {
        let (status, body) = self.exchange(Method::GET, "/status", None::<&()>, None).await?;
        match serde_json::from_slice::<AdminGreeting>(&body) {
            Ok(_) if status.is_success() => Ok(()),
            _ => Err(AdminCallError::Strange(format!("it answers GET /status with {status}, and not as one"))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        target: &str,
        body: Option<&impl Serialize>,
        token: Option<&Secret>,
    ) -> Result<(StatusCode, Bytes), AdminCallError> {
        let strange = |error: &dyn Error| AdminCallError::Strange(error.to_string());
        let mut request = Request::builder().method(method).uri(target).header(HOST, self.authority.as_str());
        request = request.header(BY_OPERATOR, "cli");
        if let Some(token) = token {
            let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| AdminCallError::Usage("the token cannot stand in a header".into()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = match body {
            None => Bytes::new(),
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                serde_json::to_vec(body).map_err(|error| strange(&error))?.into()
            }
        };
        let request = request.body(Full::new(body)).map_err(|error| strange(&error))?;

        let stream = self.connect().await.map_err(AdminCallError::Unreachable)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| strange(&error))?;
        #[expect(clippy::disallowed_methods, reason = "ends with the sender, or with the program")]
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|error| strange(&error))?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| strange(&error))?.to_bytes();
        Ok((status, body))
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']');
        let connecting = TcpStream::connect((host, self.authority.port_u16().unwrap_or(80)));
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time");
        tokio::time::timeout(self.connect_timeout, connecting).await.map_err(late)?
    }
}

fn token_of(config: Config) -> Option<Secret> {
    // Another's token is not taken: the audit would tell of the wrong person.
    config.admin.tokens.into_iter().find(|token| token.name == UNNAMED_TOKEN).map(|token| token.token)
}

/// `http://HOST:PORT`
fn authority(url: &str) -> Result<Authority, String> {
    let wrong = |why: &str| format!("error: --admin {url}: {why}");
    let uri: Uri = url.parse().map_err(|_| wrong("this is no URL: write it as http://127.0.0.1:9464"))?;
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(authority)) if *scheme == Scheme::HTTP && matches!(uri.path(), "" | "/") => {
            Ok(authority.clone())
        }
        (Some(scheme), _) if *scheme == Scheme::HTTPS => {
            Err(wrong("the admin listener speaks plain HTTP: use a tunnel, as `ssh -L 9464:127.0.0.1:9464 HOST`"))
        }
        _ if url.parse::<Authority>().is_ok_and(|authority| authority.port().is_some()) => {
            Err(wrong(&format!("write it as http://{url}")))
        }
        _ => Err(wrong("write it as http://127.0.0.1:9464")),
    }
}

/// The admin address of this configuration's sidecar, for a client.
fn listener(config: &Config, path: &Path) -> Result<Authority, String> {
    let file = path.display();
    let Some(mut address) = config.admin.listen else {
        return Err(format!(
            "error: the admin listener is off in {file}, and records are reached through it\n\
             help: set admin.listen and start the sidecar again, or name another sidecar's with --admin URL"
        ));
    };
    if address.port() == 0 {
        return Err(format!(
            "error: admin.listen in {file} is any free port\n\
             help: name it with --admin URL; the sidecar's log says which it is"
        ));
    }
    // A wildcard address is reachable on loopback.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address.to_string().parse().map_err(|error| format!("error: admin.listen in {file}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_admin_url_is_plain_http_and_no_more() {
        for url in ["http://127.0.0.1:9464", "http://127.0.0.1:9464/", "http://[::1]:9464", "HTTP://sidecar:1"] {
            assert!(authority(url).is_ok(), "{url}");
        }
        for url in ["", "127.0.0.1:9464", "https://127.0.0.1:9464", "http://127.0.0.1:9464/records", "ftp://a", "/"] {
            assert!(authority(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_listener_is_that_of_the_configuration() {
        let at = |listen: &str| {
            let text = format!(
                "upstream.url = \"http://127.0.0.1:1\"\nstore.url = \"memory:\"\nadmin.listen = \"{listen}\"\n\
                 [[route]]\nname = \"orders\"\npath = \"/orders\"\nscope = []\n"
            );
            let config = config::parse("test", &text, &|_| None).expect("a configuration");
            listener(&config, Path::new("test")).map(|authority| authority.to_string())
        };
        assert_eq!(at("127.0.0.1:9464").as_deref(), Ok("127.0.0.1:9464"));
        assert_eq!(at("0.0.0.0:9464").as_deref(), Ok("127.0.0.1:9464"));
        assert_eq!(at("[::]:9464").as_deref(), Ok("[::1]:9464"));
        assert!(at("off").is_err_and(|error| error.contains("--admin URL")));
        assert!(at("127.0.0.1:0").is_err_and(|error| error.contains("any free port")));
    }
}
