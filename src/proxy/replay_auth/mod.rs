//! Asks whether a caller may see what another request has recorded (`replay_auth`).
//!
//! A stored answer leaves without the backend being asked, although its caller may have lost the right to it. So another
//! server, or a path of the backend, is asked first, as nginx does with `auth_request`, Traefik with `ForwardAuth` and
//! Caddy with `forward_auth`. [`Question`] is what is sent; [`AuthAnswer`] decides what the answer means. Only with a
//! permission can the record be opened ([`Sealed`](crate::guard::Sealed)), and `proxy/replay.rs` is where that is done.

pub(super) mod ask;
mod cache;
pub(super) mod question;
pub(super) mod servers;
