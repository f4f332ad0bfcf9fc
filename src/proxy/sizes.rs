//! Limits for the sizes of a request's futures. Each is moved at least once when it is made, and allocated for each
//! request; moving one of more than a few thousand bytes is expensive.

use std::mem::size_of;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;

use super::body::buffer;
use super::body::relay::Relay;
use super::body::request::RequestBody;
use super::context::RequestContext;
use super::event::Event;
use super::head::Head;
use super::upstream::AttemptLimits;
use super::{Budget, Client, IncomingBody, Proxy, Upstream};
use crate::guard::{Guard, Ownership, SendFence, Verdict};
use crate::key::Operation;
use crate::rule::Rule;

/// The size of the future that an async function returns.
fn of<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

type P = &'static Proxy;
type C = &'static Client;
type R = &'static Arc<Rule>;
type E = &'static mut Event;
type X = &'static RequestContext<'static>;

#[test]
fn the_futures_of_a_request_stay_small() {
    let sizes = [
        // With traces (otlp), spans are some bytes long.
        ("handle", 2130, of(|(p, r, c): (&'static Arc<Proxy>, Request<Incoming>, C)| p.handle(r, c))),
        ("pass", 2600, of(|(p, h, b, c): (P, Head, RequestBody, C)| p.pass("", h, b, c, false))),
        // Each head has its set of fields: 8 bytes for each of the four heads in this future.
        (
            "guarded",
            3140,
            of(|(p, r, l, h, b, e): (P, R, RequestContext<'_>, Head, IncomingBody, E)| p.guarded(r, l, h, b, e)),
        ),
        // With the pointer to the question of replay_auth, and those of the operation.
        ("run", 1520, of(|(p, r, o, h, b, c, e): (P, R, Ownership, Head, Bytes, X, E)| p.run(r, o, h, b, c, e))),
        (
            "repeat",
            430,
            of(|(p, r, o, v, h, c, e): (P, R, &'static Operation, Verdict, &'static Head, X, E)| {
                p.repeat(r, o, v, h, c, e)
            }),
        ),
        // With the store's own future inside.
        ("claim", 1700, of(|(g, r, o): (&'static Arc<Guard>, R, &'static Operation)| g.claim(r, o))),
        ("read", 400, of(|(a, b): (IncomingBody, &'static Budget)| buffer::read(a, 1, b, Duration::ZERO))),
        (
            "attempt",
            1700,
            of(
                |(u, r, g, l, b, y): (
                    &'static Upstream,
                    &'static mut Request<RequestBody>,
                    SendFence,
                    &'static AttemptLimits,
                    &'static Budget,
                    Option<Relay>,
                )| u.attempt(r, g, l, b, y),
            ),
        ),
    ];
    for (name, most, size) in sizes {
        println!("{name}: {size} of {most}");
        assert!(size <= most, "{name}: {size} bytes; box what is rare, or pass by reference what is large");
    }
}
