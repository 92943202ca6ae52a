//! `/metrics` of a running gateway: what is counted, and that the page is one that Prometheus's linter would pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Instant;

use serde_json::json;

use crate::common::recorder::reply;
use crate::common::{Answer, Client, Gateway, Recorder, Response, Setup, Wire, get, post, until};

/// Some named routes, one without a name, and nothing for other paths.
const ROUTES: &str = r#"
    [[routes]]
    path = "/public/**"
    allow = "anyone"
    upstream = "app"

    [[routes]]
    name = "admin"
    path = "/admin/**"
    allow = { groups = ["admin"] }
    upstream = "app"

    [[routes]]
    name = "gone"
    path = "/gone/**"
    allow = "anyone"
    upstream = "nobody"

    [[routes]]
    name = "never asked"
    path = "/never/**"
    allow = "anyone"
    upstream = "app"
"#;

fn setup(app: &Recorder) -> Setup {
    Setup::new(app.address())
        .key("admin.listen", "\"127.0.0.1:0\"")
        .key("upstreams.nobody", "\"http://127.0.0.1:1\"")
        .user("bob", &[])
        .routes(ROUTES)
}

/// A page, taken apart: kinds by family, values by series, in the order in which they stand.
struct Page {
    kinds: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
    series: Vec<(Series, f64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    labels: Vec<(String, String)>,
}

impl Series {
    /// `name{a="b",c="d"}` or `name`. Values in these tests have neither quotes nor commas.
    fn parse(text: &str) -> Self {
        let (name, labels) = text.split_once('{').unwrap_or((text, "}"));
        let inner = labels.strip_suffix('}').unwrap_or_else(|| panic!("labels do not end: {text}"));
        let label = |pair: &str| {
            let (name, value) = pair.split_once("=\"").unwrap_or_else(|| panic!("no value: {text}"));
            (name.to_owned(), value.strip_suffix('"').expect("a quoted value").to_owned())
        };
        let labels = inner.split(',').filter(|pair| !pair.is_empty()).map(label).collect();
        Self { name: name.to_owned(), labels }
    }
}

impl Page {
    fn read(text: &str) -> Self {
        let mut page = Self { kinds: BTreeMap::new(), helps: BTreeMap::new(), series: Vec::new() };
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next()) {
                (Some("#"), Some("TYPE")) => {
                    let (name, kind) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
                    assert_eq!(page.kinds.insert(name, kind), None, "twice: {line}");
                }
                (Some("#"), Some("HELP")) => {
                    let (name, help) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
                    assert_eq!(page.helps.insert(name, help), None, "twice: {line}");
                }
                (Some("#"), Some("UNIT" | "EOF")) => {}
                (Some("#"), _) => panic!("neither of the formats has {line}"),
                _ => {
                    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
                    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
                    page.series.push((Series::parse(series), value));
                }
            }
        }
        page
    }

    fn of(gateway: &Gateway) -> Self {
        Self::read(&scrape(gateway, None).text())
    }

    /// The value of a series, which must be there.
    #[track_caller]
    fn value(&self, series: &str) -> f64 {
        let wanted = Series::parse(series);
        let found = self.series.iter().find(|(series, _)| *series == wanted);
        found.unwrap_or_else(|| panic!("no {series} among {:#?}", self.names())).1
    }

    fn names(&self) -> BTreeSet<&Series> {
        self.series.iter().map(|(series, _)| series).collect()
    }
}

/// Asks for the page as Prometheus does.
fn scrape(gateway: &Gateway, accept: Option<&str>) -> Response {
    let mut request = get("/metrics");
    if let Some(accept) = accept {
        request = request.header("Accept", accept);
    }
    let answer = Client::of(gateway.admin()).send(&request);
    answer.assert_status(200, "a scrape");
    answer
}

