use std::ops::RangeInclusive;
use std::time::Duration;

/// The form of a value that an editor can check. Any string may also be `"env:NAME"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    Text,
    /// One of these words.
    Choice(Vec<String>),
    Duration {
        least: Duration,
    },
    Size,
    Number(RangeInclusive<u64>),
    /// This word, or a number.
    ChoiceOrNumber(String, RangeInclusive<u64>),
    Boolean,
    /// Each element is any of these.
    List(Vec<Shape>),
    /// The same, where a single element needs no brackets.
    OneOrMore(Vec<Shape>),
    Table,
    /// `[[name]]`
    Tables,
    /// `[name.ANY]`: tables under names that the file gives.
    NamedTables,
}
