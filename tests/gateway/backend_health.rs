//! Servers that are not well: found out by checks or by the requests they fail, left out, and taken back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::balance::{addresses, asks, nobody, pool};
use crate::common::recorder::reply;
use crate::common::{Answer, Client, Gateway, Recorder, Response, Setup, Wire, get, post, until};

/// A server that is well while the switch is on. Its answers name it.
fn switched(name: &'static str) -> (Recorder, Arc<AtomicBool>) {
    let is_well = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_well);
    let server = Recorder::answering(move |request| {
        let status = match (request.target().as_str(), asked.load(Ordering::SeqCst)) {
            ("/healthz", false) => "500 Internal Server Error",
            _ => "200 OK",
        };
        Answer::Keep(reply(status, "", name))
    });
    (server, is_well)
}

/// A server that answers all with `status`.
fn answering(status: &'static str) -> Recorder {
    Recorder::answering(move |_| Answer::Keep(reply(status, "", status)))
}

fn with_admin(setup: Setup) -> Gateway {
    setup.key("admin.listen", "\"127.0.0.1:0\"").start()
}

fn readyz(gateway: &Gateway) -> Response {
    Client::of(gateway.admin()).send(&get("/readyz?verbose"))
}

fn metrics(gateway: &Gateway) -> String {
    Client::of(gateway.admin()).send(&get("/metrics")).text()
}

/// Waits for a line of the log.
fn log(gateway: &Gateway, what: &str, server: &Recorder) {
    let address = server.address().to_string();
    gateway.stderr.wait(what, |line| (line.contains(what) && line.contains(&address)).then_some(()));
}

const CHECKS: &str = "{ path = \"/healthz\", interval = \"20ms\", healthy = 2, unhealthy = 2, slow_start = \"0s\" }";

#[test]
fn checks_take_a_server_out_and_bring_it_back_and_readiness_follows() {
    let ([one, other], switches): ([Recorder; 2], [Arc<AtomicBool>; 2]) = {
        let ((one, first), (other, second)) = (switched("one"), switched("other"));
        ([one, other], [first, second])
    };
    let gateway = with_admin(pool(&[one.address(), other.address()]).key("upstreams.pool.health", CHECKS));
    log(&gateway, "a server is up", &one);
    log(&gateway, "a server is up", &other);
    let names = |count: usize| -> Vec<String> {
        let mut client = gateway.client();
        (0..count).map(|_| client.send(&get("/x")).assert_status(200, "one is well").text()).collect()
    };
    assert_eq!(names(10).iter().filter(|name| *name == "one").count(), 5);
    switches[0].store(false, Ordering::SeqCst);
    log(&gateway, "a server is down", &one);
    assert!(names(10).iter().all(|name| name == "other"));
    let answer = readyz(&gateway);
    answer.assert_status(200, "one is enough");
    let text = answer.text();
    assert!(text.contains("[+] upstream pool: 1 of 2 servers are well\n"), "{text}");
    assert!(text.contains(&format!("[+] upstream pool {}: down: it fails its checks;", one.address())), "{text}");
    let up = |server: &Recorder, up| {
        format!("portcullis_backend_up{{upstream=\"pool\",server=\"{}\"}} {up}\n", server.address())
    };
    let page = metrics(&gateway);
    assert!(page.contains(&up(&one, 0)) && page.contains(&up(&other, 1)), "{page}");

    switches[1].store(false, Ordering::SeqCst);
    log(&gateway, "a server is down", &other);
    let answer = gateway.send(&get("/x"));
    answer.assert_status(503, "none is well");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(gateway.access_line("its line", |line| line["code"] == "unhealthy")["server"].is_null());
    let answer = readyz(&gateway);
    answer.assert_status(503, "no server is well");
    assert!(answer.text().ends_with("not ready: upstream pool: none of its servers is well\n"), "{}", answer.text());

    switches[0].store(true, Ordering::SeqCst);
    log(&gateway, "a server is up again", &one);
    assert!(names(10).iter().all(|name| name == "one"));
    readyz(&gateway).assert_status(200, "it is back");
}

