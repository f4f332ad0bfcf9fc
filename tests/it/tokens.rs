//! Callers identified by a claim of their bearer token.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};

use crate::support::*;

const SECRET: &str = "a secret of the issuer's, long enough";

async fn with(jwt: &str, route: &str) -> (Backend, Sidecar) {
    let backend = Backend::start().await;
    let sidecar = Setup::new(&backend.url()).with("jwt", jwt).route(route).start().await;
    (backend, sidecar)
}

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    i64::try_from(now).expect("before the end of time") + seconds
}

fn signed(claims: &Value) -> String {
    issue(&Header::new(Algorithm::HS256), claims, &IssuerKey::secret(SECRET.as_bytes()))
}

fn order(token: &str) -> Request {
    post("/orders").line("Idempotency-Key: k").by(token).json("{}")
}

/// Each pair is two tokens with the same key: the second request is a replay, or another caller's request.
async fn told_apart(jwt: &str, scope: &str, pairs: &[(String, String, bool)]) {
    for (index, (first, second, same)) in pairs.iter().enumerate() {
        let (backend, sidecar) = with(jwt, &format!("scope = [\"{scope}\"]")).await;
        assert_eq!(sidecar.ask(&order(first)).await.status, 201);
        assert_eq!(sidecar.ask(&order(second)).await.is_replay(), *same, "{jwt} {scope}, pair {index}");
        assert_eq!(backend.count(), if *same { 1 } else { 2 });
    }
}

fn secret(more: &str) -> String {
    format!("secret = \"{SECRET}\"\nalgorithms = [\"HS256\"]\n{more}")
}

#[tokio::test]
async fn a_refreshed_token_is_the_same_caller() {
    let token = |sub: Value, exp: i64| signed(&json!({ "sub": sub, "exp": in_seconds(exp), "jti": exp }));
    let alice = |exp| token(json!("alice"), exp);
    told_apart(
        &secret(""),
        "jwt:sub",
        &[
            (alice(60), alice(3600), true),
            (alice(60), token(json!("bob"), 60), false),
            // Types are distinguished, and numbers are not rounded.
            (token(json!(1), 60), token(json!("1"), 60), false),
            (token(json!(9_007_199_254_740_993_u64), 60), token(json!(9_007_199_254_740_992_u64), 60), false),
        ],
    )
    .await;
    let tenant = |tenant: &str| {
        signed(&json!({ "sub": "alice", "realm": { "tenant": tenant }, "https://example.com/tenant": tenant }))
    };
    for claim in ["jwt:realm.tenant", "jwt:/https:~1~1example.com~1tenant"] {
        told_apart(&secret(""), claim, &[(tenant("a"), tenant("a"), true), (tenant("a"), tenant("b"), false)]).await;
    }
}

/// Invalid tokens of every kind, except unsigned ones.
fn not_believed() -> Vec<String> {
    let claims = |more: Value| {
        let mut claims = base_claims();
        claims.as_object_mut().expect("claims").extend(more.as_object().expect("claims").clone());
        claims
    };
    let alice = signed(&base_claims());
    let payload = alice.split('.').nth(1).expect("claims").to_owned();
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let other_key = IssuerKey::secret(b"another secret, also long enough");
    let critical = Header { crit: Some(vec!["exp-soon".to_owned()]), ..Header::new(Algorithm::HS256) };
    let mut expired = claims(json!({ "exp": in_seconds(-3600) }));
    expired["sub"] = json!("bob");
    vec![
        issue(&critical, &claims(json!({})), &IssuerKey::secret(SECRET.as_bytes())),
        // Signed by a key that is not loaded.
        issue(&Header::new(Algorithm::HS256), &claims(json!({})), &other_key),
        issue(&Header::new(Algorithm::HS384), &claims(json!({})), &IssuerKey::secret(SECRET.as_bytes())),
        format!("{}.{payload}.", part(json!({ "alg": "none", "typ": "JWT" }))),
        alice.replace(&payload, &part(claims(json!({ "sub": "root" })))),
        signed(&claims(json!({ "exp": in_seconds(-3600) }))),
        signed(&expired),
        signed(&claims(json!({ "nbf": in_seconds(3600) }))),
        signed(&claims(json!({ "exp": "soon" }))),
        signed(&claims(json!({ "iss": "https://elsewhere.test" }))),
        signed(&claims(json!({ "aud": "invoices" }))),
        // Without the claim.
        signed(&claims(json!({ "sub": null }))),
        signed(&json!({ "sub": "alice" })),
        "junk".to_owned(),
        "junk of another".to_owned(),
    ]
}

