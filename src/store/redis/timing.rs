//! Limits of connections to Redis.

use std::time::Duration;

/// The limit for opening the connection that listens, and for each of its commands.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// One late reply may be the network's fault. After this many, the connection is at fault.
pub(super) const TIMEOUTS: u32 = 3;
