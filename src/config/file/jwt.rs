//! `[jwt]`

use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};

use super::declare::keys;
use super::item::Item;
use super::pem;
use super::report::{ByteRange, FileReport};
use super::section::Section;
use super::setting::Setting;
use crate::rule::{ExpectedClaims, Jwt, RSA_BITS, Selector, TokenKey, Unusable, Unverified, Verification, unusable};

const ONE_OF: &str = "say one of them:\n  secret = \"env:JWT_SECRET\"    # for HS256, HS384, HS512\n  \
                      public_key = \"issuer.pem\"\n  jwks = \"jwks.json\"\n  \
                      verified_by_edge = true     # a gateway has verified every token";
const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

keys! {
    /// The keys of `[jwt]`.
    struct JwtKeys {
        secret: DecodingKey = secret;
        public_key: DecodingKey = public_key;
        jwks: JwkSet = jwks;
        verified_by_edge: bool = Item::boolean;
        algorithms: Vec<(Algorithm, ByteRange)> = |item| item.list(algorithm);
        issuer: String = Item::owned_text;
        audience: String = Item::owned_text;
        unverified: Unverified = Item::word;
    }
}

/// `[jwt]` as read from the file.
pub(super) struct JwtTable {
    span: Option<ByteRange>,
    keys: JwtKeys,
}

impl JwtTable {
    pub(super) fn read(section: Section<'_>) -> Self {
        let table = Self { span: section.span(), keys: JwtKeys::read(&section) };
        section.finish();
        table
    }

    pub(super) fn is_there(&self) -> bool {
        self.span.is_some()
    }

    /// `Some(None)` where the file has no such table.
    pub(super) fn build(self, report: &FileReport<'_>) -> Option<Option<Jwt>> {
        let Self { span: Some(span), keys } = self else { return Some(None) };
        let JwtKeys { secret, public_key, jwks, verified_by_edge, algorithms, issuer, audience, unverified } = keys;
        let by_edge = *verified_by_edge.clone().or(false).get()?;
        let unverified = unverified.or(Unverified::OwnCaller).take()?;
        let sources = [
            ("secret", secret.span()),
            ("public_key", public_key.span()),
            ("jwks", jwks.span()),
            ("verified_by_edge", verified_by_edge.span().filter(|_| by_edge)),
        ];
        let given: Vec<(&str, ByteRange)> =
            sources.into_iter().filter_map(|(name, span)| span.map(|span| (name, span))).collect();
        match given.as_slice() {
            [] => {
                report.add(Some(span), "[jwt] does not say how tokens are verified", ONE_OF);
                return None;
            }
            [_] => {}
            [(first, _), .., (last, span)] => {
                let message = format!("jwt.{last} and jwt.{first} are two ways to verify a token");
                report.add(Some(span.clone()), message, "leave one of them: tokens are verified in one way");
                return None;
            }
        }
        if by_edge {
            let unused = [("algorithms", algorithms.span()), ("issuer", issuer.span()), ("audience", audience.span())];
            for (name, span) in unused.into_iter().filter(|(_, span)| span.is_some()) {
                let message = format!("jwt.{name} has no effect: with verified_by_edge, tokens are not verified here");
                report.add(span, message, "leave it out, or have tokens verified here: jwks = \"jwks.json\"");
            }
            return Some(Some(Jwt { verification: Verification::ByEdge, unverified }));
        }
        let expected = ExpectedClaims { issuer: issuer.optional()?, audience: audience.optional()? };
        if algorithms.span().is_none() || algorithms.get().is_some_and(Vec::is_empty) {
            let message = "jwt.algorithms is missing or empty: it says what tokens may be signed with";
            let advice = "list those that the issuer uses: algorithms = [\"RS256\"]";
            report.add(algorithms.span().or(Some(span)), message, advice);
            return None;
        }
        let algorithms = algorithms.take()?;
        let only = |key: DecodingKey, what: &str| {
            of_family(&algorithms, key.family(), what, report)?;
            let algorithms = algorithms.iter().map(|(algorithm, _)| *algorithm).collect();
            Some(vec![TokenKey::new(None, key, algorithms, &expected)])
        };
        let keys = match (secret.take(), public_key.take()) {
            (Some(secret), _) => only(secret, "a secret")?,
            (None, Some(key)) => only(key, "this public key")?,
            (None, None) => of_set(&jwks, &algorithms, &expected, report)?,
        };
        Some(Some(Jwt { verification: Verification::Keys(keys.into()), unverified }))
    }
}

/// A `jwt:` selector needs `[jwt]`.
pub(super) fn selectors_can_be_read(has_table: bool, selectors: &Setting<Vec<Selector>>, report: &FileReport<'_>) {
    let by_claim = |selector: &&Selector| matches!(selector, Selector::Jwt(_));
    if let Some(selector) = selectors.get().into_iter().flatten().find(by_claim).filter(|_| !has_table) {
        let message = format!("\"{selector}\" needs to know how tokens are verified: there is no [jwt]");
        report.add(selectors.span(), message, format!("add a table [jwt], and {ONE_OF}"));
    }
}

