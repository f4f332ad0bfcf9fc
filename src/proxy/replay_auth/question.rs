//! What an authorization server is asked. Pure.
//!
//! The request is built from nothing. Of the client's fields it has those that name the caller: `Authorization`,
//! `Cookie`, and the headers of the route's scope. What the client asked for is in fields of our own, and never in those
//! that the client sent.

use std::time::Duration;

use http::header::{EXPECT, HOST, HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, request};

use super::super::body::request::RequestBody;
use super::super::context::RequestContext;
use super::super::credentials::{TRACE_CONTEXT, credentials};
use super::super::head::{self, Head, UpstreamTarget};
use crate::key::{self, Digest, FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::rule::{AuthServer, Rule};
use crate::trace;

const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");

/// The fields that are ours alone, whatever the scope names.
const OUR_OWN: [HeaderName; 7] =
    [FORWARDED_METHOD, FORWARDED_PROTO, FORWARDED_HOST, FORWARDED_URI, FORWARDED_FOR, HOST, EXPECT];

/// May this caller see what is recorded?
pub(in crate::proxy) struct Question {
    pub(super) server: AuthServer,
    pub(super) target: PathAndQuery,
    /// How long a permission holds.
    pub(super) cache: Duration,
    /// The fields that are sent, but for those of one connection or trace.
    pub(super) fields: HeaderMap,
    /// The host that the client asked for, as it wrote it.
    host: Option<HeaderValue>,
    /// The client's trace context.
    trace_context: Vec<(HeaderName, HeaderValue)>,
    pub(super) trace: trace::Parent,
}

impl Question {
    /// That of this request; `None` if its route asks nobody.
    pub(in crate::proxy) fn of(rule: &Rule, context: &RequestContext<'_>, head: &Head) -> Option<Box<Self>> {
        let auth = rule.replay_auth.as_ref()?;
        let facts = context.request(head);
        let host = head::authority(&head.uri, &head.headers);
        let (forwarded_host, forwarded_scheme) = key::forwarded_host_and_scheme(&facts);

        let mut fields = HeaderMap::new();
        for name in credentials(rule, &OUR_OWN) {
            for value in head.headers.get_all(&name) {
                fields.append(name.clone(), value.clone());
            }
        }
        let mut say = |name: HeaderName, value: &[u8]| {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                fields.insert(name, value);
            }
        };
        say(FORWARDED_METHOD, facts.method.as_str().as_bytes());
        let own_scheme = if context.client.secure { "https" } else { "http" };
        let scheme = forwarded_scheme.filter(|scheme| ["http", "https"].contains(scheme)).unwrap_or(own_scheme);
        say(FORWARDED_PROTO, scheme.as_bytes());
        if let Some(host) = forwarded_host.as_deref().map(str::as_bytes).or(host.as_ref().map(HeaderValue::as_bytes)) {
            say(FORWARDED_HOST, host);
        }
        say(FORWARDED_URI, head.uri.path_and_query().map_or("/", PathAndQuery::as_str).as_bytes());
        if let Some(address) = key::client_address(&facts) {
            say(FORWARDED_FOR, address.to_string().as_bytes());
        }
        let trace_context = TRACE_CONTEXT.into_iter().flat_map(|name| {
            let lines = head.headers.get_all(&name).iter();
            lines.map(move |value| (name.clone(), value.clone()))
        });
        Some(Box::new(Self {
            server: auth.server.clone(),
            target: auth.target.clone(),
            cache: auth.cache,
            fields,
            host,
            trace_context: trace_context.collect(),
            trace: head.trace.clone(),
        }))
    }

    /// The request, for a server that is addressed like this.
    pub(super) fn request(self, server: &UpstreamTarget, span: &trace::Span) -> Request<RequestBody> {
        let Self { target, mut fields, host, trace_context, .. } = self;
        for (name, value) in trace_context {
            fields.append(name, value);
        }
        span.inject(&mut fields);
        let host = host.filter(|_| server.preserves_host());
        let head: request::Parts = head::own_request(target, fields, host, server);
        Request::from_parts(head, RequestBody::default())
    }

    /// Adds everything that is sent to a digest, each part with its length.
    pub(super) fn add_to(&self, digest: &mut Digest) {
        match &self.server {
            // A backend may be asked under the name that the client used for it.
            AuthServer::Backend => {
                digest.tag(0);
                digest.part(self.host.as_ref().map_or(&[], HeaderValue::as_bytes));
            }
            AuthServer::Http(authority) => {
                digest.tag(1);
                digest.part(authority.as_str().as_bytes());
            }
            AuthServer::Https(authority) => {
                digest.tag(2);
                digest.part(authority.as_str().as_bytes());
            }
        }
        digest.part(self.target.as_str().as_bytes());
        digest.count(self.fields.len());
        for (name, value) in &self.fields {
            digest.part(name.as_str().as_bytes());
            digest.part(value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::{AUTHORIZATION, COOKIE};
    use proptest::prelude::*;

    use super::super::cache::PermissionCache;
    use super::*;

    /// A question that sends these fields.
    fn question(server: AuthServer, target: &str, host: &str, lines: &[(HeaderName, String)]) -> Question {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name.clone(), HeaderValue::from_str(value).expect("a value"));
        }
        Question {
            server,
            target: target.parse().expect("a target"),
            cache: Duration::ZERO,
            fields,
            host: (!host.is_empty()).then(|| HeaderValue::from_str(host).expect("a host")),
            trace_context: Vec::new(),
            trace: trace::Parent::default(),
        }
    }

    type FieldLine = (String, Vec<u8>);

    /// What goes over the wire, and where to. A server of its own is asked under its own name.
    fn sent(question: &Question) -> (AuthServer, String, Vec<u8>, Vec<FieldLine>) {
        let host = match question.server {
            AuthServer::Backend => question.host.as_ref().map_or(&[][..], HeaderValue::as_bytes),
            AuthServer::Http(_) | AuthServer::Https(_) => &[],
        };
        let fields = question.fields.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
        (question.server.clone(), question.target.to_string(), host.to_vec(), fields.collect())
    }

    type Drawn = (AuthServer, String, String, Vec<(HeaderName, String)>);

    /// From so few words that two questions are often nearly the same.
    fn drawn() -> impl Strategy<Value = Drawn> {
        let authority = |name: &str| name.parse().expect("an authority");
        let others = ["a:1", "a:11", "aa:1"];
        let http = others.map(|name| AuthServer::Http(authority(name)));
        let https = others.map(|name| AuthServer::Https(authority(name)));
        let server = proptest::sample::select([&[AuthServer::Backend], &http[..], &https].concat());
        let names = [AUTHORIZATION, COOKIE, FORWARDED_METHOD, FORWARDED_HOST, FORWARDED_URI, FORWARDED_FOR];
        let line = (proptest::sample::select(names.to_vec()), "[ab]{0,2}");
        (server, "/[ab]{0,2}", "[ab]{0,2}", proptest::collection::vec(line, 0..4))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn two_questions_have_one_digest_if_and_only_if_the_same_is_sent(
            one in drawn(),
            other in drawn(),
            routes in ("[ab]{1,2}", "[ab]{1,2}"),
        ) {
            let [one, other] =
                [one, other].map(|(server, target, host, lines)| question(server, &target, &host, &lines));
            let cache = PermissionCache::default();
            let is_same = sent(&one) == sent(&other);
            prop_assert_eq!(cache.digest("r", &one) == cache.digest("r", &other), is_same);
            let is_same_route = routes.0 == routes.1;
            prop_assert_eq!(cache.digest(&routes.0, &one) == cache.digest(&routes.1, &other), is_same && is_same_route);
        }

        /// One byte of one field.
        #[test]
        fn a_byte_of_a_credential_makes_another_question(value in "[!-~]{1,40}", at in any::<prop::sample::Index>(), byte in b'!'..=b'~') {
            let cache = PermissionCache::default();
            let mut changed = value.clone().into_bytes();
            let at = at.index(changed.len());
            let is_same = changed[at] == byte;
            changed[at] = byte;
            let of = |value: &str| question(AuthServer::Backend, "/", "h", &[(AUTHORIZATION, value.to_owned())]);
            let changed = String::from_utf8(changed).expect("ASCII");
            prop_assert_eq!(cache.digest("r", &of(&value)) == cache.digest("r", &of(&changed)), is_same);
        }
    }
}
