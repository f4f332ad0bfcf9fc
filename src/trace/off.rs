//! No traces: types without size, functions without an effect.

use http::{HeaderMap, Method, StatusCode};

use super::CONTEXT;

/// Where spans go: nowhere.
#[derive(Debug)]
pub struct Traces;

/// Does nothing.
pub fn start() -> Result<Traces, String> {
    Ok(Traces)
}

impl Traces {
    /// Where they go.
    pub fn endpoint(&self) -> Option<&str> {
        None
    }

    /// Does nothing.
    pub fn finish(self) {}
}

/// A span that is not measured.
#[derive(Debug)]
pub struct Span(());

/// The parent of no span.
#[derive(Debug, Clone, Default)]
pub struct Parent(());

impl Span {
    /// The span of a request.
    pub fn server(_: &HeaderMap, _: &Method, _: Option<&str>) -> Self {
        Self(())
    }

    /// Under which others are made.
    pub fn parent(&self) -> Parent {
        Parent(())
    }

    /// What a record keeps.
    pub fn context(&self) -> Option<[u8; CONTEXT]> {
        None
    }

    /// Links to what a record kept.
    pub fn link(&mut self, _: &[u8]) {}

    /// What became of the request.
    pub fn outcome(&mut self, _: &str, _: &'static str, _: Option<&dyn std::fmt::Display>) {}

    /// The answer's status.
    pub fn status(&mut self, _: StatusCode) {}

    /// Ends it.
    pub fn end(self) {}

    /// Names it to the backend.
    pub fn inject(&self, _: &mut HeaderMap) {}
}

impl Parent {
    /// A span for a call to the backend.
    pub fn client(&self, _: &Method) -> Span {
        Span(())
    }

    /// A span for a step.
    pub fn step(&self, _: &'static str) -> Span {
        Span(())
    }
}
