//! The set of known fields in a head, found in one pass over its names and checked before each look-up. Twenty-five
//! look-ups for each request took 80 to 150 instructions each, and found almost nothing.

use std::ops::BitOr;

use http::HeaderMap;

/// A set of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fields(u32);

impl Fields {
    pub(super) const CONNECTION: Self = Self(1);
    pub(super) const TE: Self = Self(1 << 1);
    pub(super) const TRANSFER_ENCODING: Self = Self(1 << 2);
    pub(super) const UPGRADE: Self = Self(1 << 3);
    /// Any other hop-by-hop field.
    pub(super) const OTHER_HOPS: Self = Self(1 << 4);
    pub(super) const EXPECT: Self = Self(1 << 5);
    /// A method override.
    pub(super) const OVERRIDE: Self = Self(1 << 6);
    /// `Onlyonce-*`
    pub(super) const OURS: Self = Self(1 << 7);
    /// Some name has characters that backends may read as a hyphen (`rule::is_foldable`), so it may be another spelling
    /// of any known field. The other bits stand for the exact spelling only.
    pub(super) const RESPELLED: Self = Self(1 << 8);
    pub(super) const ACCEPT: Self = Self(1 << 9);
    pub(super) const ACCEPT_ENCODING: Self = Self(1 << 10);
    pub(super) const PREFER: Self = Self(1 << 11);
    pub(super) const TRACEPARENT: Self = Self(1 << 12);
    pub(super) const CONTENT_LENGTH: Self = Self(1 << 13);
    pub(super) const FORWARDED: Self = Self(1 << 14);
    pub(super) const FORWARDED_FOR: Self = Self(1 << 15);
    pub(super) const FORWARDED_HOST: Self = Self(1 << 16);
    pub(super) const FORWARDED_PROTO: Self = Self(1 << 17);

    const NONE: Self = Self(0);

    /// The fields of a head.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::NONE, |found, name| found | Self::named(name.as_str()))
    }

    /// Whether any of `wanted` is there.
    pub(super) fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }

    /// Compares the length first: it tells most names apart.
    fn named(name: &str) -> Self {
        match (name.len(), name.as_bytes()) {
            (2, b"te") => Self::TE,
            // Frequent, and not in the set: their characters need not be checked.
            (4, b"host" | b"date") => Self::NONE,
            (6, b"server") => Self::NONE,
            (8, b"location") => Self::NONE,
            (6, b"accept") => Self::ACCEPT,
            (6, b"expect") => Self::EXPECT,
            (6, b"prefer") => Self::PREFER,
            (7, b"upgrade") => Self::UPGRADE,
            (9, b"forwarded") => Self::FORWARDED,
            (10, b"connection") => Self::CONNECTION,
            (10, b"keep-alive") => Self::OTHER_HOPS,
            (10, b"user-agent") => Self::NONE,
            (11, b"traceparent") => Self::TRACEPARENT,
            (12, b"content-type") => Self::NONE,
            (13, b"x-http-method") => Self::OVERRIDE,
            (13, b"authorization") => Self::NONE,
            (14, b"content-length") => Self::CONTENT_LENGTH,
            (14, b"http2-settings") => Self::OTHER_HOPS,
            (15, b"accept-encoding") => Self::ACCEPT_ENCODING,
            (15, b"x-forwarded-for") => Self::FORWARDED_FOR,
            (15, b"idempotency-key") => Self::NONE,
            (16, b"proxy-connection") => Self::OTHER_HOPS,
            (16, b"x-forwarded-host") => Self::FORWARDED_HOST,
            (17, b"transfer-encoding") => Self::TRANSFER_ENCODING,
            (17, b"x-method-override") => Self::OVERRIDE,
            (17, b"x-forwarded-proto") => Self::FORWARDED_PROTO,
            (18, b"proxy-authenticate") => Self::OTHER_HOPS,
            (19, b"proxy-authorization") => Self::OTHER_HOPS,
            (22, b"x-http-method-override") => Self::OVERRIDE,
            (_, other) => {
                let ours = if other.starts_with(b"onlyonce-") { Self::OURS } else { Self::NONE };
                let stands = |byte: &u8| STANDS[usize::from(*byte)];
                if other.iter().all(stands) { ours } else { ours | Self::RESPELLED }
            }
        }
    }
}

