//! Where connections come from: addresses, Unix sockets, and sockets that a service manager holds.

use std::fs::{self, Metadata, Permissions};
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, ready};

use listenfd::ListenFd;
use tokio::net::{TcpListener, UnixListener, UnixSocket, UnixStream};

use super::stream::Stream;
use crate::config::Listen;

/// One that is bound.
pub enum Listener {
    /// An address.
    Tcp(TcpListener),
    /// A Unix socket, and its file where that is ours.
    Unix(UnixListener, Option<SocketFile>),
}

/// The file of a Unix socket, which goes with its listener.
pub struct SocketFile {
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
            Listen::Tcp(address) => TcpListener::bind(address).await.map(Self::Tcp),
            Listen::Unix(path) => bind_unix(path).await,
        }
    }

    /// Where it listens, as far as that has a name.
    pub fn address(&self) -> Option<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok().map(Listen::Tcp),
            Self::Unix(listener, _) => {
                listener.local_addr().ok()?.as_pathname().map(|path| Listen::Unix(path.to_owned()))
            }
        }
    }

    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Option<SocketAddr>)>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = ready!(listener.poll_accept(cx))?;
                stream.set_nodelay(true)?;
                Poll::Ready(Ok((Stream::Tcp(stream), Some(peer))))
            }
            Self::Unix(listener, _) => listener.poll_accept(cx).map_ok(|(stream, _)| (Stream::Unix(stream), None)),
        }
    }
}

/// Listeners that take turns, so that one that is busy does not keep the others waiting.
pub(super) struct Turns {
    listeners: Vec<Listener>,
    next: usize,
}

impl Turns {
    pub(super) fn new(listeners: Vec<Listener>) -> Self {
        Self { listeners, next: 0 }
    }

    /// The next connection, and where it comes from.
    pub(super) async fn accept(&mut self) -> io::Result<(Stream, Option<SocketAddr>)> {
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
    Ok(Listener::Unix(socket.listen(BACKLOG)?, Some(file)))
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
        let listener = |socket| match socket {
            PassedSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Listener::Tcp)
            }
            PassedSocket::Unix(listener) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(|listener| Listener::Unix(listener, None))
            }
        };
        self.0.into_iter().map(listener).collect()
    }
}
