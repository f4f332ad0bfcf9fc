use std::fmt;

/// An RFC 6901 pointer, its reference tokens unescaped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct JsonPointer(Vec<String>);

impl JsonPointer {
    /// The empty pointer: the whole document.
    pub fn whole() -> Self {
        Self(Vec::new())
    }

    /// Reads `/a/b~1c`. The empty pointer (the whole document) is refused: it names no member, and few places take it.
    pub fn parse(text: &str) -> Option<Self> {
        let tokens = text.strip_prefix('/')?;
        tokens.split('/').map(unescape).collect::<Option<_>>().map(Self)
    }

    /// Reads `a.b.c`, which has no escapes.
    pub fn parse_dotted(text: &str) -> Option<Self> {
        let tokens: Vec<String> = text.split('.').map(str::to_owned).collect();
        (!tokens.iter().any(String::is_empty)).then_some(Self(tokens))
    }

    /// The dotted form; `None` where there is none.
    pub(super) fn dotted(&self) -> Option<String> {
        let is_plain = |token: &String| !token.is_empty() && !token.contains(['.', '/']);
        self.0.iter().all(is_plain).then(|| self.0.join("."))
    }

    /// The reference tokens from the root inwards.
    pub fn tokens(&self) -> &[String] {
        &self.0
    }
}

/// RFC 6901, 4: `~1` is `/`, `~0` is `~`; any other `~` is an error.
fn unescape(token: &str) -> Option<String> {
    let mut out = String::with_capacity(token.len());
    let mut chars = token.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '~' => match chars.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

impl fmt::Display for JsonPointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}
