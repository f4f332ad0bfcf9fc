use std::ops::RangeInclusive;
use std::time::Duration;

/// What a value is to look like, as far as an editor can check it. Any string may also be `"env:NAME"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Shape {
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
    /// The same, and one element may stand without brackets.
    OneOrMore(Vec<Shape>),
    Table,
    /// `[[name]]`
    Tables,
}