/// A request of every kind.
fn traffic(gateway: &Gateway) {
    let (alice, bob) = (gateway.token("alice"), gateway.token("bob"));
    gateway.sign_in("alice", "wrong").assert_status(403, "a wrong password");
    for _ in 0..3 {
        gateway.send(&get("/admin/x").bearer(&alice)).assert_status(200, "allowed");
    }
    gateway.send(&get("/admin/x").bearer(&bob)).assert_status(403, "denied");
    gateway.send(&get("/admin/x")).assert_status(401, "challenged");
    gateway.send(&get("/public/x")).assert_status(200, "public");
    gateway.send(&get("/gone/x")).assert_status(502, "nobody there");
    gateway.send(&get("/elsewhere")).assert_status(404, "no route");
    gateway.send(&get("/a/../b")).assert_status(400, "malformed");
}

#[test]
fn counts_what_came_of_every_request() {
    let app = Recorder::start();
    let gateway = setup(&app).start();
    traffic(&gateway);
    let page = Page::of(&gateway);
    for (series, count) in [
        ("portcullis_requests_total{route=\"admin\",outcome=\"permit\"}", 3.0),
        ("portcullis_requests_total{route=\"admin\",outcome=\"deny\"}", 1.0),
        ("portcullis_requests_total{route=\"admin\",outcome=\"challenge\"}", 1.0),
        ("portcullis_requests_total{route=\"admin\",outcome=\"error\"}", 0.0),
        ("portcullis_requests_total{route=\"route-1\",outcome=\"permit\"}", 1.0),
        ("portcullis_requests_total{route=\"gone\",outcome=\"upstream-error\"}", 1.0),
        ("portcullis_requests_total{route=\"gone\",outcome=\"permit\"}", 0.0),
        ("portcullis_requests_total{route=\"-\",outcome=\"not-found\"}", 1.0),
        ("portcullis_requests_total{route=\"-\",outcome=\"bad-request\"}", 1.0),
        ("portcullis_requests_total{route=\"-\",outcome=\"own\"}", 3.0),
        ("portcullis_responses_total{route=\"admin\",code=\"2xx\"}", 3.0),
        ("portcullis_responses_total{route=\"admin\",code=\"4xx\"}", 2.0),
        ("portcullis_responses_total{route=\"gone\",code=\"5xx\"}", 1.0),
        ("portcullis_logins_total{result=\"success\"}", 2.0),
        ("portcullis_logins_total{result=\"failure\"}", 1.0),
        ("portcullis_token_cache_lookups_total{result=\"miss\"}", 2.0),
        ("portcullis_token_cache_lookups_total{result=\"hit\"}", 2.0),
        ("portcullis_token_cache_entries", 2.0),
        ("portcullis_upstream_connects_total{upstream=\"nobody\",result=\"refused\"}", 1.0),
        ("portcullis_upstream_errors_total{upstream=\"nobody\",reason=\"connect\"}", 1.0),
        ("portcullis_upstream_errors_total{upstream=\"app\",reason=\"connect\"}", 0.0),
        ("portcullis_gateway_duration_seconds_count{route=\"admin\"}", 5.0),
        ("portcullis_upstream_duration_seconds_count{route=\"admin\"}", 3.0),
        ("portcullis_upstream_duration_seconds_count{route=\"gone\"}", 0.0),
        ("portcullis_store_up", 1.0),
        ("portcullis_revocations", 0.0),
        ("portcullis_passwords_waiting", 0.0),
        ("portcullis_reload_last_successful", 1.0),
        ("portcullis_access_log_lines_dropped_total", 0.0),
        ("portcullis_build_info{version=\"0.1.0\"}", 1.0),
    ] {
        assert_eq!(page.value(series), count, "{series}");
    }
    assert!(page.value("portcullis_upstream_connects_total{upstream=\"app\",result=\"success\"}") >= 1.0);
    assert!(page.value("portcullis_store_staleness_seconds") < 30.0);
    assert!(page.value("portcullis_reload_last_success_timestamp_seconds") > 1.7e9);
    assert!(page.value("process_resident_memory_bytes") > 1e6);
    let asked = page.series.iter().any(|(series, _)| format!("{series:?}").contains("never asked"));
    assert!(!asked, "a route that nobody asked for has no series");
    let logged_out = post("/logout").bearer(&gateway.token("alice"));
    gateway.send(&logged_out).assert_status(204, "logging out");
    assert_eq!(Page::of(&gateway).value("portcullis_revocations"), 1.0);
}