fn base_claims() -> Value {
    json!({ "sub": "alice", "iss": "https://login.test", "aud": "orders", "exp": in_seconds(600) })
}

fn strict_issuer() -> String {
    secret("issuer = \"https://login.test\"\naudience = \"orders\"")
}

fn anonymous() -> Request {
    post("/orders").line("Idempotency-Key: k").json("{}")
}

#[tokio::test]
async fn a_sender_whose_token_does_not_verify_is_a_caller_of_its_own() {
    let (backend, sidecar) = with(&strict_issuer(), "scope = [\"jwt:sub\"]").await;
    let alice = signed(&base_claims());
    let mut others: Vec<Request> = not_believed().iter().map(|token| order(token)).collect();
    others.extend(
        ["Bearer", "Basic YWxpY2U6cHc=", "Basic Ym9iOnB3", "alice", ""]
            .map(|value| anonymous().line(&format!("Authorization: {value}"))),
    );
    // With two lines, it is unknown which one the backend uses.
    others.extend([order(&alice).by(&alice), order(&alice).by("junk"), order("junk").by(&alice)]);
    let mut answers = Vec::new();
    for request in [order(&alice), anonymous()].iter().chain(&others) {
        let first = sidecar.ask(request).await;
        assert_eq!((first.status, first.is_replay()), (201, false), "{request:?}");
        // The same token is the same caller.
        let again = sidecar.ask(request).await;
        assert!(again.is_replay() && again.body == first.body, "{request:?}");
        assert!(!answers.contains(&first.body), "{request:?}");
        answers.push(first.body);
    }
    assert_eq!(backend.count(), others.len() + 2);
}

