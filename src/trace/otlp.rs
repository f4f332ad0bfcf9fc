//! Spans that are measured, if the environment names a collector.

use std::env;
use std::fmt::Display;
use std::sync::OnceLock;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{
    Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::CONTEXT;
use super::collector::Collector;

/// The destination of spans. [`finish`](Self::finish) sends the last ones.
#[derive(Debug)]
pub struct Traces(Option<(SdkTracerProvider, String)>);

/// Set if the environment names a collector.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// How long the end of the process waits for the collector.
const LAST_SPANS: Duration = Duration::from_secs(2);

/// Sends spans to the collector that the environment names (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or
/// `OTEL_EXPORTER_OTLP_ENDPOINT`). The other OpenTelemetry variables for exporters, samplers and resources apply too.
///
/// # Errors
///
/// A sentence about the fault in these variables.
pub fn start() -> Result<Traces, String> {
    let named = |variable: &str| env::var(variable).ok().filter(|value| !value.is_empty());
    let Some(endpoint) = named("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| Some(format!("{}/v1/traces", named("OTEL_EXPORTER_OTLP_ENDPOINT")?.trim_end_matches('/'))))
    else {
        return Ok(Traces(None));
    };
    let collector = Collector::new(&endpoint)?;
    let exporter = SpanExporter::builder().with_http().with_http_client(collector).with_endpoint(&endpoint).build();
    let exporter = exporter.map_err(|error| format!("traces cannot be sent to {endpoint}: {error}"))?;
    let mut resource = Resource::builder();
    if named("OTEL_SERVICE_NAME").is_none() {
        resource = resource.with_service_name(env!("CARGO_PKG_NAME"));
    }
    let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build();
    // A second start in one process keeps the first tracer.
    let _ = TRACER.set(provider.tracer(env!("CARGO_PKG_NAME")));
    Ok(Traces(Some((provider, endpoint))))
}

impl Traces {
    /// The address of the collector.
    pub fn endpoint(&self) -> Option<&str> {
        self.0.as_ref().map(|(_, endpoint)| endpoint.as_str())
    }

    /// Sends the remaining spans. It blocks for two seconds at most.
    pub fn finish(self) {
        if let Some((provider, _)) = self.0 {
            // If the collector does not respond, the last spans are lost.
            let _ = provider.shutdown_with_timeout(LAST_SPANS);
        }
    }
}

/// A span. It ends when it is dropped.
#[derive(Debug)]
pub struct Span(Option<Box<opentelemetry_sdk::trace::Span>>);

/// The parent of further spans.
#[derive(Debug, Clone, Default)]
pub struct Parent(Option<Box<Context>>);

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

impl Span {
    /// The span of a request, with the pattern of its route. Without a valid `traceparent` it begins a trace, and
    /// `tracestate`, which belongs to another one, is removed (W3C Trace Context, 4.2 and 4.3).
    pub fn server(request: &mut HeaderMap, method: &Method, route: Option<&str>) -> Self {
        let Some(tracer) = TRACER.get() else { return Self(None) };
        let parent = parent_in(request);
        if !parent.has_active_span() {
            request.remove(TRACESTATE);
        }
        let method = method_name(method);
        let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
        let mut attributes = vec![KeyValue::new("http.request.method", method.to_owned())];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        let builder = SpanBuilder::from_name(name).with_kind(SpanKind::Server).with_attributes(attributes);
        Self::valid(tracer.build_with_context(builder, &parent))
    }

    /// Once tracing has been shut down, spans have no identifiers. None of those may reach the backend.
    fn valid(span: opentelemetry_sdk::trace::Span) -> Self {
        Self(span.span_context().is_valid().then(|| Box::new(span)))
    }

    /// The parent of further spans.
    pub fn parent(&self) -> Parent {
        let context = |span: &opentelemetry_sdk::trace::Span| span.span_context().clone();
        let context = self.0.as_deref().map(context);
        Parent(context.map(|context| Box::new(Context::new().with_remote_span_context(context))))
    }

    /// The context for a record. `None` if the span is not sent to the collector.
    pub fn context(&self) -> Option<[u8; CONTEXT]> {
        let context = self.0.as_ref()?.span_context();
        let mut bytes = [0; CONTEXT];
        bytes[..16].copy_from_slice(&context.trace_id().to_bytes());
        bytes[16..24].copy_from_slice(&context.span_id().to_bytes());
        bytes[24] = context.trace_flags().to_u8();
        context.is_sampled().then_some(bytes)
    }

    /// Links to the context in a record. An unreadable context is ignored.
    pub fn link(&mut self, kept: &[u8]) {
        let (Some(span), Ok(bytes)) = (&mut self.0, <[u8; CONTEXT]>::try_from(kept)) else { return };
        let (trace, rest) = bytes.split_at(16);
        let (Ok(trace), Ok(id)) = (trace.try_into(), rest[..8].try_into()) else { return };
        let (trace, id, flags) = (TraceId::from_bytes(trace), SpanId::from_bytes(id), TraceFlags::new(rest[8]));
        let context = SpanContext::new(trace, id, flags, true, TraceState::NONE);
        if context.is_valid() {
            span.add_link(context, Vec::new());
        }
    }

    /// Sets the outcome of a request on a guarded route.
    pub fn outcome(&mut self, route: &str, outcome: &'static str, record: Option<&dyn Display>) {
        let Some(span) = &mut self.0 else { return };
        span.set_attribute(KeyValue::new("onlyonce.route", route.to_owned()));
        span.set_attribute(KeyValue::new("onlyonce.outcome", outcome));
        if let Some(record) = record {
            span.set_attribute(KeyValue::new("onlyonce.record", record.to_string()));
        }
    }

    /// Sets the status of the response.
    pub fn status(&mut self, status: StatusCode) {
        let Some(span) = &mut self.0 else { return };
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            span.set_status(Status::error(""));
        }
    }

    /// Ends the span.
    pub fn end(self) {}

    /// Adds the span's context to a request to the backend.
    pub fn inject(&self, request: &mut HeaderMap) {
        let Some(span) = &self.0 else { return };
        let context = span.span_context();
        let flags = context.trace_flags().to_u8();
        let value = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
        if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(value)) {
            request.insert(TRACEPARENT, value);
        }
    }
}

