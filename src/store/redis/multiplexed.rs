//! Connections of the `redis` crate for all commands that are not hot. They use this project's stream and deadlines.

use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, ErrorKind, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, RedisResult,
};
use tokio_util::task::AbortOnDropHandle;

use super::stream::Dialer;
use crate::config::StoreEndpoint;

/// A connection of the `redis` crate. It is closed with its last clone.
#[derive(Clone)]
pub(super) struct Multiplexed {
    connection: MultiplexedConnection,
    _driver: Arc<AbortOnDropHandle<()>>,
}

impl Multiplexed {
    /// The handle that the crate's commands need.
    pub(super) fn handle(&self) -> MultiplexedConnection {
        self.connection.clone()
    }
}

/// Opens one connection, with RESP3 if the server supports it. Only with RESP3 does the crate report a closed
/// connection at once.
pub(super) async fn open(
    dialer: &Dialer,
    endpoint: &StoreEndpoint,
    on_push: impl Fn(PushInfo) + Send + Sync + 'static,
) -> RedisResult<Multiplexed> {
    let on_push = move |push| {
        on_push(push);
        Ok::<_, std::convert::Infallible>(())
    };
    // The calls have their own deadlines.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(512);
    let info = info(dialer).await?;
    match over(dialer, endpoint, &info, config.clone().set_push_sender(on_push)).await {
        Err(error) if refuses_hello(&error) => {
            let info = info.set_protocol(ProtocolVersion::RESP2);
            over(dialer, endpoint, &info, config).await
        }
        other => other,
    }
}

async fn over(
    dialer: &Dialer,
    endpoint: &StoreEndpoint,
    info: &RedisConnectionInfo,
    config: AsyncConnectionConfig,
) -> RedisResult<Multiplexed> {
    let stream = dialer.open(endpoint).await?;
    let (connection, driver) = MultiplexedConnection::new_with_config(info, stream, config).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with the connection")]
    let driver = AbortOnDropHandle::new(tokio::spawn(driver));
    Ok(Multiplexed { connection, _driver: Arc::new(driver) })
}

async fn info(dialer: &Dialer) -> RedisResult<RedisConnectionInfo> {
    let mut info = RedisConnectionInfo::default()
        .set_db(dialer.database)
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name("onlyonce", env!("CARGO_PKG_VERSION"));
    if let Some(username) = &dialer.username {
        info = info.set_username(username);
    }
    if let Some(password) = dialer.password().await? {
        info = info.set_password(password.expose());
    }
    Ok(info)
}

/// Whether the server has no `HELLO`, or does not permit it.
fn refuses_hello(error: &RedisError) -> bool {
    let unknown = || error.detail().is_some_and(|detail| detail.starts_with("unknown command"));
    error.kind() == ErrorKind::RESP3NotSupported
        || error.code() == Some("NOPROTO")
        || error.code() == Some("ERR") && unknown()
}
