//! Connections for large bodies, with one transfer at a time on each. Bodies are written from the memory that they are
//! in, and read into the memory that they stay in.
//!
//! They are separate from the connections for records. A body that is late or not needed any more affects only its own
//! connection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::{Buf, Bytes, BytesMut};
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::bodies::TURNS;
use super::command_error::CommandError;
use super::handshake;
use super::pipeline::ASKING;
use super::resp::{CommandWriter, RespValue};
use super::stream::{Dialer, RedisStream};
use crate::config::StoreEndpoint;

/// The connections for bodies of one core.
pub(super) struct BodyConnections {
    dialer: Arc<Dialer>,
    endpoint: StoreEndpoint,
    prefix: String,
    /// The run ID of the server, once it is known.
    run_id: OnceLock<String>,
    idle: Mutex<Vec<RedisStream>>,
    /// The connections that all cores share. If none can be opened, an idle one of these is used.
    shared: Option<Arc<BodyConnections>>,
}

/// A value to write under a key, in pieces.
pub(super) struct KeyedValue {
    pub(super) key: String,
    pub(super) pieces: Vec<Bytes>,
}

/// The memory that is reserved for a value before it arrives. More is reserved only as it arrives.
const SET_ASIDE: u64 = 4 * 1024 * 1024;
/// The length of a reply without its value.
const FRAME: u64 = 32;

impl BodyConnections {
    /// Starts with `first`, an open connection, if there is one. More are opened as needed.
    pub(super) fn new(
        dialer: Arc<Dialer>,
        endpoint: StoreEndpoint,
        prefix: String,
        first: Option<RedisStream>,
    ) -> Self {
        let (run_id, idle) = (OnceLock::new(), Mutex::new(first.into_iter().collect()));
        Self { dialer, endpoint, prefix, run_id, idle, shared: None }
    }

    /// The connections of one core. They are used before the shared ones, because a server may limit the number of
    /// connections.
    pub(super) fn on_core(shared: &Arc<Self>) -> Self {
        let Self { dialer, endpoint, prefix, run_id, .. } = &**shared;
        let own = Self::new(dialer.clone(), endpoint.clone(), prefix.clone(), None);
        Self { shared: Some(shared.clone()), run_id: run_id.clone(), ..own }
    }

    /// From now on, connections to another run of a server are refused.
    pub(super) fn set_run_id(&self, run_id: &str) {
        // The run ID stays the same for the life of the connections.
        let _ = self.run_id.set(run_id.to_owned());
    }

    /// Writes values without copying their pieces. Returns the values that the server refuses, with the reason.
    pub(super) async fn set(
        &self,
        values: &[KeyedValue],
        millis: u64,
        is_importing: bool,
        deadline: Instant,
    ) -> Result<Vec<(usize, CommandError)>, CommandError> {
        let mut commands = Vec::with_capacity(values.iter().map(|value| value.pieces.len() + 3).sum());
        for KeyedValue { key, pieces } in values {
            let length: usize = pieces.iter().map(Bytes::len).sum();
            let (mut head, mut tail) = (asking(is_importing), Vec::new());
            CommandWriter::begin(&mut head, 5)
                .word(b"SET")
                .word(key.as_bytes())
                .split(length, &mut tail)
                .word(b"PX")
                .number(millis);
            commands.push(Bytes::from(head));
            commands.extend_from_slice(pieces);
            commands.push(Bytes::from(tail));
        }
        // The replies are short. So the server can always write them while it reads the following commands.
        let each = if is_importing { 2 } else { 1 };
        let mut refused = Vec::new();
        for (number, reply) in self.ask(&commands, values.len() * each, 0, deadline).await?.into_iter().enumerate() {
            match reply {
                RespValue::Status(_) => {}
                RespValue::Error(line) => refused.push((number / each, CommandError::of_line(&line))),
                RespValue::Nil | RespValue::Bulk(_) | RespValue::Integer(_) => return Err(nonsense()),
            }
        }
        Ok(refused)
    }

    /// Reads a value of about this length.
    pub(super) async fn get(
        &self,
        key: &str,
        length: u64,
        is_importing: bool,
        deadline: Instant,
    ) -> Result<Option<Bytes>, CommandError> {
        let mut command = asking(is_importing);
        drop(CommandWriter::begin(&mut command, 2).word(b"GET").word(key.as_bytes()));
        let replies = if is_importing { 2 } else { 1 };
        match self.ask(&[Bytes::from(command)], replies, length, deadline).await?.pop() {
            Some(RespValue::Bulk(value)) => Ok(Some(value)),
            Some(RespValue::Nil) => Ok(None),
            Some(RespValue::Error(line)) => Err(CommandError::of_line(&line)),
            Some(RespValue::Status(_) | RespValue::Integer(_)) | None => Err(nonsense()),
        }
    }

    /// Sends commands, and reads `replies` replies.
    async fn ask(
        &self,
        commands: &[Bytes],
        replies: usize,
        length: u64,
        deadline: Instant,
    ) -> Result<Vec<RespValue>, CommandError> {
        let asking = async {
            if let Some(stream) = self.idle()
                && let Ok(answers) = self.ask_over(stream, commands, replies, length).await
            {
                return Ok(answers);
            }
            // The server may have closed the idle connection. A repeated read or write has the same result.
            let run_id = self.run_id.get().map(String::as_str);
            let error = match handshake::open_same(&self.dialer, &self.endpoint, &self.prefix, run_id).await {
                Ok(stream) => return self.ask_over(stream, commands, replies, length).await,
                Err(error) => error,
            };
            match self.shared.as_ref().and_then(|shared| Some((shared, shared.idle()?))) {
                Some((shared, stream)) => shared.ask_over(stream, commands, replies, length).await,
                None => Err(error),
            }
        };
        let answer = tokio::time::timeout_at(deadline, asking).await.map_err(|_| CommandError::Late)?;
        answer.map_err(CommandError::of)
    }

