//! The exporter of spans: OTLP 1.x as JSON over HTTP or HTTPS, in batches, on the control thread.
//!
//! Written by hand: the opentelemetry crates bring fifty others, and their spans allocate on the way of every request. A
//! collector that is down or slow costs spans, which are counted, and nothing else.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

use super::Record;
use super::trace::{Finished, Job, SpanId, Tracer};
use crate::config::{self, HostPort};
use crate::metrics::Metrics;
use crate::upstream::fetch::{self, FetchError};

/// Starts an exporter to the collector of `[trace]` in this runtime.
pub fn start(config: &config::Trace, metrics: &Arc<Metrics>) -> Tracer {
    let (tracer, queue) = Tracer::new(config, metrics);
    let exporter = Exporter { config: config.clone(), metrics: Arc::clone(metrics), is_failing: false };
    tokio::spawn(exporter.run(queue));
    tracer
}

struct Exporter {
    config: config::Trace,
    metrics: Arc<Metrics>,
    is_failing: bool,
}

/// Why a batch did not go out.
#[derive(Debug)]
enum ExportError {
    Io(io::Error),
    Tls(FetchError),
    Http(hyper::Error),
    Refused(http::StatusCode),
    TooSlow,
}

impl Exporter {
    async fn run(mut self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.recv().await {
            let (mut spans, mut flushes) = (Vec::new(), Vec::new());
            let due = Instant::now() + EVERY;
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Request(finished) => append(&mut spans, &finished),
                    Job::Flush(done) => flushes.push(done),
                }
                let is_full = spans.len() >= BATCH || !flushes.is_empty();
                next = if is_full { None } else { timeout_at(due, queue.recv()).await.ok().flatten() };
            }
            self.send(spans).await;
            flushes.into_iter().for_each(|done: oneshot::Sender<()>| {
                let _asker_left = done.send(());
            });
        }
    }

    async fn send(&mut self, spans: Vec<Value>) {
        let count = spans.len() as u64;
        if count == 0 {
            return;
        }
        let sent = match timeout(PATIENCE, self.post(document(&self.config.service, spans))).await {
            Ok(sent) => sent,
            Err(_) => Err(ExportError::TooSlow),
        };
        match sent {
            Ok(refused) => {
                let refused = refused.min(count);
                self.metrics.spans_exported.add(count - refused);
                self.metrics.spans_dropped.add("exporter", refused);
                if self.is_failing {
                    tracing::info!("the collector takes spans again");
                }
                self.is_failing = false;
            }
            Err(error) => {
                self.metrics.spans_dropped.add("exporter", count);
                // Told once per outage.
                if !self.is_failing {
                    tracing::warn!(%error, "the collector takes no spans: they are dropped");
                }
                self.is_failing = true;
            }
        }
    }

    /// How many of the spans the collector did not take, which it says in its answer.
    async fn post(&self, document: Value) -> Result<u64, ExportError> {
        let HostPort { host, port } = &self.config.collector;
        let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(ExportError::Io)?;
        if !self.config.https {
            return self.post_on(stream, document).await;
        }
        let stream = fetch::over_tls(stream, host, self.config.ca.as_deref()).await.map_err(ExportError::Tls)?;
        self.post_on(stream, document).await
    }

    async fn post_on<S>(&self, stream: S, document: Value) -> Result<u64, ExportError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ExportError::Http)?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(self.request(&document)).await.map_err(ExportError::Http)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await;
        connection.abort();
        if !status.is_success() {
            return Err(ExportError::Refused(status));
        }
        let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let said: Value = serde_json::from_slice(&body).unwrap_or_default();
        let refused = &said["partialSuccess"]["rejectedSpans"];
        // 64-bit numbers are strings in Protobuf's JSON; not everyone keeps to it.
        Ok(refused.as_u64().or_else(|| refused.as_str()?.parse().ok()).unwrap_or(0))
    }

    fn request(&self, document: &Value) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::from(document.to_string()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/v1/traces");
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION"))));
        if let Ok(host) = HeaderValue::try_from(self.config.collector.to_string()) {
            headers.insert(HOST, host);
        }
        request
    }
}

