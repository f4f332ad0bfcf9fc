//! Where connections come from: addresses, Unix sockets, and sockets that a service manager holds.

use std::fs::{self, Metadata, Permissions};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use listenfd::ListenFd;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixSocket, UnixStream};

use super::stream::Stream;
use crate::config::Listen;

/// One that is bound.
pub struct Listener {
    socket: Socket,
    owner: Owner,
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Who else holds the socket.
enum Owner {
    /// Nobody. The file of a Unix socket is ours as well.
    Us(Option<SocketFile>),
    /// A service manager, which goes on listening when we have stopped.
    ServiceManager,
}

/// A connection that no runtime knows of yet.
pub(super) enum Accepted {
    /// And where it comes from.
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// The file of a Unix socket, which goes with its listener.
struct SocketFile {
    path: PathBuf,
    /// Device and inode: whatever has taken its place since is not ours to remove.
    identity: (u64, u64),
}

/// Sockets that a service manager listens on for us (`LISTEN_FDS`, sd_listen_fds(3)).
#[derive(Default)]
pub struct Passed(Vec<PassedSocket>);

enum PassedSocket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// The owner and the group may connect, whatever the umask says.
const MODE: u32 = 0o660;

/// Connections that the kernel holds for us.
const BACKLOG: u32 = 1024;

impl Listener {
    /// Binds. The file of a Unix socket that nobody listens on any more is replaced.
    pub async fn bind(listen: &Listen) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => {
                let socket = Socket::Tcp(TcpListener::bind(address).await?);
                Ok(Self { socket, owner: Owner::Us(None) })
            }
            Listen::Unix(path) => bind_unix(path).await,
        }
    }

    /// Where it listens, as far as that has a name.
    pub fn address(&self) -> Option<Listen> {
        match &self.socket {
            Socket::Tcp(listener) => listener.local_addr().ok().map(Listen::Tcp),
            Socket::Unix(listener) => {
                listener.local_addr().ok()?.as_pathname().map(|path| Listen::Unix(path.to_owned()))
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                Poll::Ready(Ok(Accepted::Tcp(stream.into_std()?, peer)))
            }
            Socket::Unix(listener) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                Poll::Ready(Ok(Accepted::Unix(stream.into_std()?)))
            }
        }
    }

    /// Lets nobody in from now on; who is in already is still to be accepted. Says whether there may be any: a service
    /// manager keeps its socket, and with it who waits there for whoever listens next.
    fn close(&mut self) -> bool {
        let closed = match (&self.socket, &mut self.owner) {
            (_, Owner::ServiceManager) => return false,
            (Socket::Tcp(listener), Owner::Us(_)) => let_nobody_in(listener),
            (Socket::Unix(listener), Owner::Us(file)) => {
                drop(file.take());
                SockRef::from(listener).shutdown(Shutdown::Read)
            }
        };
        if let Err(error) = closed {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "connections may still come in while it is closed"
            );
        }
        true
    }
}

/// Drops the first segment of connections (SYN without ACK), and nothing else of a socket that listens: a handshake that
/// has begun is finished, and who comes later tries again until the socket is gone, and is refused then. To close a
/// socket with connections in its queue resets them; without this there is always a moment in which one may come.
///
/// For a TCP socket a filter sees the segment from its header on (sk_filter, Linux Documentation/networking/filter.rst):
/// byte 13 holds the flags (RFC 9293, 3.1).
#[cfg(target_os = "linux")]
fn let_nobody_in(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;

    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    // Of classic BPF (linux/bpf_common.h): BPF_LD | BPF_B | BPF_ABS, BPF_ALU | BPF_AND | BPF_K, BPF_JMP | BPF_JEQ | BPF_K,
    // BPF_RET | BPF_K.
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

/// Other systems have no such filter: who comes between the last that is accepted and the end of the socket is reset.
#[cfg(not(target_os = "linux"))]
fn let_nobody_in(_listener: &TcpListener) -> io::Result<()> {
    Ok(())
}

impl Accepted {
    /// From here on it belongs to this runtime.
    pub(super) fn open(self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match self {
            Self::Tcp(stream, peer) => {
                let stream = TcpStream::from_std(stream)?;
                stream.set_nodelay(true)?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Self::Unix(stream) => Ok((Stream::Unix(UnixStream::from_std(stream)?), None)),
        }
    }
}

/// Listeners that take turns, so that one that is busy does not keep the others waiting.
pub(super) struct Turns {
    listeners: Vec<Listener>,
    next: usize,
}

/// After this, nobody is on the way any more: who has sent the first segment of a connection has sent the third.
const HANDSHAKE: Duration = Duration::from_millis(100);

impl Turns {
    pub(super) fn new(listeners: Vec<Listener>) -> Self {
        Self { listeners, next: 0 }
    }

    /// The next connection.
    pub(super) async fn accept(&mut self) -> io::Result<Accepted> {
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

    /// Lets nobody in from now on.
    pub(super) fn close(&mut self) {
        self.listeners.retain_mut(Listener::close);
        self.next = 0;
    }

    /// The next of those who are in already. `None`: there are no more.
    pub(super) async fn accept_last(&mut self) -> Option<io::Result<Accepted>> {
        match tokio::time::timeout(HANDSHAKE, self.accept()).await {
            // A Unix socket that is shut down says so when its queue is empty.
            Ok(Err(error)) if error.kind() == ErrorKind::InvalidInput => {
                self.listeners.retain(|listener| matches!(listener.socket, Socket::Tcp(_)));
                self.next = 0;
                Box::pin(self.accept_last()).await
            }
            Ok(accepted) => Some(accepted),
            Err(_) => None,
        }
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
    // Nobody can connect before it listens, so nobody finds it with other permissions.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    let file = SocketFile { path: path.to_owned(), identity: identity(&fs::symlink_metadata(path)?) };
    let socket = Socket::Unix(socket.listen(BACKLOG)?);
    Ok(Listener { socket, owner: Owner::Us(Some(file)) })
}

/// Removes the file of a socket that nobody listens on any more.
async fn make_way(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        return Err(ErrorKind::AlreadyExists.into());
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        // Somebody answers, or is too busy to.
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

impl Passed {
    /// Takes what the environment names. To be called before there are other threads: it changes the environment, so
    /// that no other program takes them for its own.
    pub fn take() -> io::Result<Self> {
        let mut passed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let socket = match passed.take_tcp_listener(index) {
                Ok(listener) => listener.map(PassedSocket::Tcp),
                Err(_) => passed.take_unix_listener(index)?.map(PassedSocket::Unix),
            };
            sockets.extend(socket);
        }
        Ok(Self(sockets))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes listeners of them. Their files, if any, belong to the service manager.
    pub fn listeners(self) -> io::Result<Vec<Listener>> {
        let listener = |socket| {
            let socket = match socket {
                PassedSocket::Tcp(listener) => {
                    listener.set_nonblocking(true)?;
                    Socket::Tcp(TcpListener::from_std(listener)?)
                }
                PassedSocket::Unix(listener) => {
                    listener.set_nonblocking(true)?;
                    Socket::Unix(UnixListener::from_std(listener)?)
                }
            };
            Ok(Listener { socket, owner: Owner::ServiceManager })
        };
        self.0.into_iter().map(listener).collect()
    }
}