    fn idle(&self) -> Option<RedisStream> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// The stream is kept if the transfer ends well. It is closed if this is dropped before.
    async fn ask_over(
        &self,
        mut stream: RedisStream,
        commands: &[Bytes],
        replies: usize,
        length: u64,
    ) -> RedisResult<Vec<RespValue>> {
        let mut parts = CommandParts(commands.iter().cloned().collect());
        stream.write_all_buf(&mut parts).await?;
        stream.flush().await?;
        let set_aside = length.min(SET_ASIDE) + FRAME;
        let mut input = BytesMut::with_capacity(usize::try_from(set_aside).unwrap_or_default());
        let mut answers = Vec::with_capacity(replies);
        while answers.len() < replies {
            answers.push(handshake::reply(&mut stream, &mut input).await?);
        }
        if input.is_empty() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < TURNS * 2 {
                idle.push(stream);
            }
        }
        Ok(answers)
    }
}

/// The bytes that precede a command, if there are any.
fn asking(is_importing: bool) -> Vec<u8> {
    if is_importing { ASKING.to_vec() } else { Vec::new() }
}

fn nonsense() -> CommandError {
    CommandError::Lost(RedisError::from((ErrorKind::UnexpectedReturnType, "unexpected answer")))
}

/// Pieces that are written in order, many with each system call.
struct CommandParts(VecDeque<Bytes>);

impl Buf for CommandParts {
    fn remaining(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.0.iter().find(|piece| !piece.is_empty()).map_or(&[], |piece| piece)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let pieces = self.0.iter().filter(|piece| !piece.is_empty());
        pieces.zip(slices).map(|(piece, slice)| *slice = IoSlice::new(piece)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(piece) = self.0.front_mut() {
            if count < piece.len() {
                piece.advance(count);
                return;
            }
            count -= piece.len();
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::config::RedisAddress;
    use crate::store::redis_server::RedisServer;

    fn connections(server: &RedisServer, first: Option<RedisStream>) -> BodyConnections {
        let endpoint = StoreEndpoint::Tcp("127.0.0.1".to_owned(), server.port());
        let dialer = Dialer::new(&RedisAddress::plain(endpoint.clone()));
        BodyConnections::new(dialer, endpoint, "onlyonce".to_owned(), first)
    }

    fn patience() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    fn idle(connections: &BodyConnections) -> usize {
        connections.idle.lock().expect("no panic").len()
    }

    #[tokio::test]
    async fn a_connection_that_the_server_closed_meanwhile_is_opened_anew() {
        let server = RedisServer::start();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let stale = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        drop(listener.accept().await.expect("accepted"));
        let connections = connections(&server, Some(RedisStream::Tcp(stale)));
        let body: Vec<Bytes> = (0..200).map(|index| Bytes::from(vec![index; 10_000])).collect();
        let values = [("body", body.clone()), ("other", vec![Bytes::from_static(b"other")])];
        let values = values.map(|(key, pieces)| KeyedValue { key: key.to_owned(), pieces });
        assert!(connections.set(&values, 60_000, false, patience()).await.expect("written").is_empty());
        assert_eq!(connections.get("other", 5, false, patience()).await.expect("an answer"), Some("other".into()));
        let length = 2_000_000;
        let read = connections.get("body", length, false, patience()).await.expect("an answer").expect("a body");
        assert!(read == body.concat());
        assert_eq!(connections.get("none", length, false, patience()).await.expect("an answer"), None);
        // The value is longer than the given length.
        assert!(connections.get("body", 0, false, patience()).await.expect("an answer").expect("a body") == read);
        assert_eq!(idle(&connections), 1);
    }

    #[tokio::test]
    async fn a_transfer_that_nobody_waits_for_any_more_costs_its_own_connection_only() {
        let server = RedisServer::start();
        let connections = connections(&server, None);
        let large = [Bytes::from(vec![7; 1 << 20])];
        let values = [KeyedValue { key: "body".to_owned(), pieces: large.to_vec() }];
        assert!(connections.set(&values, 60_000, false, patience()).await.expect("written").is_empty());
        assert_eq!(idle(&connections), 1);
        server.freeze();
        let late = connections.get("body", 1 << 20, false, Instant::now() + Duration::from_millis(50)).await;
        assert!(matches!(late, Err(CommandError::Late)), "{late:?}");
        assert_eq!(idle(&connections), 0);
        server.thaw();
        let read = connections.get("body", 1 << 20, false, patience()).await.expect("an answer").expect("a body");
        assert!(read == large[0]);
    }

    #[test]
    fn pieces_are_written_whole_however_much_is_taken_at_once() {
        let parts: [&'static [u8]; 5] = [b"*1\r\n", b"", b"large ", b"body", b""];
        for at_once in 1..20 {
            let mut pieces = CommandParts(parts.iter().map(|part| Bytes::from_static(part)).collect());
            let mut written: Vec<u8> = Vec::new();
            while pieces.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = pieces.chunks_vectored(&mut slices);
                let shown: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                assert!(shown.starts_with(pieces.chunk()) && !pieces.chunk().is_empty());
                let taken = at_once.min(shown.len());
                written.extend(&shown[..taken]);
                pieces.advance(taken);
            }
            assert_eq!(written, parts.concat());
        }
    }
}
