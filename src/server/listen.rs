//! Listeners: addresses, Unix sockets, and sockets of a service manager.

use std::fs::{self, Metadata, Permissions};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use listenfd::ListenFd;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};

use super::stream::ClientStream;
use crate::config::Listen;

/// A bound listener.
pub struct Listener {
    socket: ListenSocket,
    owner: SocketOwner,
}

enum ListenSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Who else holds the socket.
enum SocketOwner {
    /// Nobody. The file of a Unix socket is removed with it.
    Us(Option<SocketFile>),
    /// A service manager, which keeps the socket open when this process has stopped.
    ServiceManager,
}

/// A connection that is not registered with a runtime yet.
pub(super) enum AcceptedConnection {
    /// And the address of the client.
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// The file of a Unix socket. It is removed when its listener is dropped.
struct SocketFile {
    path: PathBuf,
    /// Device and inode: a file that has replaced it is not removed.
    identity: (u64, u64),
}

/// Sockets that a service manager has opened for this process (`LISTEN_FDS`, sd_listen_fds(3)).
#[derive(Default)]
pub struct InheritedSockets(Vec<InheritedSocket>);

enum InheritedSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// Owner and group may connect, whatever the umask.
const MODE: u32 = 0o660;

/// The length of the kernel's queue of connections.
const BACKLOG: u16 = 1024;

/// The state of a listener that is being closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseOutcome {
    /// A service manager keeps it open, with the connections in its queue.
    KeptOpen,
    /// The connections in its queue are still accepted, and no more can come.
    Complete,
    /// The same, but more may come.
    Incomplete,
}

impl Listener {
    /// Binds. The file of a Unix socket is replaced if nobody listens on it.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let socket = ListenSocket::Tcp(TcpListener::bind(address).await?);
                Ok(Self { socket, owner: SocketOwner::Us(None) })
            }
            Listen::Unix(path) => bind_unix(path).await,
        }
    }

    /// The address, if it has one.
    pub fn address(&self) -> Option<Listen> {
        match &self.socket {
            ListenSocket::Tcp(listener) => listener.local_addr().ok().map(Listen::Tcp),
            ListenSocket::Unix(listener) => {
                listener.local_addr().ok()?.as_pathname().map(|path| Listen::Unix(path.to_owned()))
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<AcceptedConnection>> {
        match &self.socket {
            ListenSocket::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                Poll::Ready(Ok(AcceptedConnection::Tcp(stream.into_std()?, peer)))
            }
            ListenSocket::Unix(listener) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                Poll::Ready(Ok(AcceptedConnection::Unix(stream.into_std()?)))
            }
        }
    }

    fn is_unix(&self) -> bool {
        matches!(self.socket, ListenSocket::Unix(_))
    }

    /// The next connection in the queue of a Unix socket that is closed; whoever connects is in the queue at once. Not
    /// by way of Tokio: a socket that is shut down is always ready, and `accept` returns `EAGAIN`, so Tokio would spin.
    fn accept_queued(&self) -> Option<io::Result<AcceptedConnection>> {
        let ListenSocket::Unix(listener) = &self.socket else { return None };
        match SockRef::from(listener).accept() {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::InvalidInput) => None,
            accepted => Some(accepted.and_then(|(socket, _)| {
                socket.set_nonblocking(true)?;
                Ok(AcceptedConnection::Unix(OwnedFd::from(socket).into()))
            })),
        }
    }

    /// Admits no further connections, as far as the system allows.
    fn close(&mut self) -> CloseOutcome {
        let closed = match (&self.socket, &mut self.owner) {
            (_, SocketOwner::ServiceManager) => return CloseOutcome::KeptOpen,
            (ListenSocket::Tcp(listener), SocketOwner::Us(_)) => let_nobody_in(listener),
            (ListenSocket::Unix(listener), SocketOwner::Us(file)) => {
                drop(file.take());
                SockRef::from(listener).shutdown(Shutdown::Read)
            }
        };
        match closed {
            Ok(()) => CloseOutcome::Complete,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(error, "connections may still come in while it is closed");
                CloseOutcome::Incomplete
            }
        }
    }
}