#[test]
fn checks_go_on_over_a_reload_and_ask_as_the_configuration_says() {
    let (server, is_well) = switched("one");
    let setup = || {
        let health = CHECKS.replace("path", "host = \"app.example.com\", status = [\"200\", \"401-403\"], path");
        pool(&[server.address()]).key("upstreams.pool.health", &health)
    };
    is_well.store(false, Ordering::SeqCst);
    let gateway = with_admin(setup());
    log(&gateway, "a server is down", &server);
    let seen = server.take().remove(0);
    assert_eq!(
        (seen.line().as_str(), seen.header("host").as_deref()),
        ("GET /healthz HTTP/1.1", Some("app.example.com"))
    );
    assert!(seen.header("user-agent").unwrap().starts_with("portcullis-health/"));
    let away = nobody();
    let urls = format!("[\"http://{}\", \"http://{away}\"]", server.address());
    gateway.reload(&setup().key("upstreams.pool.servers", &urls).key("admin.listen", "\"127.0.0.1:0\""));
    let text = readyz(&gateway).text();
    assert!(text.contains(&format!("pool {}: down: it fails its checks;", server.address())), "{text}");
    let away = away.to_string();
    gateway
        .stderr
        .wait("a check of the other", |line| (line.contains("is down") && line.contains(&away)).then_some(()));
    gateway.send(&get("/x")).assert_status(503, "what was found out stays");
    // Without checks nothing is known of it any more.
    gateway.reload(&pool(&[server.address()]));
    gateway.send(&get("/x")).assert_status(200, "no checks");
    gateway.reload(&setup());
    until("the first check, which decides", || (gateway.send(&get("/x")).status == 503).then_some(()));
}

#[test]
fn a_server_that_fails_requests_is_left_out_over_a_reload_too() {
    let servers = [answering("502 Bad Gateway"), Recorder::start()];
    let gateway = with_admin(pool(&addresses(&servers)).key("upstreams.pool.balance", "\"round-robin\""));
    let mut client = gateway.client();
    let bad = (0..20).filter(|_| client.send(&get("/x")).status == 502).count();
    assert_eq!(bad, 5, "after five in a row nobody is sent there");
    log(&gateway, "a server fails requests and is left out", &servers[0]);
    let added = Recorder::start();
    gateway.reload(
        &pool(&[added.address(), servers[0].address(), servers[1].address()]).key("admin.listen", "\"127.0.0.1:0\""),
    );
    servers.iter().for_each(|server| drop(server.take()));
    asks(&mut client, 20, 200, "it is still left out");
    servers[0].assert_untouched("left out");
    let text = readyz(&gateway).text();
    assert!(text.contains(&format!("pool {}: left out for a while", servers[0].address())), "{text}");
    let page = metrics(&gateway);
    let of_server = format!("{{upstream=\"pool\",server=\"{}\"}}", servers[0].address());
    assert!(page.contains(&format!("portcullis_backend_ejections_total{of_server} 1\n")), "{page}");
    assert!(page.contains(&format!("portcullis_backend_requests_total{of_server} 5\n")), "{page}");
    assert_eq!(servers[1].connections(), 1, "its connection is kept beside a server that came");
}

#[test]
fn the_last_server_is_never_left_out() {
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    let server = Recorder::answering(move |_| {
        let is_bad = count.fetch_add(1, Ordering::SeqCst) < 20;
        Answer::Keep(reply(if is_bad { "503 Service Unavailable" } else { "200 OK" }, "", "x"))
    });
    let gateway = pool(&[server.address(), nobody()]).start();
    let mut client = gateway.client();
    asks(&mut client, 20, 503, "the application's own answer");
    client.send(&get("/x")).assert_status(200, "it was asked again and again");
    assert_eq!(answered.load(Ordering::SeqCst), 21);
}

const RETRIES: &str = "retries = { attempts = 2, on = [\"503\", \"reset\"] }\n";

fn retrying(setup: Setup) -> Gateway {
    let route = "[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"pool\"\n";
    with_admin(setup.routes(&format!("{route}{RETRIES}")))
}

