//! `[log]`

use tracing::Level;

use super::super::LogFormat;
use super::declare::settings;
use super::item::Item;
use super::section::Section;
use super::setting::Setting;
use crate::rule::LogKeys;

settings! {
    /// `[log]`
    #[derive(Debug, Clone)]
    pub struct LogConfig, "log", read as LogTable {
        made {}
        read {}
        keys {
            /// One line of text or one JSON object for each event.
            format: LogFormat = default(Item::word, LogFormat::Text), at_start;
            /// The least severe level that is written.
            level: Level = default(|item| item.choice(&LEVELS), Level::INFO), at_once;
            /// How idempotency keys appear.
            keys: LogKeys = default(Item::word, LogKeys::Hashed), at_once;
        }
    }
}

const LEVELS: [(&str, Level); 5] = [
    ("error", Level::ERROR),
    ("warn", Level::WARN),
    ("info", Level::INFO),
    ("debug", Level::DEBUG),
    ("trace", Level::TRACE),
];
