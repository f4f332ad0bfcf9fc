//! onlyonce
pub mod config;
pub mod guard;
pub mod key;
pub mod metrics;
pub mod record;
pub mod store;
