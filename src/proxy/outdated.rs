//! Requests of the form guard's script that nothing guards any more.
//!
//! The page was loaded under another configuration: its script takes the route for an enforced one, and repeats a lost
//! request by itself. Forwarded unguarded, each repeat could run again, and no person has asked for it.

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response};

use super::body::buffer;
use super::body::incoming::IncomingBody;
use super::body::response::{ProxyResponse, ResponseBody};
use super::fields::Fields;
use super::head::Head;
use super::refusal;
use super::script_request::{ForScript, ScriptRequest};
use super::state::Proxy;
use crate::metrics::FormGuardResult;
use crate::problem::{Problem, SCRIPT_FORM};

/// What such a request is, which gets no answer of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outdated {
    /// The first try of a form. The script has the browser send it, as it is sent without the script.
    FirstTry,
    /// It was sent before, and what became of that is not known. It is not forwarded.
    Repeat,
}

impl Outdated {
    /// `None`: the request is forwarded. The first try of `onlyonce.fetch` is the page's own, which reads the answer.
    pub(super) fn of(script: &ScriptRequest) -> Option<Self> {
        match (script.is_repeat, script.is_form) {
            (true, _) => Some(Self::Repeat),
            (false, true) => Some(Self::FirstTry),
            (false, false) => None,
        }
    }

    /// Notes in the head of a request what it is if its route does not guard it after all: without a key, or a store.
    pub(super) fn mark(script: &ScriptRequest, head: &mut Head) {
        if let Some(outdated) = Self::of(script) {
            head.extensions.insert(outdated);
        }
    }

    pub(super) fn marked(head: &Head) -> Option<Self> {
        head.extensions.get().copied()
    }
}

impl Proxy {
    /// Answers without the backend.
    pub(super) fn outdated(&self, outdated: Outdated) -> Result<ProxyResponse, Problem> {
        self.metrics.form_guard(FormGuardResult::Outdated);
        match outdated {
            Outdated::FirstTry => {
                let mut answer = Response::new(ResponseBody::from_bytes(Bytes::new()));
                answer.headers_mut().insert(SCRIPT_FORM, HeaderValue::from_static("send"));
                answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                answer.extensions_mut().insert(ForScript);
                Ok(answer)
            }
            Outdated::Repeat => Err(refusal::not_guarded_any_more()),
        }
    }

    /// The same. The body is not needed.
    pub(super) async fn outdated_before_body(
        &self,
        outdated: Outdated,
        fields: Fields,
        body: IncomingBody,
    ) -> Result<ProxyResponse, Problem> {
        if !fields.has(Fields::EXPECT) {
            buffer::drain(body).await;
        }
        self.outdated(outdated)
    }
}
