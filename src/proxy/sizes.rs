//! How large the futures of a request are. Each is moved at least once when it is made, and its memory is taken and given
//! back for each request; one that grows beyond a few thousand bytes is copied byte by byte.

use std::mem::size_of;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;

use super::body::{self, RequestBody};
use super::event::Event;
use super::handle::RequestContext;
use super::head::Head;
use super::stream::Relay;
use super::upstream::AttemptLimits;
use super::{Budget, Client, IncomingBody, Proxy, Upstream};
use crate::config::Rule;
use crate::guard::{Guard, Ownership, SendFence, Verdict};
use crate::key::Operation;

/// The size of what an async function makes of these arguments.
fn of<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
    size_of::<F>()
}

type P = &'static Proxy;
type C = &'static Client;
type R = &'static Arc<Rule>;
type E = &'static mut Event;

#[test]
fn the_futures_of_a_request_stay_small() {
    let sizes = [
        ("handle", 2100, of(|(p, r, c): (&'static Arc<Proxy>, Request<Incoming>, C)| p.handle(r, c))),
        ("pass", 2600, of(|(p, h, b, c): (P, Head, RequestBody, C)| p.pass("", h, b, c, false))),
        // Heads carry the set of their fields along: 8 bytes for each of the four that this one holds.
        (
            "guarded",
            3140,
            of(|(p, r, l, h, b, e): (P, R, RequestContext<'_>, Head, IncomingBody, E)| p.guarded(r, l, h, b, e)),
        ),
        ("run", 1500, of(|(p, r, o, h, b, c, e): (P, R, Ownership, Head, Bytes, C, E)| p.run(r, o, h, b, c, e))),
        (
            "repeat",
            430,
            of(|(p, r, o, v, h, c, e): (P, R, &'static Operation, Verdict, &'static Head, C, E)| {
                p.repeat(r, o, v, h, c, e)
            }),
        ),
        // With the store's own future within, which was a box before.
        ("claim", 1600, of(|(g, r, o): (&'static Arc<Guard>, R, &'static Operation)| g.claim(r, o))),
        ("read", 400, of(|(a, b): (IncomingBody, &'static Budget)| body::read(a, 1, b, Duration::ZERO))),
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
