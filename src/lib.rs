//! onlyonce
pub mod config;
