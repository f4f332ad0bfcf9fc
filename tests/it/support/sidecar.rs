//! A sidecar inside the test process, and its configuration.

use std::net::SocketAddr;

use onlyonce::config;
use onlyonce::run::{self, Stopped};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use toml::Table;

use super::process;
use super::store::Store;
use super::wire::{Request, Response, Wire, request, within};

/// A configuration: one route `orders` for `POST /orders`, scoped by `Authorization`; the memory store; free ports.
#[derive(Clone)]
pub struct Setup {
    config: Table,
}

impl Setup {
    /// In front of the backend at this URL.
    pub fn new(upstream: &str) -> Self {
        // The machine may be busy. Other tests cover a store that does not answer.
        let config = format!(
            r#"
            [server]
            listen = "127.0.0.1:0"
            drain_delay = "0s"
            [admin]
            listen = "127.0.0.1:0"
            [upstream]
            url = "{upstream}"
            [store]
            url = "memory:"
            timeout = "15s"
            [[route]]
            name = "orders"
            path = "/orders"
            scope = ["header:Authorization"]
            "#
        );
        Self { config: config.parse().expect("TOML") }
    }

    pub fn store(self, store: &Store) -> Self {
        self.with("store", &format!("url = \"{}\"", store.url()))
    }

    /// Sets keys of one table.
    pub fn with(mut self, table: &str, keys: &str) -> Self {
        let keys: Table = keys.parse().unwrap_or_else(|error| panic!("{error}: {keys}"));
        let table = self.config.entry(table).or_insert_with(|| Table::new().into());
        table.as_table_mut().expect("a table").extend(keys);
        self
    }

    /// Sets keys of the route `orders`.
    pub fn route(mut self, keys: &str) -> Self {
        let keys: Table = keys.parse().unwrap_or_else(|error| panic!("{error}: {keys}"));
        self.routes()[0].as_table_mut().expect("a table").extend(keys);
        self
    }

    /// Adds another route.
    pub fn another_route(mut self, keys: &str) -> Self {
        let keys: Table = keys.parse().unwrap_or_else(|error| panic!("{error}: {keys}"));
        self.routes().push(keys.into());
        self
    }

    fn routes(&mut self) -> &mut Vec<toml::Value> {
        self.config["route"].as_array_mut().expect("an array of tables")
    }

    /// The file.
    pub fn toml(&self) -> String {
        self.config.to_string()
    }

    pub async fn start(self) -> Sidecar {
        let text = self.toml();
        let config = config::parse("test.toml", &text, &|_| None).unwrap_or_else(|error| panic!("{error}"));
        let sidecar = run::Sidecar::start(config).await.unwrap_or_else(|error| panic!("{error}"));
        // A test that listens on a Unix socket only knows its path.
        let address = sidecar.listening().into_iter().find_map(|listen| match listen {
            config::Listen::Tcp(address) => Some(address),
            config::Listen::Unix(_) => None,
        });
        let address = address.unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
        let admin = sidecar.admin_address().expect("the admin listener is on");
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            // A dropped sender does not stop it.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        Sidecar { address, admin, stop, task: tokio::spawn(sidecar.serve(stopped)) }
    }
}

/// Serves until it is stopped, or the test ends.
pub struct Sidecar {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Stopped>,
}

impl Sidecar {
    pub async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    /// Sends a request on a connection of its own.
    pub async fn ask(&self, request: &Request) -> Response {
        self.connect().await.ask(request).await
    }

    /// The same, in the background.
    pub fn asking(&self, request: &Request) -> JoinHandle<Response> {
        let (address, request) = (self.address, request.clone());
        tokio::spawn(async move { Wire::connect(address).await.ask(&request).await })
    }

    /// Sends a request, and returns its connection before the response.
    pub async fn begin(&self, request: &Request) -> Wire {
        let mut wire = self.connect().await;
        wire.send(request.bytes()).await;
        wire
    }

    pub async fn admin(&self, target: &str) -> Response {
        Wire::connect(self.admin).await.ask(&request("GET", target)).await
    }

    /// The value of one series; 0 when there is none.
    pub async fn metric(&self, series: &str) -> f64 {
        process::value(&self.admin("/metrics").await, series)
    }

    /// Stops as with SIGTERM.
    pub fn begin_to_stop(self) -> JoinHandle<Stopped> {
        self.stop.send(()).expect("it is serving");
        self.task
    }

    pub async fn stop(self) -> Stopped {
        within("stopping", self.begin_to_stop()).await.expect("no panic")
    }
}