/// Letters, digits and the hyphen: every backend reads them as they are.
const STANDS: [bool; 256] = {
    let mut stands = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        stands[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'-';
        byte += 1;
    }
    stands
};

impl BitOr for Fields {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;
    use crate::key;
    use crate::rule::{is_foldable, may_begin_with};

    /// What each bit stands for.
    const NAMES: [(Fields, &[&str]); 16] = [
        (Fields::CONNECTION, &["connection"]),
        (Fields::TE, &["te"]),
        (Fields::TRANSFER_ENCODING, &["transfer-encoding"]),
        (Fields::UPGRADE, &["upgrade"]),
        (
            Fields::OTHER_HOPS,
            &["keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "http2-settings"],
        ),
        (Fields::EXPECT, &["expect"]),
        (Fields::OVERRIDE, &["x-http-method-override", "x-http-method", "x-method-override"]),
        (Fields::ACCEPT, &["accept"]),
        (Fields::ACCEPT_ENCODING, &["accept-encoding"]),
        (Fields::PREFER, &["prefer"]),
        (Fields::TRACEPARENT, &["traceparent"]),
        (Fields::CONTENT_LENGTH, &["content-length"]),
        (Fields::FORWARDED, &["forwarded"]),
        (Fields::FORWARDED_FOR, &["x-forwarded-for"]),
        (Fields::FORWARDED_HOST, &["x-forwarded-host"]),
        (Fields::FORWARDED_PROTO, &["x-forwarded-proto"]),
    ];

    fn holds(headers: &HeaderMap) {
        let fields = Fields::of(headers);
        for (bit, names) in NAMES {
            let is_there = names.iter().any(|name| headers.contains_key(*name));
            assert_eq!(fields.has(bit), is_there, "{names:?} in {headers:?}");
        }
        let is_any = |is: fn(&HeaderName) -> bool| headers.keys().any(is);
        assert_eq!(fields.has(Fields::RESPELLED), is_any(is_foldable), "{headers:?}");
        assert_eq!(fields.has(Fields::OURS), is_any(|name| name.as_str().starts_with("onlyonce-")), "{headers:?}");
        // Without either bit, no look-up is needed.
        if !fields.has(Fields::OURS | Fields::RESPELLED) {
            assert!(!is_any(|name| may_begin_with(name, "onlyonce-")), "{headers:?}");
        }
        if !fields.has(Fields::OVERRIDE | Fields::RESPELLED) {
            assert!(!is_any(key::is_override) && key::overriding_methods(headers).is_empty(), "{headers:?}");
        }
    }

    /// Names that matter, names that nearly do, and others.
    pub(in crate::proxy) fn name() -> impl Strategy<Value = HeaderName> {
        let known: Vec<&str> = NAMES.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let more = [
            "host",
            "user-agent",
            "content-type",
            "authorization",
            "idempotency-key",
            "onlyonce-attempt",
            "via",
            "date",
            "server",
            "location",
        ];
        let known = proptest::sample::select([known, more.to_vec()].concat());
        let respelled = (known.clone(), any::<prop::sample::Index>(), "[-_.~!a-z0-9]").prop_map(|(name, at, put)| {
            let at = at.index(name.len());
            format!("{}{put}{}", &name[..at], &name[at + 1..])
        });
        let names = prop_oneof![
            3 => known.clone().prop_map(str::to_owned),
            2 => known.prop_map(|name| name.replace('-', "_").to_uppercase()),
            2 => respelled,
            1 => "[a-z][-a-z0-9_.]{0,24}",
        ];
        names.prop_filter_map("a name", |name| HeaderName::from_bytes(name.as_bytes()).ok())
    }

    #[test]
    fn every_name_is_found_by_itself() {
        for (_, names) in NAMES {
            for name in names {
                holds(&HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("1"))]));
            }
        }
        assert_eq!(Fields::of(&HeaderMap::new()), Fields::NONE);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn the_pass_finds_what_look_ups_find(names in proptest::collection::vec(name(), 0..12)) {
            let value = HeaderValue::from_static("1");
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(name, value.clone());
            }
            holds(&headers);
        }
    }
}
