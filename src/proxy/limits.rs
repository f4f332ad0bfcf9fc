//! Limits for heads and read buffers.

/// The most bytes of an HTTP/1 head, with its start line and the empty line at its end.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// The most fields in the head of an HTTP/1 response. A response with more is lost, and its outcome with it, so the
/// limit is high.
///
/// A request may have 100, which is hyper's default and that of Envoy and Apache: it is refused before anything ran.
/// hyper parses so many on its stack; with a higher limit it makes two allocations of 32 KiB for each head.
pub(crate) const MAX_ANSWER_FIELDS: usize = 1000;

/// The size of a connection's buffers. hyper's own limit is some 400 KiB.
pub(crate) const MAX_BUFFER: usize = 64 * 1024;
// A head must fit into the buffer; otherwise it depends on the packets whether it is read to its end.
const _: () = assert!(MAX_HEAD <= MAX_BUFFER);