/// Drops the first segment of new connections (SYN without ACK), and nothing else. A handshake that has begun is
/// finished; a later client sends its segment again until the socket is closed, and is refused then. Closing a socket
/// resets the connections in its queue. Without this filter, one could always arrive just before.
///
/// The filter of a TCP socket sees a segment from its header on (sk_filter, Linux Documentation/networking/filter.rst).
/// Byte 13 has the flags (RFC 9293, 3.1).
#[cfg(target_os = "linux")]
fn let_nobody_in(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;

    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    // Opcodes of classic BPF (linux/bpf_common.h): BPF_LD | BPF_B | BPF_ABS, BPF_ALU | BPF_AND | BPF_K, BPF_JMP |
    // BPF_JEQ | BPF_K, BPF_RET | BPF_K.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NO_SYN: [SockFilter; 5] = [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    SockRef::from(listener).attach_filter(&NO_SYN)
}

/// Other systems have no such filter. A connection that arrives between the last accept and the close is reset.
#[cfg(not(target_os = "linux"))]
fn let_nobody_in(_listener: &TcpListener) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

impl AcceptedConnection {
    /// Registers the connection with the current runtime.
    pub(super) fn open(self) -> io::Result<(ClientStream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(stream, peer) => {
                let stream = TcpStream::from_std(stream)?;
                stream.set_nodelay(true)?;
                Ok((ClientStream::Tcp(stream), Some(peer)))
            }
            Self::Unix(stream) => Ok((ClientStream::Unix(UnixStream::from_std(stream)?), None)),
        }
    }
}

/// Listeners that take turns, so that a busy one does not delay the others.
pub(super) struct FairListeners {
    listeners: Vec<Listener>,
    next: usize,
    /// How many more connections are accepted after closing begins.
    left: usize,
}

/// After this time, no handshake is under way: a client that has sent the first segment has sent the third one round
/// trip later. It is longer than any round trip on earth, and shorter than the second after which a client repeats a
/// first segment that was dropped (RFC 6298, 2.1): that one must find nobody who listens.
pub(super) const HANDSHAKE: Duration = Duration::from_millis(500);

impl FairListeners {
    pub(super) fn new(listeners: Vec<Listener>) -> Self {
        Self { listeners, next: 0, left: usize::MAX }
    }

    /// The next connection.
    pub(super) async fn accept(&mut self) -> io::Result<AcceptedConnection> {
        poll_fn(|cx| {
            let (before, after) = self.listeners.split_at(self.next);
            let mut in_turn = after.iter().chain(before).enumerate();
            let accepted = in_turn.find_map(|(turn, listener)| match listener.poll_accept(cx) {
                Poll::Ready(accepted) => Some((turn, accepted)),
                Poll::Pending => None,
            });
            let Some((turn, accepted)) = accepted else { return Poll::Pending };
            self.next = (self.next + turn + 1) % self.listeners.len();
            Poll::Ready(accepted)
        })
        .await
    }

    /// Admits no further connections.
    pub(super) fn close(&mut self) {
        let mut all_closed = true;
        self.listeners.retain_mut(|listener| {
            let closed = listener.close();
            all_closed &= closed != CloseOutcome::Incomplete;
            closed != CloseOutcome::KeptOpen
        });
        self.next = 0;
        if !all_closed {
            // As many as may have been in the queue: others could come for ever.
            self.left = usize::from(BACKLOG).saturating_mul(self.listeners.len());
        }
    }

    /// The next connection that was in a queue, or whose handshake ends within `handshake`. `None`: there are no more.
    pub(super) async fn accept_last(&mut self, handshake: Duration) -> Option<io::Result<AcceptedConnection>> {
        self.left = self.left.checked_sub(1)?;
        // Each listener is dropped when its own queue is empty.
        while let Some(place) = self.listeners.iter().position(Listener::is_unix) {
            match self.listeners[place].accept_queued() {
                Some(accepted) => return Some(accepted),
                None => drop(self.listeners.remove(place)),
            }
        }
        self.next = 0;
        if self.listeners.is_empty() {
            return None;
        }
        tokio::time::timeout(handshake, self.accept()).await.ok()
    }
}

