//! Opens the connection of a [`Pipeline`](super::pipeline::Pipeline): user, database, and a first reply.

use bytes::BytesMut;
use redis::{ErrorKind, RedisError, RedisResult};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::command_error::CommandError;
use super::facts::field;
use super::resp::{CommandWriter, RespValue, take_reply};
use super::stream::{Dialer, RedisStream};
use crate::config::StoreEndpoint;

/// An open connection, and the run ID of its server, if the server reports it.
pub(super) struct Opened {
    pub(super) stream: RedisStream,
    pub(super) run_id: Option<String>,
}

/// The same, but only if the server is the one that the other connections use. One name may lead to several servers,
/// for example after a failover. A server that does not report its run ID is accepted.
pub(super) async fn open_same(
    dialer: &Dialer,
    endpoint: &StoreEndpoint,
    prefix: &str,
    run_id: Option<&str>,
) -> RedisResult<RedisStream> {
    let opened = open(dialer, endpoint, prefix).await?;
    match (run_id, &opened.run_id) {
        (Some(run_id), Some(own)) if run_id != own => {
            Err(RedisError::from((ErrorKind::Io, "another server than before answers there")))
        }
        (_, _) => Ok(opened.stream),
    }
}

/// Opens a connection on this runtime. It counts as open only after a reply, because a server that is at its limit
/// accepts a connection and then refuses it.
pub(super) async fn open(dialer: &Dialer, endpoint: &StoreEndpoint, prefix: &str) -> RedisResult<Opened> {
    let password = dialer.password().await?;
    let mut stream = dialer.open(endpoint).await?;
    let mut out = Vec::new();
    let mut asked = 1;
    if let Some(password) = &password {
        asked += 1;
        match &dialer.username {
            Some(username) => {
                let auth = CommandWriter::begin(&mut out, 3).word(b"AUTH").word(username.as_bytes());
                auth.word(password.expose().as_bytes());
            }
            None => drop(CommandWriter::begin(&mut out, 2).word(b"AUTH").word(password.expose().as_bytes())),
        }
    }
    if dialer.database != 0 {
        asked += 1;
        let select = CommandWriter::begin(&mut out, 2).word(b"SELECT");
        select.number(u64::try_from(dialer.database).unwrap_or_default());
    }
    // Every sidecar may send this command. Its result does not matter.
    drop(CommandWriter::begin(&mut out, 2).word(b"PTTL").joined(&[prefix.as_bytes(), b":digest-key"]));
    drop(CommandWriter::begin(&mut out, 2).word(b"INFO").word(b"server"));
    stream.write_all(&out).await?;
    stream.flush().await?;

    let mut input = BytesMut::new();
    for left in (0..asked).rev() {
        match reply(&mut stream, &mut input).await? {
            RespValue::Error(line) => match CommandError::of_line(&line) {
                // The examiner reports missing permissions better. In a cluster, the name may belong to another node.
                fault if left == 0 && (fault.is_permission() || fault.says("unknown command")) => {}
                fault if left == 0 && fault.is_elsewhere_in_cluster() => {}
                CommandError::Refused(_, error) | CommandError::Lost(error) => return Err(error),
                CommandError::Late | CommandError::Full => return Err(nonsense()),
            },
            RespValue::Status(_) | RespValue::Integer(_) => {}
            RespValue::Nil | RespValue::Bulk(_) => return Err(nonsense()),
        }
    }
    // Many users lack the permission for `INFO`.
    let run_id = match reply(&mut stream, &mut input).await? {
        RespValue::Bulk(info) => std::str::from_utf8(&info).ok().and_then(|info| field(info, "run_id")),
        RespValue::Nil | RespValue::Error(_) | RespValue::Status(_) | RespValue::Integer(_) => None,
    };
    if input.is_empty() { Ok(Opened { stream, run_id }) } else { Err(nonsense()) }
}

pub(super) async fn reply(stream: &mut RedisStream, input: &mut BytesMut) -> RedisResult<RespValue> {
    loop {
        if let Some(reply) = take_reply(input).map_err(|_| nonsense())? {
            return Ok(reply);
        }
        if stream.read_buf(input).await? == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
    }
}

fn nonsense() -> RedisError {
    RedisError::from((ErrorKind::UnexpectedReturnType, "unexpected answer"))
}
