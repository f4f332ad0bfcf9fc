//! Which answers are stored, which free the key, and which hold it: the tables by status.

use std::fmt;

use http::StatusCode;

use super::words::words;

/// What happens to the record after a complete response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Kept and replayed.
    Store,
    /// Not kept: the key is free for another try.
    Release,
    /// The status means that a gateway behind the proxy lost the request: the outcome is unknown.
    Hold,
}

words! {
    /// `policy`
    pub enum Policy {
        /// Successes are kept, definite failures may be tried again.
        Standard = "standard",
        /// For payments: every answer of the backend is kept, except those that ask for a later retry.
        Strict = "strict",
        /// For webhooks: only successes are kept, everything else may be tried again.
        Lenient = "lenient",
    }
}

/// Gateway statuses after which the request may have run: 502 and 504 (RFC 9110, 15.6), and the 52x that
/// content delivery networks answer with when they lose their origin.
const GATEWAY: [u16; 7] = [502, 504, 520, 521, 522, 523, 524];

/// Statuses that ask for the same request again, later or elsewhere or with other credentials.
const NOT_NOW: [u16; 12] = [307, 308, 401, 403, 407, 408, 409, 421, 423, 425, 429, 503];

impl Policy {
    fn disposition(self, status: u16) -> Disposition {
        if GATEWAY.contains(&status) || !(200..600).contains(&status) {
            return Disposition::Hold;
        }
        let kept = match self {
            Self::Strict => !NOT_NOW.contains(&status),
            Self::Standard | Self::Lenient => matches!(status, 200..400) && !matches!(status, 307 | 308),
        };
        if kept { Disposition::Store } else { Disposition::Release }
    }
}

/// Statuses named in a `store`, `release` or `hold` list: a class (`"4xx"`) or a number (`"422"`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusSet {
    /// `Nxx`
    Class(u16),
    /// One status.
    Status(u16),
}

impl StatusSet {
    /// Reads `"4xx"` (2 to 5) or `"422"` (200 to 599).
    pub fn parse(text: &str) -> Option<Self> {
        let class =
            text.strip_suffix("xx").and_then(|digit| digit.parse().ok()).filter(|class| (2..=5).contains(class));
        let status = || text.parse().ok().filter(|status| text.len() == 3 && (200..600).contains(status));
        class.map(Self::Class).or_else(|| status().map(Self::Status))
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "{class}xx"),
            Self::Status(status) => write!(f, "{status}"),
        }
    }
}

/// A disposition for every status: a policy, overridden by the route's lists.
#[derive(Clone, PartialEq, Eq)]
pub struct PolicyTable {
    base: Policy,
    overrides: Vec<(StatusSet, Disposition)>,
    /// Indexed by status minus 100.
    table: Box<[Disposition; 500]>,
}

impl PolicyTable {
    /// `policy`, overridden by `overrides`. A number beats a class, whatever their order.
    pub fn new(base: Policy, overrides: &[(StatusSet, Disposition)]) -> Self {
        let mut table = Box::new([Disposition::Hold; 500]);
        for (status, slot) in (100..).zip(table.iter_mut()) {
            let named = |wanted| overrides.iter().find(|(set, _)| *set == wanted).map(|(_, disposition)| *disposition);
            *slot = named(StatusSet::Status(status))
                .or_else(|| named(StatusSet::Class(status / 100)))
                .unwrap_or_else(|| base.disposition(status));
        }
        let is_first = |index: usize| overrides[..index].iter().all(|(earlier, _)| *earlier != overrides[index].0);
        let overrides = (0..overrides.len()).filter(|index| is_first(*index)).map(|index| overrides[index]).collect();
        Self { base, overrides, table }
    }

    /// What happens to the record after a complete response with `status`.
    pub fn disposition(&self, status: StatusCode) -> Disposition {
        let index = usize::from(status.as_u16()) - 100;
        self.table.get(index).copied().unwrap_or(Disposition::Hold)
    }

    /// The policy that the lists override.
    pub fn base(&self) -> Policy {
        self.base
    }

    /// The lists that override it.
    pub fn overrides(&self) -> &[(StatusSet, Disposition)] {
        &self.overrides
    }

    /// The statuses from 200 to 599 with this disposition, as inclusive ranges in ascending order.
    pub fn ranges(&self, disposition: Disposition) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for (status, _) in (100..).zip(self.table.iter()).filter(|(status, d)| *status >= 200 && **d == disposition) {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == status => *last = status,
                _ => ranges.push((status, status)),
            }
        }
        ranges
    }
}

impl fmt::Debug for PolicyTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyTable({:?}, store {:?})", self.base, self.ranges(Disposition::Store))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(policy: Policy, disposition: Disposition) -> Vec<(u16, u16)> {
        PolicyTable::new(policy, &[]).ranges(disposition)
    }

    #[test]
    fn standard_keeps_successes_and_frees_definite_failures() {
        use Disposition::*;
        assert_eq!(row(Policy::Standard, Store), [(200, 306), (309, 399)]);
        assert_eq!(row(Policy::Standard, Hold), [(502, 502), (504, 504), (520, 524)]);
        assert_eq!(row(Policy::Standard, Release), [(307, 308), (400, 501), (503, 503), (505, 519), (525, 599)]);
    }

    #[test]
    fn strict_keeps_every_answer_but_not_now() {
        use Disposition::*;
        let released: Vec<u16> = row(Policy::Strict, Release).into_iter().flat_map(|(a, b)| a..=b).collect();
        assert_eq!(released, NOT_NOW);
        assert_eq!(row(Policy::Strict, Hold), [(502, 502), (504, 504), (520, 524)]);
    }

    #[test]
    fn a_number_beats_a_class_and_a_class_beats_the_policy() {
        let lists = [
            (StatusSet::Status(422), Disposition::Store),
            (StatusSet::Class(4), Disposition::Hold),
            (StatusSet::Status(503), Disposition::Hold),
        ];
        let table = PolicyTable::new(Policy::Standard, &lists);
        let of = |status| table.disposition(StatusCode::from_u16(status).expect("a status"));
        assert_eq!(
            (of(422), of(404), of(503), of(500)),
            (Disposition::Store, Disposition::Hold, Disposition::Hold, Disposition::Release)
        );
    }

    #[test]
    fn a_status_outside_the_registry_is_never_taken_for_a_failure() {
        let of = |status| {
            PolicyTable::new(Policy::Lenient, &[]).disposition(StatusCode::from_u16(status).expect("a status"))
        };
        assert_eq!(of(101), Disposition::Hold);
        assert_eq!(of(600), Disposition::Hold);
        assert_eq!(of(999), Disposition::Hold);
    }
}
