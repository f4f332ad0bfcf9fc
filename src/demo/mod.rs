//! `onlyonce demo`: a slow invoice service, the proxy in front of it, and a page to double-click.

mod backend;
mod ledger;
mod page;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use tokio::net::TcpListener;

use self::backend::Backend;
use crate::config::{self, Config, ConfigError};
use crate::run::{Sidecar, StartError, Stopped};

/// A demo with bound addresses and a ready proxy.
pub struct Demo {
    sidecar: Sidecar,
    backend: Backend,
    listener: TcpListener,
    places: DemoAddresses,
    folder: DemoFolder,
}

/// The listening addresses.
#[derive(Debug, Clone, Copy)]
struct DemoAddresses {
    proxy: SocketAddr,
    backend: SocketAddr,
    admin: SocketAddr,
}

const WELCOME: &str = "\
onlyonce demo: a slow invoice service, and onlyonce in front of it

Open this in a browser, and try to send a form twice:

  {proxy}

The same service without onlyonce, and the status page of onlyonce:

  {backend}
  {admin}

With curl, through onlyonce. Run it twice: the first takes two seconds and
creates an invoice, the second gets the same answer at once, marked with
Idempotent-Replayed.

  curl -i {proxy}/api/invoices \\
    -H 'Idempotency-Key: 17' -d customer=Ada -d amount=120

The same key with another body is refused:

  curl -i {proxy}/api/invoices \\
    -H 'Idempotency-Key: 17' -d customer=Ada -d amount=999

Straight to the service, every run creates an invoice:

  curl -i {backend}/api/invoices \\
    -H 'Idempotency-Key: 17' -d customer=Ada -d amount=120

What was created:

  curl {backend}/invoices

Ctrl-C stops the demo and removes its records. A log line follows for each
request that onlyonce guards.
";

/// Why the demo cannot start.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// No address is free.
    #[error("cannot listen on {address} or a port after it")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder for the records cannot be created.
    #[error("cannot make the folder {path} for the records")]
    Folder {
        /// Its path.
        path: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The folder has a name that cannot be configured.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The proxy did not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Demo {
    /// Takes `listen` or the first free port after it for the proxy, and the next free ones for the backend and the
    /// admin listener.
    pub async fn start(listen: SocketAddr) -> Result<Self, DemoError> {
        let no_port = |source| DemoError::Listen { address: listen, source };
        // The sidecar binds its listeners itself. These two reserve their ports until all three are known.
        let (proxy, bound) = first_free(listen).await.map_err(no_port)?;
        let (listener, backend) = first_free(after(bound).map_err(no_port)?).await.map_err(no_port)?;
        let (holder, admin) = first_free(after(backend).map_err(no_port)?).await.map_err(no_port)?;
        let places = DemoAddresses { proxy: bound, backend, admin };

        let folder = DemoFolder::new()?;
        let config = configuration(places, &folder)?;
        drop((proxy, holder));
        let sidecar = Sidecar::start(config).await?;
        Ok(Self { sidecar, backend: Backend::new(places), listener, places, folder })
    }

    /// The addresses, with instructions.
    pub fn welcome(&self) -> String {
        let url = |address| format!("http://{}", reachable(address));
        WELCOME
            .replace("{proxy}", &url(self.places.proxy))
            .replace("{backend}", &url(self.places.backend))
            .replace("{admin}", &url(self.places.admin))
    }

    /// Serves until `stop`, then finishes the invoices in progress and deletes the records.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Stopped {
        let Self { sidecar, backend, listener, places: _, folder } = self;
        #[expect(clippy::disallowed_methods, reason = "aborted below")]
        let backend = tokio::spawn(backend.serve(listener));
        let stopped = sidecar.serve(stop).await;
        backend.abort();
        drop(folder);
        stopped
    }
}

/// The first free port, from that of `address` on; any, where that is 0.
async fn first_free(mut address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => address = after(address)?,
            Err(error) => return Err(error),
            Ok(listener) => {
                let bound = listener.local_addr()?;
                return Ok((listener, bound));
            }
        }
    }
}

fn after(mut address: SocketAddr) -> io::Result<SocketAddr> {
    let port = address.port().checked_add(1).ok_or_else(|| io::Error::other("all ports are taken"))?;
    address.set_port(port);
    Ok(address)
}

/// The address by which a client on this machine reaches a listener on `address`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

/// The configuration that comes with the demo, with the addresses and the folder of this one.
fn configuration(places: DemoAddresses, folder: &DemoFolder) -> Result<Config, ConfigError> {
    let value = |name: &str| match name {
        "LISTEN" => Some(places.proxy.to_string()),
        "ADMIN" => Some(places.admin.to_string()),
        "BACKEND" => Some(format!("http://{}", reachable(places.backend))),
        "STORE" => Some(format!("embedded:{}", folder.0.display())),
        _ => None,
    };
    config::parse("onlyonce.toml", include_str!("onlyonce.toml"), &value)
}

/// A folder that is deleted on drop.
struct DemoFolder(PathBuf);

impl DemoFolder {
    /// A new folder, accessible only to this user.
    fn new() -> Result<Self, DemoError> {
        let mut path = std::env::temp_dir().join(format!("onlyonce-demo-{}", std::process::id()));
        loop {
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                // Left behind by a process of the same id that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => path.as_mut_os_string().push("-"),
                Err(source) => return Err(DemoError::Folder { path: path.display().to_string(), source }),
            }
        }
    }
}

impl Drop for DemoFolder {
    fn drop(&mut self) {
        // The store closes concurrently and may create one more file.
        let mut tries = 20;
        let removed = loop {
            match fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && tries > 0 => tries -= 1,
                removed => break removed,
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        if let Err(error) = removed {
            tracing::warn!(folder = %self.0.display(), %error, "the records of the demo are left behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_loads() {
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let folder = DemoFolder::new().expect("a folder");
        let config = configuration(DemoAddresses { proxy: at(1), backend: at(2), admin: at(3) }, &folder);
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(config.server.listen, [config::Listen::Tcp(at(1))]);
        assert!(
            matches!(&config.upstream.address, config::UpstreamAddress::Http(backend) if *backend == "127.0.0.1:2")
        );
        assert_eq!(config.store.location, config::StoreLocation::Embedded(folder.0.clone()));
    }

    #[tokio::test]
    async fn ports_that_are_taken_are_passed_over() {
        let (_first, taken) = first_free(([127, 0, 0, 1], 0).into()).await.expect("a port");
        let (_second, next) = first_free(taken).await.expect("a port after it");
        assert!(next.port() > taken.port());
    }

    #[test]
    fn an_address_for_all_interfaces_is_reached_on_this_machine() {
        assert_eq!(reachable(([0, 0, 0, 0], 8080).into()), ([127, 0, 0, 1], 8080).into());
        assert_eq!(reachable(([192, 0, 2, 1], 8080).into()), ([192, 0, 2, 1], 8080).into());
    }
}
