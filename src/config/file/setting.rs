use super::report::ByteRange;

/// The value of one key, and its source.
#[derive(Debug, Clone, Default)]
pub(super) enum Setting<T> {
    #[default]
    Absent,
    /// Given, and reported as wrong.
    Wrong(ByteRange),
    Given(T, ByteRange),
    /// Set by the preset.
    Preset(T),
    Default(T),
}

impl<T> Setting<T> {
    /// `default` where the key is absent.
    pub(super) fn or(self, default: T) -> Self {
        match self {
            Self::Absent => Self::Default(default),
            said => said,
        }
    }

    /// This setting, else the one of the layer below.
    pub(super) fn over(&self, below: &Self) -> Self
    where
        T: Clone,
    {
        match self {
            Self::Absent => below.clone(),
            said => said.clone(),
        }
    }

    /// The value in the file, if it is valid.
    pub(super) fn given(&self) -> Option<&T> {
        match self {
            Self::Given(value, _) => Some(value),
            Self::Absent | Self::Wrong(_) | Self::Preset(_) | Self::Default(_) => None,
        }
    }

    /// Where it is given.
    pub(super) fn span(&self) -> Option<ByteRange> {
        match self {
            Self::Given(_, span) | Self::Wrong(span) => Some(span.clone()),
            Self::Absent | Self::Preset(_) | Self::Default(_) => None,
        }
    }

    /// The value, unless it is absent or invalid.
    pub(super) fn get(&self) -> Option<&T> {
        match self {
            Self::Given(value, _) | Self::Preset(value) | Self::Default(value) => Some(value),
            Self::Absent | Self::Wrong(_) => None,
        }
    }

    /// The same, owned.
    pub(super) fn take(self) -> Option<T> {
        match self {
            Self::Given(value, _) | Self::Preset(value) | Self::Default(value) => Some(value),
            Self::Absent | Self::Wrong(_) => None,
        }
    }

    /// For optional keys: `Some(None)` where the key is absent, `None` where it is invalid.
    pub(super) fn optional(self) -> Option<Option<T>> {
        match self {
            Self::Absent => Some(None),
            Self::Given(value, _) | Self::Preset(value) | Self::Default(value) => Some(Some(value)),
            Self::Wrong(_) => None,
        }
    }
}