async fn bind_unix(path: &Path) -> io::Result<Listener> {
    let socket = UnixSocket::new_stream()?;
    match socket.bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            make_way(path).await?;
            socket.bind(path)?;
        }
        bound => bound?,
    }
    // Nobody can connect before it listens, so its permissions are set in time.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    let file = SocketFile { path: path.to_owned(), identity: identity(&fs::symlink_metadata(path)?) };
    let socket = ListenSocket::Unix(socket.listen(BACKLOG.into())?);
    Ok(Listener { socket, owner: SocketOwner::Us(Some(file)) })
}

/// Removes the file of a socket that nobody listens on.
async fn make_way(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Somebody listens, even if it is too busy to answer.
        Ok(_) | Err(_) => Err(ErrorKind::AddrInUse.into()),
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(error = &error as &dyn std::error::Error, path = %self.path.display(), "a socket is left");
        }
    }
}

impl InheritedSockets {
    /// Takes the sockets that the environment names, and removes the variables, so that no other program uses them.
    /// Must be called before other threads start, because it changes the environment.
    pub fn take() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let socket = match passed.take_tcp_listener(index) {
                Ok(listener) => listener.map(InheritedSocket::Tcp),
                Err(_) => passed.take_unix_listener(index)?.map(InheritedSocket::Unix),
            };
            sockets.extend(socket);
        }
        Ok(Self(sockets))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes listeners of them. The files of Unix sockets belong to the service manager.
    pub fn listeners(self) -> io::Result<Vec<Listener>> {
        let listener = |socket| {
            let socket = match socket {
                InheritedSocket::Tcp(listener) => {
                    listener.set_nonblocking(true)?;
                    ListenSocket::Tcp(TcpListener::from_std(listener)?)
                }
                InheritedSocket::Unix(listener) => {
                    listener.set_nonblocking(true)?;
                    ListenSocket::Unix(UnixListener::from_std(listener)?)
                }
            };
            Ok(Listener { socket, owner: SocketOwner::ServiceManager })
        };
        self.0.into_iter().map(listener).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many connections are accepted after closing.
    async fn last(turns: &mut FairListeners, handshake: Duration) -> usize {
        let mut count = 0;
        while let Some(accepted) = turns.accept_last(handshake).await {
            accepted.expect("a connection");
            count += 1;
        }
        count
    }

    #[tokio::test]
    async fn all_in_the_queues_of_unix_sockets_are_accepted_and_nobody_is_waited_for() {
        for waiting in [[0, 0], [0, 3], [3, 0], [1, 5], [4, 4]] {
            let folder = tempfile::tempdir().expect("a folder");
            let (mut listeners, mut clients) = (Vec::new(), Vec::new());
            for (number, count) in waiting.into_iter().enumerate() {
                let path = folder.path().join(format!("{number}.sock"));
                listeners.push(Listener::bind(&Listen::Unix(path.clone())).await.expect("to listen"));
                for _ in 0..count {
                    clients.push(UnixStream::connect(&path).await.expect("to connect"));
                }
            }
            let mut turns = FairListeners::new(listeners);
            turns.close();
            let last = last(&mut turns, Duration::from_secs(3600));
            let accepted = tokio::time::timeout(Duration::from_secs(60), last).await.expect("an end");
            assert_eq!(accepted, clients.len(), "{waiting:?}");
        }
    }

    #[tokio::test]
    async fn where_others_may_come_no_more_are_accepted_than_may_have_been_in() {
        let listener = Listener::bind(&Listen::Tcp(([127, 0, 0, 1], 0).into())).await.expect("to listen");
        let Some(Listen::Tcp(address)) = listener.address() else { panic!("an address") };
        let mut turns = FairListeners::new(vec![listener]);
        let mut clients = Vec::new();
        for _ in 0..3 {
            clients.push(TcpStream::connect(address).await.expect("to connect"));
        }
        turns.left = 2;
        assert_eq!(last(&mut turns, Duration::from_secs(1)).await, 2);
        turns.left = usize::MAX;
        turns.close();
        assert_eq!(last(&mut turns, Duration::from_secs(1)).await, 1);
    }
}
