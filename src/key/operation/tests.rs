use http::{HeaderName, HeaderValue};

use super::*;
use crate::key::{BodyFault, KeyFault, readings};
use crate::rule::{
    Delivery, JsonPointer, KeyFormat, Mode, OnConcurrent, OnMismatch, OnStoreError, Policy, PolicyTable,
};

fn selector(text: &str) -> Selector {
    match text.split_once(':') {
        Some(("header", name)) => Selector::Header(HeaderName::from_bytes(name.as_bytes()).expect("a name")),
        Some(("json", pointer)) => Selector::Json(JsonPointer::parse(pointer).expect("a pointer")),
        _ => panic!("no selector: {text}"),
    }
}

fn rule(key: &[&str]) -> Rule {
    Rule {
        accept: Vec::new(),
        name: "orders".into(),
        path: "/orders".into(),
        methods: vec![Method::POST],
        host: None,
        mode: Mode::Enforce,
        preset: None,
        key: key.iter().map(|text| selector(text)).collect(),
        on_missing_key: OnMissingKey::Reject,
        key_max_length: 255,
        key_format: KeyFormat::Any,
        refuse_expired_keys: false,
        scope: vec![selector("header:authorization")],
        fingerprint: FingerprintMode::Auto { ignore: Vec::new() },
        ignore_query: Vec::new(),
        target_in_name: false,
        on_mismatch: OnMismatch::Reject,
        on_concurrent: OnConcurrent::Reject,
        wait_timeout: Duration::from_secs(10),
        max_waiters: 100,
        policy: PolicyTable::new(Policy::Standard, &[]),
        on_unknown: OnUnknown::Hold,
        hold_for: Duration::from_secs(3600),
        lease: Duration::from_secs(30),
        retention: Duration::from_secs(7200),
        retention_given: true,
        max_request_body: 1 << 20,
        max_response_body: 1 << 20,
        response: Delivery::Buffer,
        replay_set_cookie: false,
        replay_omit: Vec::new(),
        replay_auth: None,
        probe: None,
        on_error: OnStoreError::Reject,
        cors_origins: Vec::new(),
        message: None,
        help: None,
    }
}

struct Sent {
    headers: HeaderMap,
    host: &'static str,
    path: &'static str,
    params: PathParams<'static>,
    body: &'static str,
}

fn sent(lines: &[(&'static str, &'static str)], body: &'static str) -> Sent {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_static(value));
    }
    Sent { headers, host: "example.com", path: "/orders", params: PathParams::default(), body }
}

const DIGEST_KEY: DigestKey = DigestKey::from_bytes([7; 32]);

impl Sent {
    fn request(&self) -> Request<'_> {
        let plain = Request::plain(&Method::POST, &self.headers, &self.params);
        Request { host: Some(self.host), path: self.path, ..plain }
    }

    fn read(&self, rule: &Rule) -> Result<Option<Operation>, KeyError> {
        Ok(match read(rule, &DIGEST_KEY, self.request(), self.body.as_bytes())? {
            KeyOutcome::Missing(_) => None,
            KeyOutcome::Operation(operation) => Some(operation),
        })
    }

    fn operation(&self, rule: &Rule) -> Operation {
        self.read(rule).expect("a right key").expect("a key")
    }

    fn is_missing_in_head(&self, rule: &Rule) -> bool {
        matches!(read_head(rule, self.request()), Ok(HeadOutcome::Missing(_)))
    }
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn route_scope_and_key_name_an_operation() {
    let rule = rule(&["header:k"]);
    let first = sent(&[("k", "a"), ("authorization", "x")], "1").operation(&rule);
    assert_eq!(*first.name.route, *"orders");
    assert_eq!(sent(&[("k", "\"a\""), ("authorization", "x")], "1").operation(&rule), first);
    for lines in [
        &[("k", "b"), ("authorization", "x")][..],
        &[("k", "a"), ("authorization", "y")],
        &[("k", "a"), ("authorization", "")],
        &[("k", "a"), ("authorization", "x"), ("authorization", "x")],
        &[("k", "a")],
    ] {
        assert_ne!(sent(lines, "1").operation(&rule).name, first.name, "{lines:?}");
    }
    let elsewhere = Sent { path: "/other", ..sent(&[("k", "a"), ("authorization", "x")], "2") }.operation(&rule);
    assert_eq!(elsewhere.name, first.name);
    assert_ne!(elsewhere.fingerprint.target, first.fingerprint.target);
    assert_ne!(elsewhere.fingerprint.body, first.fingerprint.body);
}

