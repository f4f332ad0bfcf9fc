use super::report::ByteRange;

/// What is known about one key.
#[derive(Debug, Clone, Default)]
pub(super) enum Setting<T> {
    #[default]
    Absent,
    /// Given, and reported as wrong.
    Wrong(ByteRange),
    Given(T, ByteRange),
    /// What the preset stands for.
    Preset(T),
    Default(T),
}

impl<T> Setting<T> {
    /// `default` where the file says nothing.
    pub(super) fn or(self, default: T) -> Self {
        match self {
            Self::Absent => Self::Default(default),
            said => said,
        }
    }

    /// What this layer says, else what the layer below says.
    pub(super) fn over(&self, below: &Self) -> Self
    where
        T: Clone,
    {
        match self {
            Self::Absent => below.clone(),
            said => said.clone(),
        }
    }

    /// What the file says, if it is right.
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

    /// The value, unless there is none or it was reported as wrong.
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

    /// Optional keys: `None` where the file says nothing, no answer at all where it is wrong.
    pub(super) fn optional(self) -> Option<Option<T>> {
        match self {
            Self::Absent => Some(None),
            Self::Given(value, _) | Self::Preset(value) | Self::Default(value) => Some(Some(value)),
            Self::Wrong(_) => None,
        }
    }
}
