//! onlyonce
pub mod admin;
pub mod cli;
pub mod config;
pub mod demo;
pub mod guard;
pub mod key;
pub mod metrics;
pub mod problem;
pub mod proxy;
pub mod record;
pub mod run;
pub mod server;
pub mod store;
pub mod telemetry;