#[test]
fn time_of_the_upstream_is_not_the_gateways() {
    let (came, comes) = channel::<()>();
    let (go, goes) = channel::<()>();
    let ends = Mutex::new((came, goes));
    let app = Recorder::answering(move |_| {
        let ends = ends.lock().unwrap();
        ends.0.send(()).unwrap();
        ends.1.recv().unwrap();
        Answer::Keep(reply("200 OK", "", "late"))
    });
    let gateway = setup(&app).start();
    let began = Instant::now();
    let held = std::thread::scope(|scope| {
        let asking = scope.spawn(|| gateway.send(&get("/public/x")));
        comes.recv().unwrap();
        let came = Instant::now();
        // Something that takes its time: two passwords are hashed.
        (0..2).for_each(|_| drop(gateway.token("alice")));
        let held = came.elapsed().as_secs_f64();
        go.send(()).unwrap();
        asking.join().unwrap().assert_status(200, "in the end");
        held
    });
    let took = began.elapsed().as_secs_f64();
    let page = Page::of(&gateway);
    let own = page.value("portcullis_gateway_duration_seconds_sum{route=\"route-1\"}");
    let upstream = page.value("portcullis_upstream_duration_seconds_sum{route=\"route-1\"}");
    assert!(upstream >= held && own + upstream <= took, "{own} and {upstream} of {took}, held for {held}");
}

#[test]
fn open_connections_are_counted_by_listener() {
    let app = Recorder::start();
    let gateway = setup(&app).start();
    let open = format!("portcullis_connections_open{{listener=\"{}\"}}", gateway.address);
    assert_eq!(Page::of(&gateway).value(&open), 0.0);
    let mut client = gateway.client();
    client.send(&get("/public/x")).assert_status(200, "a kept connection");
    assert_eq!(Page::of(&gateway).value(&open), 1.0);
    drop(client);
    until("the connection to be over", || (Page::of(&gateway).value(&open) == 0.0).then_some(()));
    let accepted = format!("portcullis_connections_accepted_total{{listener=\"{}\"}}", gateway.address);
    assert_eq!(Page::of(&gateway).value(&accepted), 1.0);
}

#[test]
fn connections_that_are_one_too_many_are_counted() {
    let app = Recorder::start();
    let gateway = setup(&app).key("server.limits.connections", "1").start();
    let mut client = gateway.client();
    client.send(&get("/public/x")).assert_status(200, "the one that there may be");
    gateway.send(&get("/public/x")).assert_status(503, "one too many");
    assert_eq!(Page::of(&gateway).value("portcullis_connections_refused_total"), 1.0);
    client.send(&get("/public/x")).assert_status(200, "still served");
}