fn secret(item: &Item<'_>) -> Option<DecodingKey> {
    let text = item.text()?;
    if text.value.len() >= 16 {
        return Some(DecodingKey::from_secret(text.value.as_bytes()));
    }
    item.refuse(
        format!("jwt.secret has only {} bytes", text.value.len()),
        "it is the one that the issuer signs with, 16 bytes or more",
    )
}

fn public_key(item: &Item<'_>) -> Option<DecodingKey> {
    let text = pem::text(item)?;
    if text.contains("PRIVATE KEY") {
        let advice = "only the issuer may have that one; its other half: openssl pkey -in KEY -pubout";
        return item.refuse("jwt.public_key holds a private key", advice);
    }
    let pem = text.as_bytes();
    let key = DecodingKey::from_rsa_pem(pem)
        .or_else(|_| DecodingKey::from_ec_pem(pem))
        .or_else(|_| DecodingKey::from_ed_pem(pem));
    let Ok(key) = key else {
        let advice = "what is right begins with a line -----BEGIN PUBLIC KEY-----, and is of RSA, ECDSA or Ed25519";
        return item.refuse("jwt.public_key holds no public key that can be read", advice);
    };
    match unusable(&key) {
        None => Some(key),
        Some(why) => {
            let (message, advice) = refused(why);
            item.refuse(message, advice)
        }
    }
}

fn jwks(item: &Item<'_>) -> Option<JwkSet> {
    let text = pem::text(item)?;
    match serde_json::from_str(&text) {
        Ok(set) => Some(set),
        Err(_) => item.refuse(
            "jwt.jwks holds no JSON Web Key Set (RFC 7517, 5)",
            "it is what the issuer publishes, often under /.well-known/jwks.json: {\"keys\": [{\"kty\": \"RSA\", …}]}",
        ),
    }
}

fn algorithm(item: &Item<'_>) -> Option<Algorithm> {
    item.choice(&ALGORITHMS)
}

/// The algorithms must be of the key's family. Otherwise a public key could be used as a shared secret.
fn of_family(
    algorithms: &[(Algorithm, ByteRange)],
    family: AlgorithmFamily,
    key: &str,
    report: &FileReport<'_>,
) -> Option<()> {
    let mut right = true;
    for (algorithm, span) in algorithms {
        if algorithm.family() != family {
            right = false;
            let fitting: Vec<String> = ALGORITHMS
                .iter()
                .filter(|(_, other)| other.family() == family)
                .map(|(name, _)| format!("\"{name}\""))
                .collect();
            let message = format!("\"{algorithm:?}\" does not go with {key}");
            report.add(Some(span.clone()), message, format!("with it go {}", fitting.join(", ")));
        }
    }
    right.then_some(())
}

/// The message for a public key that cannot verify any token.
fn refused(why: Unusable) -> (String, String) {
    match why {
        Unusable::RsaBits(bits) => (
            format!("jwt.public_key is an RSA key of {bits} bits"),
            format!("tokens are verified with RSA keys of {} to {} bits", RSA_BITS.start(), RSA_BITS.end()),
        ),
        Unusable::Point => (
            "jwt.public_key is on a curve or in a form that is not supported".into(),
            "P-256 and P-384 are right, not compressed: openssl ec -pubin -in KEY -pubout -conv_form uncompressed"
                .into(),
        ),
        Unusable::Garbled => (
            "jwt.public_key holds no public key that can be read".into(),
            "what is right is of RSA, ECDSA or Ed25519".into(),
        ),
    }
}

/// The keys of a set that may sign with one of `algorithms`. A set may hold others, for encryption or other services.
fn of_set(
    jwks: &Setting<JwkSet>,
    algorithms: &[(Algorithm, ByteRange)],
    expected: &ExpectedClaims,
    report: &FileReport<'_>,
) -> Option<Vec<TokenKey>> {
    let mut keys = Vec::new();
    for jwk in &jwks.get()?.keys {
        if let AlgorithmParameters::OctetKey(_) = jwk.algorithm {
            let advice =
                "a set is published, so it has public keys only; for a secret: jwt.secret = \"env:JWT_SECRET\"";
            report.add(jwks.span(), "jwt.jwks holds a secret (\"kty\": \"oct\")", advice);
            return None;
        }
        if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
            continue;
        }
        let Ok(key) = DecodingKey::from_jwk(jwk) else { continue };
        if unusable(&key).is_some() {
            continue;
        }
        let own = jwk.common.key_algorithm;
        let fits = |algorithm: &Algorithm| {
            algorithm.family() == key.family() && own.is_none_or(|own| own == KeyAlgorithm::from(*algorithm))
        };
        let fitting: Vec<Algorithm> = algorithms.iter().map(|(algorithm, _)| *algorithm).filter(fits).collect();
        if !fitting.is_empty() {
            keys.push(TokenKey::new(jwk.common.key_id.clone(), key, fitting, expected));
        }
    }
    if keys.is_empty() {
        let message = "jwt.jwks has no key for any of jwt.algorithms";
        let advice = "list the algorithms that the issuer uses: \"RS256\" and \"ES256\" are common";
        report.add(jwks.span(), message, advice);
        return None;
    }
    Some(keys)
}
