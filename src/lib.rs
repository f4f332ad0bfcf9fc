//! onlyonce
pub mod config;
pub mod key;
pub mod record;
pub mod store;
