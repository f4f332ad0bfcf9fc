//! Connections for large bodies: one transfer at a time on each, written from where it lies, and read into where it stays.
//!
//! They have nothing to do with the connections that records go through: a body that is late, or that nobody waits for any
//! more, costs its own connection and nobody else's.

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
use crate::config::RedisEndpoint;

/// The connections for bodies of one core.
pub(super) struct BodyConnections {
    dialer: Arc<Dialer>,
    endpoint: RedisEndpoint,
    prefix: String,
    /// Which run of the server it is, once that is known.
    run: OnceLock<String>,
    idle: Mutex<Vec<RedisStream>>,
    /// Those of all cores: where none can be opened, one of them that is idle will do.
    shared: Option<Arc<BodyConnections>>,
}

/// What is to be written under a key, in pieces.
pub(super) struct KeyedValue {
    pub(super) key: String,
    pub(super) pieces: Vec<Bytes>,
}

/// Memory that is set aside for a value before it comes; more only as it does.
const SET_ASIDE: u64 = 4 * 1024 * 1024;
/// What a reply has beside its value.
const FRAME: u64 = 32;

impl BodyConnections {
    /// With a connection that is open already, if there is one. More are opened as they are needed.
    pub(super) fn new(
        dialer: Arc<Dialer>,
        endpoint: RedisEndpoint,
        prefix: String,
        first: Option<RedisStream>,
    ) -> Self {
        let (run, idle) = (OnceLock::new(), Mutex::new(first.into_iter().collect()));
        Self { dialer, endpoint, prefix, run, idle, shared: None }
    }

    /// For a core, beside those that are shared: a server may have as many connections as it takes.
    pub(super) fn on_core(shared: &Arc<Self>) -> Self {
        let Self { dialer, endpoint, prefix, run, .. } = &**shared;
        let own = Self::new(dialer.clone(), endpoint.clone(), prefix.clone(), None);
        Self { shared: Some(shared.clone()), run: run.clone(), ..own }
    }

    /// From now on, no other server may answer.
    pub(super) fn set_run(&self, run: &str) {
        // It is the same for as long as the connections are.
        let _ = self.run.set(run.to_owned());
    }

    /// Writes values, whose pieces are copied nowhere. Which of them the server refuses, and why.
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
        // The replies are short: the server can always write them while it reads what follows.
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

    /// Sends commands, and reads so many replies.
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
            // The server may have closed one that was idle; to read or write the same twice is the same.
            let run = self.run.get().map(String::as_str);
            let error = match handshake::open_same(&self.dialer, &self.endpoint, &self.prefix, run).await {
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

    /// The stream is kept for the next if it ends well; dropped in the middle, it is closed.
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

/// What comes before a command, if anything does.
fn asking(is_importing: bool) -> Vec<u8> {
    if is_importing { ASKING.to_vec() } else { Vec::new() }
}

fn nonsense() -> CommandError {
    CommandError::Lost(RedisError::from((ErrorKind::UnexpectedReturnType, "unexpected answer")))
}

/// Pieces that are written one behind the other, many with each call of the system.
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
        let endpoint = RedisEndpoint::Tcp("127.0.0.1".to_owned(), server.port());
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
        // Longer than was told, and not there to be told of.
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