impl Parent {
    /// The trace, also if it was begun here or is not sent to the collector.
    pub fn trace_id(&self) -> Option<[u8; 16]> {
        let context = self.0.as_ref()?;
        Some(context.span().span_context().trace_id().to_bytes())
    }

    /// A span for a call to the backend.
    pub fn client(&self, method: &Method) -> Span {
        let method = method_name(method);
        let attributes = vec![KeyValue::new("http.request.method", method.to_owned())];
        self.span(SpanBuilder::from_name(method.to_owned()).with_kind(SpanKind::Client).with_attributes(attributes))
    }

    /// A span for a step.
    pub fn step(&self, name: &'static str) -> Span {
        self.span(SpanBuilder::from_name(name))
    }

    fn span(&self, builder: SpanBuilder) -> Span {
        match self.0.as_ref().zip(TRACER.get()) {
            Some((parent, tracer)) => Span::valid(tracer.build_with_context(builder, parent)),
            None => Span(None),
        }
    }
}

/// The context in `traceparent`; one without a span if there is none that is valid.
fn parent_in(request: &HeaderMap) -> Context {
    let none = Context::new();
    let mut lines = request.get_all(TRACEPARENT).iter();
    match (lines.next(), lines.next()) {
        (Some(line), None) if is_well_formed(line.as_bytes().trim_ascii()) => {
            TraceContextPropagator::new().extract_with_context(&none, &HeaderExtractor(request))
        }
        _ => none,
    }
}

/// Whether this has the form of version 00, or begins with it in a later version (W3C Trace Context, 3.2.2 and 3.2.4).
/// The propagator takes shorter identifiers too, and signs before numbers.
fn is_well_formed(line: &[u8]) -> bool {
    const LENGTH: usize = 55;
    let Some((known, later)) = line.split_at_checked(LENGTH) else { return false };
    let mut known = known.iter().enumerate();
    known.all(|(at, byte)| match at {
        2 | 35 | 52 => *byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    }) && (later.is_empty() || !line.starts_with(b"00") && later.starts_with(b"-"))
}

/// The method in a span. A client may send any word as a method, so an unknown one is `_OTHER` (the semantic
/// conventions for HTTP).
fn method_name(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::DELETE
        | Method::CONNECT
        | Method::OPTIONS
        | Method::TRACE
        | Method::PATCH => method.as_str(),
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_after_the_shutdown_is_none() {
        let provider = SdkTracerProvider::builder().build();
        let tracer = opentelemetry::trace::TracerProvider::tracer(&provider, "onlyonce");
        let span = || Span::valid(tracer.build_with_context(SpanBuilder::from_name("POST"), &Context::new()));
        assert!(span().parent().trace_id().is_some());
        provider.shutdown().expect("nothing is left to send");
        let span = span();
        let mut request = HeaderMap::new();
        request.insert(TRACEPARENT, HeaderValue::from_static("as it came"));
        span.inject(&mut request);
        assert_eq!((span.parent().trace_id(), &request[TRACEPARENT]), (None, &HeaderValue::from_static("as it came")));
    }
}
