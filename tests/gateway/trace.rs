//! W3C Trace Context, and spans as a collector gets them.

use serde_json::Value;

use crate::common::recorder::reply;
use crate::common::{Answer, Client, Gateway, Recorder, Setup, get, post, until};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{SPAN}-{flags}")
}

fn setup(app: &Recorder) -> Setup {
    Setup::new(app.address()).key("log.format", "\"json\"").key("admin.listen", "\"127.0.0.1:0\"")
}

/// A gateway that sends its spans to `collector`.
fn traced(app: &Recorder, collector: &Recorder, sample: &str) -> Setup {
    let url = format!("\"http://{}\"", collector.address());
    setup(app).key("trace.otlp", &url).key("trace.sample", sample).key("trace.service", "\"edge\"")
}

fn collector() -> Recorder {
    Recorder::answering(|_| Answer::Keep(reply("200 OK", "Content-Type: application/json\r\n", "{}")))
}

/// A span with what OTLP wants of it checked, its attributes as `key` and text.
struct Span {
    span: Value,
}

impl Span {
    fn text(&self, key: &str) -> String {
        self.span[key].as_str().unwrap_or_else(|| panic!("no {key} in {}", self.span)).to_owned()
    }

    fn attribute(&self, key: &str) -> Option<String> {
        let all = self.span["attributes"].as_array().expect("attributes");
        let value = &all.iter().find(|attribute| attribute["key"] == key)?["value"];
        let found = value["stringValue"].as_str().or_else(|| value["intValue"].as_str());
        Some(found.unwrap_or_else(|| panic!("neither text nor number: {value}")).to_owned())
    }

    fn times(&self) -> (u128, u128) {
        let nanos = |key| self.text(key).parse::<u128>().expect("nanoseconds");
        (nanos("startTimeUnixNano"), nanos("endTimeUnixNano"))
    }
}

/// The spans of the next batch, taken apart as a collector would.
fn batch(collector: &Recorder) -> Vec<Span> {
    let request = collector.next();
    assert!(request.line().starts_with("POST /v1/traces HTTP/1.1"), "{}", request.line());
    assert_eq!(request.header("content-type").as_deref(), Some("application/json"));
    let document: Value = serde_json::from_slice(&request.body).expect("JSON");
    let resources = document["resourceSpans"].as_array().expect("a list");
    assert_eq!(resources.len(), 1);
    let service = &resources[0]["resource"]["attributes"][0];
    assert_eq!((&service["key"], &service["value"]["stringValue"]), (&"service.name".into(), &"edge".into()));
    let scopes = resources[0]["scopeSpans"].as_array().expect("a list");
    let spans: Vec<Span> =
        scopes[0]["spans"].as_array().unwrap().iter().map(|span| Span { span: span.clone() }).collect();
    assert!(scopes.len() == 1 && !spans.is_empty(), "{document}");
    for span in &spans {
        let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let (trace, id) = (span.text("traceId"), span.text("spanId"));
        assert!(trace.len() == 32 && is_hex(&trace) && id.len() == 16 && is_hex(&id), "{}", span.span);
        let (start, end) = span.times();
        assert!(start > 1_700_000_000_000_000_000 && end >= start, "{}", span.span);
    }
    spans
}

/// All spans until there are `count`.
fn spans(collector: &Recorder, count: usize) -> Vec<Span> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(batch(collector));
    }
    assert_eq!(all.len(), count);
    all
}

fn metric(gateway: &Gateway, series: &str) -> u64 {
    let page = Client::of(gateway.admin()).send(&get("/metrics")).text();
    let line = page.lines().find_map(|line| line.strip_prefix(series)).expect("the series");
    line.trim().parse().expect("a number")
}

#[test]
fn without_trace_the_fields_pass_as_they_came() {
    let app = Recorder::start();
    let gateway = setup(&app).start();
    let cases = [
        (parent("01"), Some(TRACE)),
        (parent("00"), Some(TRACE)),
        (format!("cc-{TRACE}-{SPAN}-01-more"), Some(TRACE)),
        ("nonsense".to_owned(), None),
    ];
    for (number, (value, trace)) in cases.into_iter().enumerate() {
        let path = format!("/public/{number}");
        let request = get(&path).header("Traceparent", &value).header("Tracestate", "a=1, b=2");
        gateway.send(&request).assert_status(200, &value);
        let seen = app.only(&value);
        assert_eq!(seen.header("traceparent"), Some(value));
        assert_eq!(seen.header("tracestate").as_deref(), Some("a=1, b=2"));
        let line = gateway.access_line("the request", |line| line["path"] == *path);
        assert_eq!(line["trace_id"].as_str(), trace);
    }
    gateway.send(&get("/public/y")).assert_status(200, "without a trace");
    assert!(app.only("none is made up").header("traceparent").is_none());
}