#[test]
fn open_websockets_are_counted() {
    let app = Recorder::answering(|_| {
        Answer::Keep(b"HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_vec())
    });
    let gateway = setup(&app).start();
    let head = format!(
        "GET /public/socket HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        gateway.address
    );
    assert_eq!(Page::of(&gateway).value("portcullis_tunnels_open"), 0.0);
    let mut wire = Wire::connect(gateway.address);
    wire.write(head);
    wire.read_head().expect("the head of a 101");
    let page =
        until("an open socket", || Some(Page::of(&gateway)).filter(|page| page.value("portcullis_tunnels_open") > 0.0));
    assert_eq!((page.value("portcullis_tunnels_open"), page.value("portcullis_tunnels_opened_total")), (1.0, 1.0));
    drop(wire);
    let page =
        until("its end", || Some(Page::of(&gateway)).filter(|page| page.value("portcullis_tunnels_open") == 0.0));
    assert_eq!(page.value("portcullis_tunnels_opened_total"), 1.0);
}

#[test]
fn other_issuers_say_how_their_keys_are() {
    // The key of RFC 7517, appendix A.1.
    let keys = r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"1","alg":"ES256",
        "x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#;
    let app = Recorder::answering(move |_| Answer::Keep(reply("200 OK", "Content-Type: application/json\r\n", keys)));
    let issuer = |name: &str, url: &str| {
        format!(
            "[[issuers]]\nname = \"{name}\"\nissuer = \"https://{name}.example\"\naudience = [\"apps\"]\n\
             jwks = \"{url}/jwks.json\"\nuser_prefix = \"{name}:\"\n"
        )
    };
    let well = issuer("corp", &format!("http://{}", app.address()));
    let routes = "[[routes]]\npath = \"/x\"\nallow = \"signed-in\"\nupstream = \"app\"\n";
    let gateway = setup(&app).routes(&(well.clone() + routes)).start();
    let page = until("the keys", || {
        let page = Page::of(&gateway);
        // The keys are there a moment before it is said that they have come.
        let says = ["portcullis_issuer_keys", "portcullis_issuer_last_fetch_successful"];
        says.iter().all(|name| page.value(&format!("{name}{{issuer=\"corp\"}}")) == 1.0).then_some(page)
    });
    assert_eq!(page.value("portcullis_issuer_fetches_total{issuer=\"corp\",result=\"success\"}"), 1.0);
    assert!(page.value("portcullis_issuer_keys_age_seconds{issuer=\"corp\"}") < 30.0);
    Client::of(gateway.admin()).send(&get("/readyz")).assert_status(200, "with its keys");

    let gateway = setup(&app).routes(&(well + &issuer("away", "http://127.0.0.1:1") + routes)).start();
    let failed = "portcullis_issuer_fetches_total{issuer=\"away\",result=\"failure\"}";
    let known = "portcullis_issuer_keys{issuer=\"corp\"}";
    let is_over = |page: &Page| page.value(failed) >= 1.0 && page.value(known) == 1.0;
    let page = until("an attempt at each", || Some(Page::of(&gateway)).filter(is_over));
    assert_eq!(page.value("portcullis_issuer_keys{issuer=\"away\"}"), 0.0);
    assert_eq!(page.value("portcullis_issuer_last_fetch_successful{issuer=\"away\"}"), 0.0);
    let answer = Client::of(gateway.admin()).send(&get("/readyz"));
    answer.assert_status(503, "without its keys");
    assert!(answer.text().starts_with("not ready: issuer away: has no keys: "), "{}", answer.text());
}

#[test]
fn a_linter_finds_nothing() {
    let app = Recorder::start();
    let gateway = setup(&app).start();
    traffic(&gateway);
    let page = Page::of(&gateway);
    assert!(page.series.len() > 100, "only {} series", page.series.len());
    assert_eq!(page.names().len(), page.series.len(), "a series stands there twice");
    assert_eq!(page.kinds.keys().collect::<Vec<_>>(), page.helps.keys().collect::<Vec<_>>());
    for (name, kind) in &page.kinds {
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
        let parts: Vec<&str> = name.split('_').collect();
        let other_units = ["milliseconds", "ms", "minutes", "kilobytes", "kb", "mb", "ratio", "percent"];
        assert!(!parts.iter().any(|part| other_units.contains(part)), "{name}: seconds and bytes");
        assert!(!page.helps[name].is_empty(), "{name}");
    }
    let mut before = String::new();
    let mut finished = BTreeSet::new();
    for (series, value) in &page.series {
        let family = family_of(&series.name, &page.kinds);
        if family != before {
            assert!(finished.insert(family.clone()), "{family} is not in one piece");
            before.clone_from(&family);
        }
        assert!(value.is_finite(), "{series:?} {value}");
        assert!(page.kinds[&family] == "gauge" || *value >= 0.0, "{series:?} {value}");
        let mut labels: Vec<&String> = series.labels.iter().map(|(name, _)| name).collect();
        labels.sort();
        labels.dedup();
        assert_eq!(labels.len(), series.labels.len(), "{series:?}");
    }
    buckets(&page);
}

/// The family of a sample: a histogram's have suffixes.
fn family_of(sample: &str, kinds: &BTreeMap<String, String>) -> String {
    let bare = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| sample.strip_suffix(suffix));
    let bare = bare.filter(|bare| kinds.get(*bare).is_some_and(|kind| kind == "histogram"));
    let family = bare.unwrap_or(sample);
    assert!(kinds.contains_key(family), "{sample} has no TYPE");
    family.to_owned()
}

