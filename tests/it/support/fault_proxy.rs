//! A faulty link: a TCP proxy between a sidecar and its store that delays, pauses or cuts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

/// The faults of the link, in each direction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// The delay.
    pub delay: Duration,
    /// A pause after each 64 KiB.
    pub pause: Duration,
    /// Bytes in a second that all connections share in each direction; 0: no limit.
    pub rate: u32,
    /// Connections are closed, and new ones are not taken.
    pub cut: bool,
}

/// When one direction of the link has room again.
type Busy = Arc<Mutex<Instant>>;

const PAUSE_AFTER: usize = 64 * 1024;

/// Listens until it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    faults: watch::Sender<Faults>,
    commands: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl FaultProxy {
    /// In front of a server on this port of the loopback.
    pub async fn before(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port on loopback");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (faults, commands) = (watch::Sender::new(Faults::default()), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(accept(listener, port, faults.subscribe(), Arc::clone(&commands)));
        Self { address, faults, commands, task }
    }

    /// For `store.url`.
    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Sets the faults, also for bytes that are being delayed.
    pub fn set(&self, faults: Faults) {
        self.faults.send_replace(faults);
    }

    /// The number of commands that were sent to the server, counted by RESP arrays.
    pub fn commands(&self) -> usize {
        self.commands.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, port: u16, mut faults: watch::Receiver<Faults>, commands: Arc<AtomicUsize>) {
    // Aborted with this task.
    let mut connections = JoinSet::new();
    let busy = [(); 2].map(|()| Arc::new(Mutex::new(Instant::now())));
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { return };
                if !faults.borrow().cut {
                    connections.spawn(link(client, port, faults.clone(), busy.clone(), Arc::clone(&commands)));
                }
            }
            changed = faults.changed() => {
                if changed.is_err() {
                    return;
                }
                if faults.borrow().cut {
                    connections.abort_all();
                }
            }
        }
    }
}

async fn link(
    client: TcpStream,
    port: u16,
    faults: watch::Receiver<Faults>,
    [up, down]: [Busy; 2],
    commands: Arc<AtomicUsize>,
) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("a TCP socket");
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let count = move |bytes: &[u8]| {
        let starts = bytes.windows(2).filter(|pair| pair[0] == b'*' && pair[1].is_ascii_digit()).count();
        commands.fetch_add(starts, Ordering::Relaxed);
    };
    tokio::select! {
        () = pass(from_client, to_server, faults.clone(), up, count) => {}
        () = pass(from_server, to_client, faults, down, |_| {}) => {}
    }
}

/// One direction. Delays do not add up.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    faults: watch::Receiver<Faults>,
    busy: Busy,
    seen: impl Fn(&[u8]),
) {
    let (sender, on_the_way) = mpsc::channel::<(Instant, Vec<u8>)>(1024);
    let reading = async move {
        let mut buffer = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            seen(&buffer[..length]);
            if sender.send((Instant::now(), buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    // Bytes that were read before the end are still delivered.
    tokio::join!(reading, deliver(to, on_the_way, faults, busy));
}

async fn deliver(
    mut to: impl AsyncWrite + Unpin,
    mut on_the_way: mpsc::Receiver<(Instant, Vec<u8>)>,
    faults: watch::Receiver<Faults>,
    busy: Busy,
) {
    let mut since_pause = 0;
    while let Some((sent, bytes)) = on_the_way.recv().await {
        let Faults { delay, pause, rate, .. } = *faults.borrow();
        if rate > 0 {
            let through = {
                let mut busy = busy.lock().expect("no panic");
                *busy = Instant::now().max(*busy) + Duration::from_secs(1) * bytes.len() as u32 / rate;
                *busy
            };
            tokio::time::sleep_until(through).await;
        }
        tokio::time::sleep_until(sent + delay).await;
        if to.write_all(&bytes).await.is_err() {
            return;
        }
        since_pause += bytes.len();
        if since_pause >= PAUSE_AFTER {
            since_pause = 0;
            tokio::time::sleep(pause).await;
        }
    }
}