/// A batch of spans as an `ExportTraceServiceRequest`.
fn document(service: &str, spans: Vec<Value>) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [text("service.name", service), text("service.version", version)];
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource },
        "scopeSpans": [{ "scope": { "name": "portcullis", "version": version }, "spans": spans }],
    }] })
}

/// The spans of a request: the gateway's, and the one of the way to the upstream.
fn append(spans: &mut Vec<Value>, finished: &Finished) {
    let Finished { record, away, is_cut } = finished;
    let Some(recording) = &record.recording else { return };
    let (status, method) = (record.status.as_u16(), record.method.as_str());
    let route = record.route.as_deref().unwrap_or("-");
    let trace = recording.trace.to_string();
    let mut attributes = vec![
        text("http.request.method", method),
        text("url.path", record.page.path()),
        text("server.address", record.page.host()),
        text("client.address", &record.client.to_string()),
        number("http.response.status_code", status),
        text("portcullis.route", route),
        text("portcullis.outcome", record.outcome().name()),
        text("portcullis.reason", &record.reason),
        text("portcullis.request_id", &record.request_id.digits()),
    ];
    attributes.extend(is_cut.then(|| text("error.type", "cut")));
    let mut server = json!({
        "traceId": trace,
        "spanId": recording.server.to_string(),
        "name": format!("{method} {route}"),
        "kind": SERVER,
        "startTimeUnixNano": nanos(record, Duration::ZERO),
        "endTimeUnixNano": nanos(record, record.duration),
        "attributes": attributes,
        "status": state(status >= 500 || *is_cut),
    });
    server["parentSpanId"] = recording.parent.map_or_else(String::new, |parent| SpanId::to_string(&parent)).into();
    spans.push(server);
    let Some((left, away)) = away else { return };
    let upstream = record.upstream.as_deref().unwrap_or("-");
    let mut attributes = vec![text("http.request.method", method), text("peer.service", upstream)];
    let answered = record.upstream_time.is_some();
    attributes.push(if answered {
        number("http.response.status_code", status)
    } else {
        text("error.type", &record.reason)
    });
    spans.push(json!({
        "traceId": trace,
        "spanId": recording.client.to_string(),
        "parentSpanId": recording.server.to_string(),
        "name": format!("{method} {upstream}"),
        "kind": CLIENT,
        "startTimeUnixNano": nanos(record, *left),
        "endTimeUnixNano": nanos(record, *left + *away),
        "attributes": attributes,
        "status": state(!answered || status >= 400),
    }));
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn number(key: &str, value: u16) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn state(is_error: bool) -> Value {
    if is_error { json!({ "code": 2 }) } else { json!({}) }
}

/// The moment `after` the request's beginning, in nanoseconds since 1970.
fn nanos(record: &Record, after: Duration) -> String {
    let moment = Duration::from_millis(record.time.as_millis()) + after;
    moment.as_nanos().to_string()
}

impl std::fmt::Display for ExportError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Tls(error) => write!(f, "{error}"),
            Self::Http(error) => write!(f, "{error}"),
            Self::Refused(status) => write!(f, "it answers {status}"),
            Self::TooSlow => f.write_str("it does not answer in time"),
        }
    }
}

const SERVER: u8 = 2;
const CLIENT: u8 = 3;

/// How long a span waits for others.
const EVERY: Duration = Duration::from_secs(1);

/// Spans of a batch, about: some hundred kilobytes.
const BATCH: usize = 256;

/// How long a batch may take, from connecting to the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a collector's answer.
const LONGEST_ANSWER: usize = 64 * 1024;

#[cfg(test)]
mod tests;
