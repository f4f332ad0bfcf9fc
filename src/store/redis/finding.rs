//! Findings about a server, for an operator.

use std::sync::Arc;

use serde::Serialize;

use super::connect_error::ConnectError;

/// One finding about a server that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ServerFinding {
    /// The subject, in a word or two.
    pub what: &'static str,
    /// The finding, and what to change if it is a problem.
    pub found: String,
}

/// What the last connect to a node of a cluster has shown.
#[derive(Debug)]
pub struct NodeReport {
    /// Host and port.
    pub node: String,
    /// Findings about a node that can be used, or why it cannot.
    pub found: Result<Vec<ServerFinding>, Arc<ConnectError>>,
}
