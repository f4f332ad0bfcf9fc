use crate::uri::{escape_path, normalise_path};

/// The path of a route: literal parts, and parameters (`{name}`, `{*rest}`) between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathPattern<'a> {
    /// One more than there are parameters.
    pub(super) literals: Vec<&'a str>,
    /// What is between the braces.
    pub(super) parameters: Vec<&'a str>,
}

impl<'a> PathPattern<'a> {
    /// Reads `/orders`, `/tenants/{tenant}/orders`, `/v1/{*rest}`. `None` when the braces do not enclose names.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (mut literals, mut parameters) = (Vec::new(), Vec::new());
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (literal, tail) = rest.split_at(open);
            let (parameter, after) = tail.strip_prefix('{')?.split_once('}')?;
            let name = name(parameter);
            if name.is_empty() || !name.chars().all(is_parameter_name) {
                return None;
            }
            literals.push(literal);
            parameters.push(parameter);
            rest = after;
        }
        literals.push(rest);
        Some(Self { literals, parameters })
    }

    /// The names of the parameters.
    pub fn names(&self) -> impl Iterator<Item = &'a str> {
        self.parameters.iter().map(|parameter| name(parameter))
    }

    /// The pattern, its literal parts in normal form.
    pub fn normalised(&self) -> String {
        // Stands for a parameter: only unreserved characters, which normalisation does not change.
        const PLACEHOLDER: &str = "~onlyonce~parameter~";
        let literal = self.literals.join(PLACEHOLDER);
        let plain = normalise_path(&escape_path(&literal)).into_owned();
        self.with_parameters(plain.split(PLACEHOLDER))
    }

    /// These literal parts, with the parameters between them.
    pub(super) fn with_parameters<'p>(&self, mut literals: impl Iterator<Item = &'p str>) -> String {
        let mut out = literals.next().unwrap_or_default().to_owned();
        for (parameter, literal) in self.parameters.iter().zip(literals) {
            out.push_str(&format!("{{{parameter}}}{literal}"));
        }
        out
    }
}

fn name(parameter: &str) -> &str {
    parameter.strip_prefix('*').unwrap_or(parameter)
}

/// Whether the name of a parameter may have this character.
pub fn is_parameter_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_literal_parts_of_a_pattern_are_normalised() {
        let normalised = |text: &str| PathPattern::parse(text).map(|pattern| pattern.normalised());
        let same = |pattern: &str| assert_eq!(normalised(pattern).as_deref(), Some(pattern));
        same("/orders");
        same("/tenants/{tenant}/orders/{id}.json");
        same("/v1/{*rest}");
        assert_eq!(normalised("/%61/{b}/../c").as_deref(), Some("/a/c"));
        assert_eq!(normalised("/{a}/{b}/é").as_deref(), Some("/{a}/{b}/%C3%A9"));
    }

    #[test]
    fn braces_hold_one_name() {
        for pattern in ["/{", "/}", "/{}", "/{a", "/{{a}}", "/{a b}", "/{*}", "/{a{b}}"] {
            assert!(PathPattern::parse(pattern).is_none(), "{pattern}");
        }
    }
}
