//! Enumerations that the file writes as words.

/// A value that is one of a few words.
pub trait Words: Copy + 'static {
    /// Each word and what it stands for, in the order of the documentation.
    const WORDS: &'static [(&'static str, Self)];
}

/// Declares an enumeration with the word for each variant. `Display` writes the word.
macro_rules! words {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $( $(#[$doc:meta])* $variant:ident = $word:literal, )* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name {
            $( $(#[$doc])* $variant, )*
        }

        impl $crate::rule::Words for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$( ($word, Self::$variant) ),*];
        }

        impl $name {
            /// As it is written in the file.
            #[allow(dead_code, reason = "some are only read")]
            $vis const fn word(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

pub(crate) use words;