#[test]
fn a_recorded_request_is_two_spans_of_its_parents_trace() {
    let (app, collector) = (Recorder::start(), collector());
    let gateway = traced(&app, &collector, "0").start();
    let request = get("/public/x?secret=1").header("Traceparent", &parent("01")).header("Tracestate", "a=1");
    gateway.send(&request).assert_status(200, "let through");
    let told = app.only("let through");
    let spans = spans(&collector, 2);
    let [server, client] = &spans[..] else { panic!("two") };
    assert_eq!((server.text("traceId"), server.text("parentSpanId")), (TRACE.to_owned(), SPAN.to_owned()));
    assert_eq!(server.span["kind"], 2);
    assert_eq!(server.text("name"), "GET public");
    for (key, value) in [
        ("http.request.method", "GET"),
        ("url.path", "/public/x"),
        ("http.response.status_code", "200"),
        ("portcullis.route", "public"),
        ("portcullis.outcome", "permit"),
    ] {
        assert_eq!(server.attribute(key).as_deref(), Some(value), "{key}");
    }
    assert_eq!((client.text("traceId"), client.text("parentSpanId")), (TRACE.to_owned(), server.text("spanId")));
    assert_eq!(client.span["kind"], 3);
    assert_eq!(client.attribute("peer.service").as_deref(), Some("app"));
    assert_eq!(client.attribute("http.response.status_code").as_deref(), Some("200"));
    let (outer, inner) = (server.times(), client.times());
    assert!(outer.0 <= inner.0 && inner.1 <= outer.1, "{outer:?} {inner:?}");
    assert_eq!(told.header("traceparent"), Some(format!("00-{TRACE}-{}-01", client.text("spanId"))));
    assert_eq!(told.header("tracestate").as_deref(), Some("a=1"));
    let line = gateway.access_line("the request", |line| line["path"] == "/public/x");
    assert_eq!(line["trace_id"], TRACE);
    assert_eq!(Some(line["request_id"].as_str().unwrap().to_owned()), server.attribute("portcullis.request_id"));
    assert!(!server.span.to_string().contains("secret"), "no query: {}", server.span);
}

#[test]
fn what_is_not_sampled_is_not_recorded() {
    let (app, collector) = (Recorder::start(), collector());
    let gateway = traced(&app, &collector, "0.0").start();
    gateway.send(&get("/public/a").header("Traceparent", &parent("00"))).assert_status(200, "not sampled");
    assert_eq!(app.only("as it came").header("traceparent"), Some(parent("00")));
    gateway.send(&get("/public/b")).assert_status(200, "a root");
    assert!(app.only("none in a hundred").header("traceparent").is_none());
    gateway.send(&get("/public/c").header("Traceparent", &parent("01"))).assert_status(200, "sampled");
    let paths: Vec<_> = spans(&collector, 2).iter().filter_map(|span| span.attribute("url.path")).collect();
    assert_eq!(paths, ["/public/c"]);
}

#[test]
fn a_trace_begins_here_when_there_is_none_or_it_is_not_valid() {
    let (app, collector) = (Recorder::start(), collector());
    let gateway = traced(&app, &collector, "1").start();
    let invalid = get("/public/x").header("Traceparent", "00-00-00-01").header("Tracestate", "a=1");
    for request in [get("/public/x"), invalid] {
        gateway.send(&request).assert_status(200, "let through");
        let told = app.only("let through");
        let spans = spans(&collector, 2);
        assert_eq!(spans[0].text("parentSpanId"), "");
        assert_ne!(spans[0].text("traceId"), TRACE);
        let expected = format!("00-{}-{}-01", spans[0].text("traceId"), spans[1].text("spanId"));
        assert_eq!(told.header("traceparent"), Some(expected));
        assert!(told.header("tracestate").is_none());
    }
}

#[test]
fn refusals_and_failures_are_told_apart() {
    let (app, collector) = (Recorder::start(), collector());
    let gateway = traced(&app, &collector, "1")
        .key("upstreams.nobody", "\"http://127.0.0.1:1\"")
        .routes(
            "[[routes]]\nname = \"gone\"\npath = \"/gone\"\nallow = \"anyone\"\nupstream = \"nobody\"\n\
             [[routes]]\nname = \"rest\"\npath = \"/rest/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n",
        )
        .start();
    gateway.send(&get("/rest/x")).assert_status(401, "challenged");
    let challenged = spans(&collector, 1);
    assert_eq!(challenged[0].attribute("portcullis.outcome").as_deref(), Some("challenge"));
    assert!(challenged[0].span["status"].get("code").is_none(), "a client's mistake is no error of the server");
    gateway.send(&get("/gone")).assert_status(502, "nobody there");
    let failed = spans(&collector, 2);
    assert_eq!(failed[0].attribute("portcullis.outcome").as_deref(), Some("upstream-error"));
    assert_eq!(failed[1].attribute("error.type").as_deref(), Some("connect"));
    assert!(failed.iter().all(|span| span.span["status"]["code"] == 2));
    app.assert_untouched("neither");
}