/// Buckets never fall, and the last of them is the count.
fn buckets(page: &Page) {
    let mut histograms: BTreeMap<(String, String), Vec<(f64, f64)>> = BTreeMap::new();
    for (series, value) in page.series.iter().filter(|(series, _)| series.name.ends_with("_bucket")) {
        let label = |wanted: &str| series.labels.iter().find(|(name, _)| name == wanted).expect("a label").1.clone();
        let bound = label("le").replace("+Inf", "inf").parse().expect("a bound");
        histograms.entry((series.name.clone(), label("route"))).or_default().push((bound, *value));
    }
    assert!(histograms.len() >= 8, "only {} histograms", histograms.len());
    for ((name, route), buckets) in histograms {
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {route}: {buckets:?}");
        let last = buckets.last().expect("buckets");
        let count = page.value(&format!("{}_count{{route=\"{route}\"}}", name.trim_end_matches("_bucket")));
        assert_eq!(*last, (f64::INFINITY, count), "{name} {route}");
    }
}

#[test]
fn no_client_makes_a_series() {
    let app = Recorder::start();
    let gateway = setup(&app).start();
    traffic(&gateway);
    let before = Page::of(&gateway);
    for number in 0..40 {
        let path = format!("/public/{number}");
        gateway.send(&get(&path).host(&format!("h{number}.example")).header("Traceparent", "x"));
        gateway.send(&get(&format!("/elsewhere/{number}")));
        gateway.send(&get("/admin/x").bearer(&format!("a.b.{number}")));
        gateway.send(&crate::common::Request::new(&format!("METHOD{number}"), "/public/x"));
        gateway.sign_in(&format!("nobody{number}"), "wrong");
    }
    let after = Page::of(&gateway);
    assert_eq!(before.names(), after.names());
    assert!(after.value("portcullis_requests_total{route=\"admin\",outcome=\"challenge\"}") >= 40.0);
}

#[test]
fn both_formats_say_the_same() {
    let app = Recorder::start();
    let gateway = setup(&app).start();
    traffic(&gateway);
    let plain = scrape(&gateway, None);
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    let open = scrape(&gateway, Some(accept));
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open.text().ends_with("\n# EOF\n"), "{}", open.text());
    let (plain, open) = (Page::read(&plain.text()), Page::read(&open.text()));
    let names = |page: &Page| page.series.iter().map(|(series, _)| series.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&plain), names(&open));
    for (name, kind) in &plain.kinds {
        let family = if kind == "counter" { name.trim_end_matches("_total") } else { name };
        assert_eq!(open.kinds.get(family), Some(kind), "{family}");
    }
}

#[test]
fn metrics_are_on_the_admin_listener_only() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("admin.listen", "\"127.0.0.1:0\"").start();
    gateway.send(&get("/metrics")).assert_status(401, "an ordinary path on the public listener");
    app.assert_untouched("not let through");
    let mut admin = Client::of(gateway.admin());
    admin.send(&crate::common::Request::new("HEAD", "/metrics")).assert_status(200, "HEAD");
    let refused = admin.send(&post("/metrics").json(&json!({})));
    refused.assert_status(405, "POST");
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    admin.send(&get("/metrics/x")).assert_status(404, "nothing below");
}

#[test]
fn every_metric_is_described_and_nothing_else() {
    let app = Recorder::start();
    let gateway = setup(&app).start();
    let exposed: BTreeSet<String> = Page::of(&gateway).kinds.into_keys().collect();
    let page = include_str!("../../docs/metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let described: Vec<String> = rows
        .filter(|name| name.starts_with("portcullis_") || name.starts_with("process_"))
        .map(str::to_owned)
        .collect();
    assert!(described.len() > 20, "only {} rows", described.len());
    let set: BTreeSet<String> = described.iter().cloned().collect();
    assert_eq!(set.len(), described.len(), "a row stands there twice");
    assert_eq!(set, exposed);
}