#[test]
fn what_a_route_says_is_tried_again_and_nothing_else() {
    let servers = [answering("503 Service Unavailable"), Recorder::start()];
    let setup = pool(&addresses(&servers)).key("upstreams.pool.balance", "\"round-robin\"");
    let gateway = retrying(setup.key("upstreams.pool.health", "{ faults = 0 }"));
    let mut client = gateway.client();
    asks(&mut client, 8, 200, "the other one is asked");
    let page = metrics(&gateway);
    assert!(page.contains("portcullis_upstream_retries_total{upstream=\"pool\",reason=\"status\"} 8\n"), "{page}");
    servers.iter().for_each(|server| drop(server.take()));
    let statuses: Vec<u16> = (0..4).map(|_| client.send(&post("/x").body("text/plain", "once")).status).collect();
    assert_eq!(
        statuses.iter().filter(|status| **status == 503).count(),
        2,
        "what may be done twice is not: {statuses:?}"
    );
    assert_eq!(servers.iter().map(|server| server.take().len()).collect::<Vec<_>>(), [2, 2]);
}

#[test]
fn retries_are_held_back_when_everything_fails() {
    let servers = [answering("503 Service Unavailable"), answering("503 Service Unavailable")];
    let started = std::time::Instant::now();
    let gateway = retrying(pool(&addresses(&servers)));
    let mut client = gateway.client();
    for _ in 0..200 {
        let answer = client.send(&get("/x"));
        assert_eq!(answer.assert_status(503, "as it came").text(), "503 Service Unavailable");
    }
    let seen: usize = servers.iter().map(|server| server.take().len()).sum();
    let seconds = usize::try_from(started.elapsed().as_secs()).unwrap() + 2;
    let most = 200 + 200 / 5 + 10 * seconds;
    assert!(seen > 200 && seen <= most, "{seen} requests, at most {most}");
    let page = metrics(&gateway);
    let held_back = page.lines().find_map(|line| {
        line.strip_prefix("portcullis_upstream_retries_held_back_total{upstream=\"pool\"} ")?.parse::<usize>().ok()
    });
    assert!(held_back > Some(0) || seconds > 10, "{page}");
}

#[test]
fn a_connection_that_ends_is_tried_again_where_the_route_says_so_and_only_what_is_safe() {
    let broken = Recorder::answering(|_| Answer::Close(Vec::new()));
    let sound = Recorder::start();
    let setup = || pool(&[broken.address(), sound.address()]).key("upstreams.pool.balance", "\"round-robin\"");
    let gateway = retrying(setup().key("upstreams.pool.health", "{ faults = 0 }"));
    let mut client = gateway.client();
    asks(&mut client, 6, 200, "tried on the other");
    drop((broken.take(), sound.take()));
    let statuses: Vec<u16> = (0..4).map(|_| client.send(&post("/x").body("text/plain", "once")).status).collect();
    assert_eq!((broken.take().len(), sound.take().len()), (2, 2), "each went out once");
    assert_eq!(statuses.iter().filter(|status| **status == 502).count(), 2);
}

#[test]
fn what_timed_out_is_never_tried_again() {
    let silent = Recorder::serving(|mut wire| {
        drop(wire.read_head());
        wire.is_closed();
    });
    let other = Recorder::start();
    let setup = pool(&[silent.address(), other.address()]).key("upstreams.pool.balance", "\"round-robin\"");
    let gateway = retrying(setup.key("upstreams.pool.timeouts", "{ response = \"200ms\" }"));
    let mut client = gateway.client();
    let statuses = [client.send(&get("/x")).status, client.send(&get("/x")).status];
    assert!(statuses.contains(&504) && statuses.contains(&200), "{statuses:?}");
    assert_eq!((silent.connections(), other.take().len()), (1, 1));
}

#[test]
fn the_whole_of_an_answer_may_take_no_longer_than_total() {
    let server = Recorder::serving(|mut wire| {
        let head = String::from_utf8(wire.read_head().unwrap()).unwrap();
        if head.contains("/body") {
            wire.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        }
        wire.is_closed();
    });
    let route = |path: &str, more: &str| {
        format!("[[routes]]\npath = \"{path}\"\nallow = \"anyone\"\nupstream = \"pool\"\ntimeouts = {{ {more} }}\n")
    };
    let routes = [route("/head", "total = \"200ms\""), route("/body", "total = \"1500ms\"")].concat();
    let gateway = pool(&[server.address()]).routes(&routes).start();
    gateway.send(&get("/head")).assert_status(504, "no head in time");
    let mut wire = Wire::connect(gateway.address);
    wire.write("GET /body HTTP/1.1\r\nHost: a\r\n\r\n");
    let error = wire.read_answer("GET").expect_err("never whole");
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof, "{error}");
}