#[test]
fn a_collector_that_is_away_or_refuses_costs_spans_and_no_request() {
    let app = Recorder::start();
    let refusing = Recorder::answering(|_| Answer::Close(reply("503 Service Unavailable", "", "")));
    for away in [false, true] {
        let mut setup = traced(&app, &refusing, "1.0").key("log.access", "\"off\"");
        if away {
            setup = setup.key("trace.otlp", "\"http://127.0.0.1:1\"");
        }
        let gateway = setup.start();
        let mut client = gateway.client();
        for _ in 0..50 {
            client.send(&get("/public/x")).assert_status(200, "as ever");
        }
        let series = "portcullis_trace_spans_dropped_total{reason=\"exporter\"}";
        until("the drops to be counted", || (metric(&gateway, series) == 100).then_some(()));
        assert_eq!(metric(&gateway, "portcullis_trace_spans_exported_total"), 0);
        let ended = gateway.stop();
        assert_eq!(ended.stderr.matches("the collector takes no spans").count(), 1, "once: {}", ended.stderr);
    }
}

#[test]
fn the_last_spans_go_out_before_the_end() {
    let (app, collector) = (Recorder::start(), collector());
    let gateway = traced(&app, &collector, "1").start();
    gateway.send(&get("/public/x")).assert_status(200, "let through");
    gateway.stop();
    assert_eq!(spans(&collector, 2).len(), 2);
}

#[test]
fn audit_events_name_the_trace_of_their_request() {
    let app = Recorder::start();
    let closed = "[[routes]]\nname = \"closed\"\npath = \"/closed/**\"\nallow = \"nobody\"\nupstream = \"app\"\n\
                  [[routes]]\nname = \"rest\"\npath = \"/rest/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n";
    // Without access lines too: what an auditor reads does not hang on them.
    for access in ["stdout", "off"] {
        let gateway = setup(&app).key("log.access", &format!("{access:?}")).routes(closed).start();
        let token = gateway.token("alice");
        let signing_in = serde_json::json!({ "username": "alice", "password": "not it" });
        let cases = [
            ("denied", 403, get("/closed/x").bearer(&token)),
            ("bad-credential", 401, get("/rest/x").bearer("not.a.token")),
            ("sign-in-failed", 403, post("/login").json(&signing_in)),
            ("cross-site", 403, post("/login").json(&signing_in).header("Sec-Fetch-Site", "cross-site")),
            ("signed-out", 204, post("/logout").bearer(&token)),
        ];
        for (event, status, request) in cases {
            gateway.send(&request.header("Traceparent", &parent("00"))).assert_status(status, event);
            let found = audit_event(&gateway, event);
            assert_eq!((found["trace_id"].as_str(), found["request_id"].is_string()), (Some(TRACE), true), "{found}");
        }
        gateway.send(&post("/login").json(&signing_in)).assert_status(403, "of no trace");
        let of_none = |line: &Value| line["event"] == "sign-in-failed" && line.get("trace_id").is_none();
        gateway.stderr.wait("an event without a trace", |line| serde_json::from_str(line).ok().filter(of_none));
    }
}

fn audit_event(gateway: &Gateway, name: &str) -> Value {
    let is_it = |line: &Value| line["target"] == "portcullis::audit" && line["event"] == name;
    gateway.stderr.wait(name, |line| serde_json::from_str(line).ok().filter(is_it))
}

#[test]
fn a_reload_begins_moves_and_ends_traces() {
    let (app, first, second) = (Recorder::start(), collector(), collector());
    let with_control = |setup: Setup| setup.key("admin.control", "\"./portcullis.sock\"");
    let gateway = with_control(setup(&app)).start();
    let mut client = gateway.client();
    let mut ask = |path: &str| {
        client.send(&get(path)).assert_status(200, path);
        app.only(path).header("traceparent")
    };
    let recorded = |collector: &Recorder| {
        let paths: Vec<_> = spans(collector, 2).iter().filter_map(|span| span.attribute("url.path")).collect();
        paths.concat()
    };
    assert_eq!(ask("/public/before"), None);
    let ran = gateway.reload(&with_control(traced(&app, &first, "1")));
    assert!(ran.stdout.contains("keys: trace\n") && ran.stderr.is_empty(), "{}{}", ran.stdout, ran.stderr);
    assert!(ask("/public/first").is_some());
    assert_eq!(recorded(&first), "/public/first");
    gateway.reload(&with_control(traced(&app, &second, "1")));
    assert!(ask("/public/second").is_some());
    assert_eq!(recorded(&second), "/public/second");
    // Nothing of it has changed: the exporter stays.
    gateway.reload(&with_control(traced(&app, &second, "1")).key("log.level", "\"debug\""));
    assert!(ask("/public/still").is_some());
    assert_eq!(recorded(&second), "/public/still");
    gateway.reload(&with_control(setup(&app)));
    assert_eq!(ask("/public/after"), None);
    // What was recorded is sent before the end.
    gateway.stop();
    assert!(first.take().is_empty() && second.take().is_empty(), "nothing of what came after");
}
