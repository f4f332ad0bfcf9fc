//! Shops of real frameworks, each with its own CSRF token and session cookie, and unchanged but for the tag of the form guard:
//! how many rows they have after what people do with a form in a real browser.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::Command;

use tempfile::TempDir;

use super::peer::{Peer, beside, built};
use super::support::{Browser, Setup, Sidecar, Wire, request, until};

struct Shop {
    _peer: Peer,
    /// Its database, and the gate at which orders wait.
    folder: TempDir,
    address: SocketAddr,
    sidecar: Sidecar,
    browser: Browser,
    /// The page with the form.
    form: &'static str,
}

impl Shop {
    /// `command` makes the program of a folder for its database. `orders` is what the form is sent to.
    async fn open(command: impl FnOnce(&TempDir) -> Command, form: &'static str, orders: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = command(&folder);
        let port = |line: &str| match line.split_once("Development Server (http://127.0.0.1:") {
            // That of PHP.
            Some((_, rest)) => rest.split(')').next().map(str::to_owned),
            None => line.strip_prefix("ready ").map(str::to_owned),
        };
        let starting = tokio::task::spawn_blocking(move || Peer::once(&mut command, port));
        let (peer, port) = starting.await.expect("no panic");
        let address = SocketAddr::from(([127, 0, 0, 1], port.parse().expect("a port")));
        let route = format!("path = \"{orders}\"\nkey = \"form:order_key\"\nscope = []\nreplay_set_cookie = true");
        let setup = Setup::new(&format!("http://{address}")).with("server", "form_guard = \"/.onlyonce/form.js\"");
        let sidecar = setup.route(&route).start().await;
        Self { _peer: peer, folder, address, sidecar, browser: Browser::start().await, form }
    }

    async fn rows(&self) -> usize {
        let rows = Wire::connect(self.address).await.ask(&request("GET", "/rows").host("127.0.0.1")).await;
        rows.text().trim().parse().unwrap_or_else(|_| panic!("no number: {rows:?}"))
    }

    async fn has_rows(&self, count: usize) {
        until("orders at the shop", async || self.rows().await >= count).await;
    }

    /// Orders are taken, and not answered.
    fn close(&self) {
        fs::write(self.folder.path().join("gate"), "").expect("a writable folder");
    }

    fn open_gate(&self) {
        fs::remove_file(self.folder.path().join("gate")).expect("it is closed");
    }

    /// The form, with a name in it.
    async fn fill(&mut self, name: &str) {
        self.browser.open(&format!("http://{}{}", self.sidecar.address, self.form)).await;
        self.browser.fill("#name", name).await;
    }

    /// The order's page is there with the message that it shows once, and there is no other row.
    async fn has_placed(&mut self, number: usize) {
        let order = format!("document.querySelector('#order')?.textContent === '{number}'");
        self.browser.until(&order).await;
        let flash = self.browser.value("document.querySelector('.flash')?.textContent").await;
        assert_eq!(flash, format!("Order {number} is placed."));
        assert_eq!(self.rows().await, number);
    }

    async fn gets_each_order_once(mut self) {
        // A double click.
        for (number, gap) in [(1, 30), (2, 120)] {
            self.close();
            self.fill("Ada").await;
            self.browser.press_mouse("#save", &[0, gap]).await;
            self.has_rows(number).await;
            self.open_gate();
            self.has_placed(number).await;
        }

        // A reload midway, and the same once more.
        self.close();
        self.fill("Ada").await;
        self.browser.press_mouse("#save", &[0]).await;
        self.has_rows(3).await;
        self.browser.reload().await;
        self.browser.fill("#name", "Ada").await;
        self.browser.press_mouse("#save", &[0]).await;
        self.open_gate();
        self.has_placed(3).await;

        // Invalid, and then corrected.
        self.fill("bad").await;
        self.browser.press_mouse("#save", &[0]).await;
        self.browser.until("document.querySelector('#error') && document.readyState === 'complete'").await;
        assert_eq!(self.rows().await, 3);
        self.browser.fill("#name", "Ada").await;
        self.browser.press_mouse("#save", &[0, 60]).await;
        self.has_placed(4).await;

        // Two on purpose.
        for number in [5, 6] {
            self.fill("Ada").await;
            self.browser.press_mouse("#save", &[0]).await;
            self.has_placed(number).await;
        }
        // Refused forms and icons that are not there are statuses; all else would be a fault.
        let is_status = |complaint: &String| complaint.contains("the server responded with a status of");
        let complaints: Vec<_> = self.browser.complaints().await.into_iter().filter(|one| !is_status(one)).collect();
        assert_eq!(complaints, Vec::<String>::new());
    }
}

fn shop(file: &str) -> std::path::PathBuf {
    beside("shops").join(file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_on_django_gets_each_order_once() {
    let django = |folder: &TempDir| {
        let mut command = Command::new(built("peers-python/bin/python"));
        command.arg(shop("django_shop.py")).arg(folder.path());
        command
    };
    Shop::open(django, "/orders/new", "/orders").await.gets_each_order_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_shop_on_express_gets_each_order_once() {
    let express = |folder: &TempDir| {
        let mut command = super::node::linked("shops/express_shop.mjs");
        // Node is a child of what PyPI has for it.
        command.arg(folder.path()).process_group(0);
        command
    };
    Shop::open(express, "/orders/new", "/orders").await.gets_each_order_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_shop_in_plain_php_gets_each_order_once() {
    let php = |folder: &TempDir| {
        let mut command = Command::new("sh");
        command.args(["-c", "exec php -S 127.0.0.1:0 \"$0\" 2>&1"]).arg(shop("plain_shop.php"));
        // Several processes, as the server has one thread.
        command.env("FOLDER", folder.path()).env("PHP_CLI_SERVER_WORKERS", "6").process_group(0);
        command
    };
    Shop::open(php, "/form.php", "/orders.php").await.gets_each_order_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "tests/run --all"]
async fn a_shop_on_rails_gets_each_order_once() {
    let rails = |folder: &TempDir| {
        let mut command = Command::new("ruby");
        command.arg(shop("rails_shop.rb")).arg(folder.path());
        command
    };
    Shop::open(rails, "/orders/new", "/orders").await.gets_each_order_once().await;
}