#[tokio::test]
async fn a_token_that_does_not_verify_may_be_refused() {
    let (backend, sidecar) =
        with(&format!("{}\nunverified = \"reject\"", strict_issuer()), "scope = [\"jwt:sub\"]").await;
    let alice = signed(&base_claims());
    let mut refused: Vec<Request> = not_believed().iter().map(|token| order(token)).collect();
    refused.extend(["Bearer", "Basic YWxpY2U6cHc="].map(|value| anonymous().line(&format!("Authorization: {value}"))));
    refused.push(order(&alice).by(&alice));
    for request in &refused {
        let answer = sidecar.ask(request).await;
        answer.refuses(401, "invalid-token");
        assert_eq!(answer.value("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        assert!(!answer.text().contains("junk"), "{}", answer.text());
    }
    assert_eq!(backend.count(), 0);
    for request in [order(&alice), anonymous()] {
        assert_eq!(sidecar.ask(&request).await.status, 201);
    }
    let counted = sidecar.metric("onlyonce_requests_total{outcome=\"invalid_token\",route=\"orders\"}").await;
    assert_eq!(counted, f64::from(u32::try_from(refused.len()).expect("a few")));
}

#[tokio::test]
async fn a_claim_that_is_a_list_or_an_object_is_the_caller() {
    let aud = |aud: Value| signed(&json!({ "aud": aud }));
    let pairs = [
        (aud(json!(["alice"])), aud(json!(["bob"])), false),
        (aud(json!(["alice"])), aud(json!(["alice"])), true),
        (aud(json!(["alice"])), aud(json!("alice")), false),
        (aud(json!(["alice", "bob"])), aud(json!(["bob", "alice"])), false),
        (aud(json!([])), aud(json!({})), false),
        (aud(json!({ "a": 1, "b": [2] })), aud(json!({ "b": [2], "a": 1 })), true),
        (aud(json!({ "a": 1 })), aud(json!({ "a": 2 })), false),
        (aud(json!([9_007_199_254_740_993_u64])), aud(json!([9_007_199_254_740_992_u64])), false),
    ];
    told_apart(&secret(""), "jwt:aud", &pairs).await;
    // It never counts as the anonymous caller.
    let (backend, sidecar) = with(&secret(""), "scope = [\"jwt:aud\"]").await;
    sidecar.ask(&anonymous()).await;
    for token in [aud(json!([])), aud(json!(["alice"])), aud(json!(null)), aud(json!({}))] {
        assert!(!sidecar.ask(&order(&token)).await.is_replay());
    }
    assert_eq!(backend.count(), 5);
}

/// The claim is used only if the token is valid.
#[tokio::test]
async fn a_token_that_does_not_verify_is_no_key() {
    let route = "key = \"jwt:jti\"\nscope = []";
    let forged = {
        let key = IssuerKey::secret(b"another secret, also long enough");
        issue(&Header::new(Algorithm::HS256), &json!({ "jti": "a" }), &key)
    };
    let order = |token: &str| post("/orders").by(token).json("{}");
    let (backend, sidecar) = with(&secret(""), route).await;
    for token in [&forged, &forged, "junk", "junk"] {
        assert!(!sidecar.ask(&order(token)).await.is_replay());
    }
    assert_eq!(backend.count(), 4);
    let (backend, sidecar) = with(&secret(""), &format!("{route}\non_missing_key = \"reject\"")).await;
    sidecar.ask(&order(&forged)).await.refuses(400, "missing-key");
    assert_eq!(backend.count(), 0);
    let (backend, sidecar) = with(&secret("unverified = \"reject\""), route).await;
    sidecar.ask(&order(&forged)).await.refuses(401, "invalid-token");
    // A valid token without the claim is not rejected.
    assert_eq!(sidecar.ask(&order(&signed(&json!({ "sub": "alice" })))).await.status, 201);
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn tokens_are_verified_with_the_issuers_public_keys() {
    let (key, other) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
    let sign = |key: &KeyPair, id: Option<&str>, sub: &str| {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        let signer = IssuerKey::p256(key);
        issue(&header, &json!({ "sub": sub, "exp": in_seconds(600) }), &signer)
    };
    let pem = key.public_key_pem();
    let jwk = |key: &KeyPair, id: &str| {
        // An uncompressed point: 4, x, y.
        let point = key.der_bytes();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id, "x": x, "y": y })
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("jwks.json");
    std::fs::write(&file, json!({ "keys": [jwk(&other, "old"), jwk(&key, "new")] }).to_string()).expect("to write");
    let by_set = format!("jwks = {:?}\nalgorithms = [\"RS256\", \"ES256\"]", file.display().to_string());
    let by_pem = format!("public_key = '''{pem}'''\nalgorithms = [\"ES256\"]");
    for (jwt, id) in [(by_pem.as_str(), None), (&by_set, Some("new")), (&by_set, None)] {
        let alice = || sign(&key, id, "alice");
        told_apart(jwt, "jwt:sub", &[(alice(), alice(), true), (alice(), sign(&key, id, "bob"), false)]).await;
    }
    // An unknown key id, a key without an id, and the public key used as a secret.
    let confused =
        issue(&Header::new(Algorithm::HS256), &json!({ "sub": "alice" }), &IssuerKey::secret(pem.as_bytes()));
    let stranger = KeyPair::generate().expect("a key");
    for (jwt, token) in [
        (by_set.as_str(), sign(&key, Some("old"), "alice")),
        (&by_set, sign(&stranger, Some("new"), "alice")),
        (&by_pem, sign(&other, None, "alice")),
        (&by_pem, confused),
    ] {
        let alice = sign(&key, None, "alice");
        told_apart(jwt, "jwt:sub", &[(alice, token, false)]).await;
    }
}

#[tokio::test]
async fn behind_an_edge_that_verifies_a_claim_is_taken_as_it_is() {
    let token = |sub: &str| {
        let claims = json!({ "sub": sub, "exp": in_seconds(-3600) });
        issue(&Header::new(Algorithm::HS256), &claims, &IssuerKey::secret(b"the edge's"))
    };
    told_apart(
        "verified_by_edge = true",
        "jwt:sub",
        &[(token("alice"), token("alice"), true), (token("alice"), token("bob"), false)],
    )
    .await;
}

#[tokio::test]
async fn a_claim_may_be_the_key() {
    let jti = |jti: &str| signed(&json!({ "sub": "alice", "jti": jti }));
    let (backend, sidecar) = with(&secret(""), "key = \"jwt:jti\"\nscope = [\"jwt:sub\"]").await;
    let order = |token: &str| post("/orders").by(token).json("{}");
    sidecar.ask(&order(&jti("a"))).await;
    assert!(sidecar.ask(&order(&jti("a"))).await.is_replay());
    assert!(!sidecar.ask(&order(&jti("b"))).await.is_replay());
    // Without a token there is no key.
    assert_eq!(sidecar.ask(&post("/orders").json("{}")).await.status, 201);
    assert_eq!(backend.count(), 3);
}

/// Signed by another implementation (PyJWT), with one key of each kind.
#[tokio::test]
async fn tokens_of_every_algorithm_are_verified_by_their_own_key_only() {
    let issued: Value = serde_json::from_str(include_str!("tokens.json")).expect("JSON");
    let text = |name: &str| issued[name].as_str().expect("text").to_owned();
    let public = |name: &str| format!("public_key = '''{}'''", text(name));
    let folder = tempfile::tempdir().expect("a folder");
    let set = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut set = issued["jwks"].clone();
        set["keys"].as_array_mut().expect("keys").iter_mut().for_each(change);
        let file = folder.path().join(name);
        std::fs::write(&file, set.to_string()).expect("to write");
        format!("jwks = {:?}", file.display().to_string())
    };
    let jwks = set("jwks.json", &|_| {});
    // Some issuers write numbers with zeros before them.
    let zeros = set("zeros.json", &|key| {
        if let Some(n) = key["n"].as_str() {
            let number = [vec![0], URL_SAFE_NO_PAD.decode(n).expect("base64")].concat();
            key["n"] = URL_SAFE_NO_PAD.encode(number).into();
        }
    });
    let secret = format!("secret = {:?}", text("secret"));
    let cases = [
        (&["HS256", "HS384", "HS512"][..], &[secret][..]),
        (
            &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
            &[public("rsa"), public("rsa_pkcs1"), jwks.clone(), zeros],
        ),
        (&["ES256"], &[public("p256"), jwks.clone()]),
        (&["ES384"], &[public("p384"), jwks.clone()]),
        (&["EdDSA"], &[public("ed25519"), jwks]),
    ];
    for (algorithms, keys) in cases {
        for key in keys {
            let jwt = format!("{key}\nalgorithms = {algorithms:?}\nunverified = \"reject\"");
            let (backend, sidecar) = with(&jwt, "scope = [\"jwt:sub\"]").await;
            for (name, token) in issued["tokens"].as_object().expect("tokens") {
                let token = token.as_str().expect("text");
                let believed = algorithms.contains(&name.as_str());
                let order =
                    |token: &str| post("/orders").line(&format!("Idempotency-Key: {name}")).by(token).json("{}");
                let status = sidecar.ask(&order(token)).await.status;
                assert_eq!(status, if believed { 201 } else { 401 }, "{name} with {jwt}");
                // With other claims, with half a signature, with none.
                let (text, signature) = token.rsplit_once('.').expect("a signature");
                let head = text.split_once('.').expect("claims").0;
                let others = URL_SAFE_NO_PAD.encode(r#"{"sub":"root"}"#);
                let half = &signature[..signature.len() / 2 / 4 * 4];
                for forged in [format!("{head}.{others}.{signature}"), format!("{text}.{half}"), format!("{text}.")] {
                    assert_eq!(sidecar.ask(&order(&forged)).await.status, 401, "{name} with {jwt}");
                }
            }
            assert_eq!(backend.count(), algorithms.len());
        }
    }
}