#[test]
fn types_of_json_keys_are_apart() {
    let rule = rule(&["json:/id"]);
    let name = |body| sent(&[JSON], body).operation(&rule).name;
    assert_eq!(name("{\"id\":1}"), name("{\"id\": 10e-1, \"x\": 2}"));
    assert_ne!(name("{\"id\":1}"), name("{\"id\":\"1\"}"));
    assert_ne!(name("{\"id\":true}"), name("{\"id\":\"true\"}"));
    assert_ne!(name("{\"id\":9007199254740993}"), name("{\"id\":9007199254740992}"));
}

#[test]
fn all_parts_of_a_key_must_be_there() {
    let rule = rule(&["header:k", "json:/id"]);
    let whole = sent(&[("k", "a"), JSON], "{\"id\":1}");
    assert!(whole.read(&rule).is_ok_and(|operation| operation.is_some()));
    assert!(!whole.is_missing_in_head(&rule));

    let in_body = sent(&[("k", "a"), JSON], "{\"id\":null}");
    assert!(!in_body.is_missing_in_head(&rule));
    assert_eq!(in_body.read(&rule), Ok(None));

    for seen_in_head in [sent(&[JSON], "{"), sent(&[("k", "a"), ("content-type", "image/png")], "{")] {
        assert!(seen_in_head.is_missing_in_head(&rule));
        assert_eq!(seen_in_head.read(&rule), Ok(None));
    }
    let broken = sent(&[("k", "a"), JSON], "{").read(&rule);
    assert_eq!(broken, Err(BodyFault::NotJson.of(&selector("json:/id"))));
}

#[test]
fn a_wrong_key_is_refused_by_the_head() {
    let rule = rule(&["header:missing", "header:k"]);
    let wrong = sent(&[("k", "a b")], "");
    let error = read_head(&rule, wrong.request()).err();
    assert_eq!(error, Some(KeyFault::Characters.of(&selector("header:k"))));
}

/// As long as a part and none are of one size, no list is made anew.
#[test]
fn lists_of_parts_are_completed_in_place() {
    let rule = rule(&["header:k", "json:/id"]);
    let sent = sent(&[("k", "a"), JSON], "{\"id\":1}");
    let Ok(HeadOutcome::Partial(draft)) = read_head(&rule, sent.request()) else { panic!("a draft") };
    let body = Body::of(&rule, draft.declared, sent.body.as_bytes());
    let before = draft.key.as_ptr().addr();
    let key = complete(&rule.key, draft.key, Role::of_key(&rule), &body).expect("a key");
    assert_eq!((key.len(), key.as_ptr().addr()), (2, before));
}

#[test]
fn terms_are_those_of_the_rule() {
    let held = rule(&["header:k"]);
    let (lease, retention) = (held.lease, held.retention);
    let terms = sent(&[("k", "a")], "").operation(&held).terms;
    assert_eq!(terms, Terms { lease, retention, on_unknown: UnknownPolicy::Hold(held.hold_for) });
    let retried = Rule { on_unknown: OnUnknown::Retry, ..held };
    assert_eq!(sent(&[("k", "a")], "").operation(&retried).terms.on_unknown, UnknownPolicy::Retry);
}

#[test]
fn without_a_key_the_payload_may_be_the_key() {
    let window = Duration::from_secs(10);
    let rule = Rule { on_missing_key: OnMissingKey::Fingerprint(window), ..rule(&["header:k"]) };
    let first = sent(&[JSON], "{\"a\":1}").operation(&rule);
    assert_eq!(sent(&[JSON], "{ \"a\": 1 }").operation(&rule), first);
    assert_eq!(first.key, None);
    let held = UnknownPolicy::Hold(window);
    assert_eq!(first.terms, Terms { lease: window / 2, retention: window, on_unknown: held });
    for other in [
        sent(&[JSON], "{\"a\":2}"),
        sent(&[JSON, ("authorization", "x")], "{\"a\":1}"),
        sent(&[JSON, ("k", "a")], "{\"a\":1}"),
        Sent { path: "/other", ..sent(&[JSON], "{\"a\":1}") },
        Sent { host: "example.org", ..sent(&[JSON], "{\"a\":1}") },
    ] {
        assert_ne!(other.operation(&rule).name, first.name);
    }
    assert!(sent(&[("k", "")], "").read(&rule).is_err(), "a wrong key is not a missing one");

    let of_two = Rule { key: vec![selector("header:k"), selector("json:/id")], ..rule.clone() };
    let half = |k| sent(&[("k", k), JSON], "{}").operation(&of_two);
    assert_eq!(half("a"), half("a"));
    assert_ne!(half("a").name, half("b").name, "what is there of a key tells two requests apart");

    let uncompared = Rule { fingerprint: FingerprintMode::None, ..rule };
    assert_ne!(sent(&[], "1").operation(&uncompared).name, sent(&[], "2").operation(&uncompared).name);
}

