//! The commands of requests: claim, settle, renew, release. They use the core's [`Pipeline`].

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use redis::Script;
use tokio::time::Instant;

use super::command_error::CommandError;
use super::commands::{ACQUIRE, RELEASE, RENEW, SETTLE, evalsha, nonzero_millis, strange};
use super::connected::{AcquireMethod, Connected, ServerDuty};
use super::notify::WAITING;
use super::resp::CommandWriter;
use crate::record::{Hex, RecordName, Token};
use crate::store::{Released, Renewed};

/// The key of a record, in parts. It is never needed in one piece.
#[derive(Clone, Copy)]
pub(super) struct RecordKey<'a> {
    prefix: &'a str,
    route: &'a str,
    digest: Hex<16>,
}

impl<'a> RecordKey<'a> {
    pub(super) fn new(prefix: &'a str, name: &'a RecordName) -> Self {
        Self { prefix, route: &name.route, digest: Hex::of(&name.digest) }
    }

    /// `prefix:route:digest`
    pub(super) fn parts(&self) -> [&[u8]; 5] {
        [self.prefix.as_bytes(), b":", self.route.as_bytes(), b":", self.digest.as_bytes()]
    }

    /// The name of the [sign](super::notify) of the record's waiters.
    fn waiting(&self) -> [&[u8]; 7] {
        let [prefix, first, route, second, digest] = self.parts();
        [b"{", prefix, first, route, second, digest, WAITING.as_bytes()]
    }
}

impl fmt::Display for RecordKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.prefix, self.route, self.digest)
    }
}

impl Connected {
    /// Writes `value` if the name is free. Otherwise returns the current value.
    pub(super) async fn acquire(
        &self,
        key: &[&[u8]],
        value: &[u8],
        time_to_live: Duration,
        timeout: Duration,
    ) -> Result<Option<Bytes>, CommandError> {
        let time_to_live = nonzero_millis(time_to_live);
        match self.acquire {
            AcquireMethod::Natively => {
                let answer = self.hot.send(timeout, self.is_importing(), |out| {
                    let set = CommandWriter::begin(out, 7).encoded(1, b"$3\r\nSET\r\n").joined(key).word(value);
                    set.encoded(3, b"$2\r\nNX\r\n$3\r\nGET\r\n$2\r\nPX\r\n").number(time_to_live);
                });
                self.heed_hot(answer.await)
            }
            AcquireMethod::ByScript => self.run(&ACQUIRE, &[key], value, Some(time_to_live), timeout).await,
        }
    }

    /// Renews the lease of `claim`.
    pub(super) async fn renew(
        &self,
        key: RecordKey<'_>,
        claim: &[u8],
        time_to_live: Duration,
        timeout: Duration,
    ) -> Result<Renewed, CommandError> {
        let reply = self.run(&RENEW, &[&key.parts()], claim, Some(nonzero_millis(time_to_live)), timeout).await?;
        match reply.as_deref() {
            Some(b"extended") => Ok(Renewed::Extended),
            Some(b"claimed again") => Ok(Renewed::ClaimedAgain),
            Some(b"lost") => Ok(Renewed::Lost),
            _ => Err(strange()),
        }
    }

    /// Writes the outcome `record`. If another record stays, returns that one.
    pub(super) async fn settle(
        &self,
        key: RecordKey<'_>,
        record: &[u8],
        time_to_live: Duration,
        timeout: Duration,
    ) -> Result<Option<Bytes>, CommandError> {
        let keys: [&[&[u8]]; 2] = [&key.parts(), &key.waiting()];
        self.run(&SETTLE, self.with_sign(&keys), record, Some(nonzero_millis(time_to_live)), timeout).await
    }

    /// Frees the key of a record in flight.
    pub(super) async fn release(
        &self,
        key: RecordKey<'_>,
        token: Token,
        timeout: Duration,
    ) -> Result<Released, CommandError> {
        let keys: [&[&[u8]]; 2] = [&key.parts(), &key.waiting()];
        let reply = self.run(&RELEASE, self.with_sign(&keys), &token.0, None, timeout).await?;
        match reply.as_deref() {
            Some(b"deleted") => Ok(Released::Deleted),
            Some(b"absent") => Ok(Released::Absent),
            Some(b"kept") => Ok(Released::Kept),
            _ => Err(strange()),
        }
    }

    /// The keys of a script that looks for the waiters' sign. In a cluster, the script derives the sign's name itself.
    /// A node that is giving a slot away refuses a command with several keys if one of them does not exist there.
    fn with_sign<'k>(&self, keys: &'k [&'k [&'k [u8]]; 2]) -> &'k [&'k [&'k [u8]]] {
        match self.duty {
            ServerDuty::Alone => keys,
            ServerDuty::Node | ServerDuty::Importing => &keys[..1],
        }
    }

    /// Runs a script, in one round trip unless the server lost its scripts since the connection was opened.
    async fn run(
        &self,
        script: &Script,
        keys: &[&[&[u8]]],
        argument: &[u8],
        number: Option<u64>,
        timeout: Duration,
    ) -> Result<Option<Bytes>, CommandError> {
        let begun = Instant::now();
        let answer = self.hot.send(timeout, self.is_importing(), |out| {
            let command = CommandWriter::begin(out, 4 + keys.len() + usize::from(number.is_some()));
            let command =
                command.encoded(1, b"$7\r\nEVALSHA\r\n").word(script.get_hash().as_bytes()).number(keys.len() as u64);
            let command = keys.iter().fold(command, |command, key| command.joined(key)).word(argument);
            if let Some(number) = number {
                command.number(number);
            }
        });
        let answer = self.heed_hot(answer.await);
        if !answer.as_ref().is_err_and(|fault| fault.says("NOSCRIPT")) {
            return answer;
        }
        // The script did not run. This is rare, so the `redis` crate handles it.
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| key.concat()).collect();
        let mut command = evalsha(script, &keys);
        command.arg(argument).arg(number);
        Box::pin(async move { self.invoke(script, &command, begun + timeout).await }).await
    }

    /// Updates the state of the connection after a hot command. The pipeline counts late replies itself.
    fn heed_hot<T>(&self, answer: Result<T, CommandError>) -> Result<T, CommandError> {
        if let Err(fault) = &answer
            && (matches!(fault, CommandError::Lost(_)) || fault.is_elsewhere())
        {
            self.drop_it();
        }
        answer
    }
}