#[test]
fn a_key_older_than_any_record_may_be_refused() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(0x017F_22E2_79B0);
    // Made then; a record lives for two hours.
    let (uuid, ulid) = ("017f22e2-79b0-7cc3-98c4-dc0c0c07398f", "01FWHE4YDGFK1SHH6W1G60EECF");
    let refusing = Rule { refuse_expired_keys: true, ..rule(&["header:k"]) };
    let read = |rule: &Rule, key: &'static str, body: &'static str, now: SystemTime| {
        let sent = sent(&[("k", key), JSON], body);
        let request = Request { now, ..sent.request() };
        super::read(rule, &DIGEST_KEY, request, body.as_bytes()).map(|_| ())
    };
    let expired = |at: &str| {
        let (selector, retention) = (selector(at), refusing.retention);
        Err(KeyError::Expired { selector, retention })
    };
    let (youngest, oldest) = (now - Duration::from_secs(7200), now + Duration::from_secs(7200));
    let too_old = oldest + Duration::from_millis(1);
    for key in [uuid, ulid] {
        assert_eq!(read(&refusing, key, "", youngest), Ok(()), "from the future: {key}");
        assert_eq!(read(&refusing, key, "", oldest), Ok(()));
        assert_eq!(read(&refusing, key, "", too_old), expired("header:k"));
        assert_eq!(read(&rule(&["header:k"]), key, "", too_old), Ok(()));
    }
    assert_eq!(read(&refusing, "017f22e2-79b0-4cc3-98c4-dc0c0c07398f", "", too_old), Ok(()), "no time in it");

    let in_body = Rule { refuse_expired_keys: true, ..rule(&["json:/id"]) };
    let body = "{\"id\":\"017f22e2-79b0-7cc3-98c4-dc0c0c07398f\"}";
    assert_eq!(read(&in_body, "x", body, too_old), expired("json:/id"));
    // The id of an old tenant says nothing about the age of a key.
    let of_parts = Rule { refuse_expired_keys: true, ..rule(&["header:k", "json:/id"]) };
    assert_eq!(read(&of_parts, "x", body, too_old), Ok(()));
}

/// What is parsed at all is parsed once: the body keeps it.
#[test]
fn a_body_is_parsed_only_where_a_rule_needs_it() {
    let auto = || FingerprintMode::Auto { ignore: Vec::new() };
    for (key, fingerprint, media, is_parsed) in [
        ("header:k", FingerprintMode::Raw, "application/json", false),
        ("header:k", FingerprintMode::None, "application/json", false),
        ("header:k", auto(), "text/plain", false),
        ("header:k", auto(), "application/json", true),
        ("json:/id", FingerprintMode::Raw, "application/json", true),
    ] {
        let rule = Rule { fingerprint, ..rule(&[key]) };
        let sent = sent(&[("k", "a"), ("content-type", media)], "{\"id\":1}");
        let Ok(HeadOutcome::Partial(draft)) = read_head(&rule, sent.request()) else { panic!("no draft: {key}") };
        let body = Body::new(draft.declared, sent.body.as_bytes());
        let reading = draft.of_body(&DIGEST_KEY, &body);
        assert!(matches!(reading, Ok(KeyOutcome::Operation(_))));
        assert_eq!(body.is_parsed(), is_parsed, "{key} {:?} {media}", rule.fingerprint);
    }
}

#[test]
fn keys_are_shown_as_the_log_wants_them() {
    let rule = rule(&["header:k", "json:/id"]);
    let lines = [("k", "\"a, b\""), JSON, ("authorization", "x")];
    let sent = sent(&lines, "{\"id\":\"c\\n\"}");
    let shown = |log_keys| {
        let request = Request { log_keys, ..sent.request() };
        match read(&rule, &DIGEST_KEY, request, sent.body.as_bytes()) {
            Ok(KeyOutcome::Operation(operation)) => operation.key.expect("a key"),
            other => panic!("{other:?}"),
        }
    };
    let (plain, hashed) = (shown(LogKeys::Plain), shown(LogKeys::Hashed));
    assert_eq!(plain.as_str(), "a, b + c\\n");
    assert_eq!(format!("{plain:?}"), "KeyText(…)");
    let digits = hashed.as_str();
    assert!(digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{digits}");
    assert_eq!(format!("{hashed:?}"), format!("KeyText({digits})"));
}

#[test]
fn readings_show_no_value() {
    let rule = rule(&["header:k", "json:/id"]);
    let sent = sent(&[("k", "secret"), JSON], "{\"id\":[]}");
    let found = readings(&rule, &DIGEST_KEY, sent.request(), sent.body.as_bytes());
    assert_eq!(found.scope[0].found, Ok(None));
    assert!(found.key[0].found.as_ref().is_ok_and(|digest| digest.as_ref().is_some_and(|digest| digest.len() == 8)));
    assert_eq!(found.key[1].found, Err(KeyFault::NotScalar.of(&selector("json:/id"))));
    assert!(!format!("{found:?}").contains("secret"));
}
