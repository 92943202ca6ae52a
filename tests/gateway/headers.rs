//! Identity headers: nobody but the gateway speaks for the user, on any route and in any spelling.

use serde_json::json;

use crate::common::token::{claims_with, mint};
use crate::common::{Gateway, Recorded, Recorder, Request, Setup, Wire, get};

pub(super) fn gateway() -> (Recorder, Gateway) {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).shared_secret();
    let setup = setup.key("identity.strip", r#"["X-Application-Admin"]"#);
    let gateway = setup.user("plain", &[]).start();
    (app, gateway)
}

fn token(name: &str) -> String {
    mint(&claims_with(name, json!({})))
}

/// The routes on which every case is tried: a public one, and one with a name.
fn ways() -> [(Request, Option<&'static str>); 2] {
    [(get("/public/x"), None), (get("/x").bearer(&token("alice")), Some("alice"))]
}

#[track_caller]
fn assert_user(seen: &Recorded, user: Option<&str>, context: &str) {
    let taken = seen.taken_for("X-Forwarded-User");
    let values: Vec<_> = taken.iter().map(|(_, value)| value.as_str()).collect();
    let expected: Vec<_> = user.into_iter().collect();
    assert_eq!(values, expected, "{context}: {taken:?}");
    assert!(!String::from_utf8_lossy(&seen.head).contains("forged"), "{context}: {:?}", seen.headers());
}

/// Names that only a gateway may send, in the contract's fixed list and in this test's configuration.
const GUARDED: &[&str] = &[
    "X-Forwarded-User",
    "X-Forwarded-Groups",
    "X-Forwarded-Email",
    "X-Forwarded-Preferred-Username",
    "X-Forwarded-Access-Token",
    "Remote-User",
    "Remote-Groups",
    "Remote-Email",
    "Remote-Name",
    "Remote-Anything",
    "X-Remote-User",
    "X-Remote-Group",
    "X-Remote-Extra-Scopes",
    "X-Auth-Request-User",
    "X-Auth-Request-Email",
    "X-Auth-Request-Access-Token",
    "X-WEBAUTH-USER",
    "X-WEBAUTH-ROLE",
    "X-Authenticated-User",
    "X-Authenticated-Userid",
    "X-SSL-Client-Verify",
    "X-SSL-Client-CN",
    "X-SSL-Client-S-DN",
    "X-Original-URL",
    "X-Original-URI",
    "X-Rewrite-URL",
    "X-Forwarded-Uri",
    "X-Forwarded-Prefix",
    "X-Envoy-Original-Path",
    "X-Application-Admin",
];

/// Other ways to write a name that some application folds into it.
fn spellings(name: &str) -> Vec<String> {
    vec![
        name.to_owned(),
        name.to_lowercase(),
        name.to_uppercase(),
        name.replace('-', "_"),
        name.replace('-', "."),
        name.to_lowercase().replacen('-', "_", 1),
        format!("{name}_"),
        format!("{name}-"),
        name.replace('-', ""),
        name.replace('-', "--"),
        format!("_{name}"),
        name.replace('-', "~"),
        name.replace('-', "'"),
        name.replace('-', "!#$%&*+^`|"),
    ]
}

#[test]
fn no_spelling_of_a_guarded_name_reaches_the_application() {
    let (app, gateway) = gateway();
    let mut client = gateway.client();
    let mut tried = 0;
    for name in GUARDED {
        for spelling in spellings(name) {
            for (request, user) in ways() {
                let request = request.header(&spelling, "forged").header("X-Kept", "yes");
                let answer = client.send(&request);
                answer.assert_status(200, &spelling);
                let seen = app.only(&spelling);
                assert_user(&seen, user, &spelling);
                assert_eq!(seen.header("x-kept").as_deref(), Some("yes"));
                tried += 1;
            }
        }
    }
    assert!(tried > 800, "{tried}");
}

#[test]
fn ours_is_there_once_however_often_it_was_sent() {
    let (app, gateway) = gateway();
    for times in [1, 2, 60] {
        for (request, user) in ways() {
            let request = (0..times).fold(request, |request, _| request.header("X-Forwarded-User", "forged"));
            gateway.send(&request).assert_status(200, "many");
            assert_user(&app.only("many"), user, &format!("{times} times"));
        }
    }
}

#[test]
fn malformed_names_are_400_or_gone() {
    let (app, gateway) = gateway();
    let lines: &[&[u8]] = &[
        b"X-Forwarded-User : forged",
        b"X-Forwarded-User\t: forged",
        b"X Forwarded User: forged",
        b"\tX-Forwarded-User: forged",
        b" X-Forwarded-User: forged",
        b": forged",
        b"X-Forwarded-User forged",
        b"X-A: b\r\n X-Forwarded-User: forged",
        b"X-A: b\rX-Forwarded-User: forged",
        b"X-A: b\nX-Forwarded-User: forged",
        b"X-A: b\0\r\nX-Forwarded-User: forged",
        b"X-Forwarded-User\0: forged",
        b"X-Forwarded-Us\xc3\xa9r: forged",
        b"(X-Forwarded-User): forged",
        b"\"X-Forwarded-User\": forged",
        b"X-Forwarded-User\x0b: forged",
        b"X/Forwarded/User: forged",
    ];
    for line in lines {
        for (path, user) in [("/public/x", None), ("/x", Some("alice"))] {
            let mut wire = Wire::connect(gateway.address);
            let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n", token("alice"));
            let head = if user.is_none() { format!("GET {path} HTTP/1.1\r\nHost: a\r\n") } else { head };
            wire.write([head.as_bytes(), line, b"\r\nX-Last: 1\r\n\r\n"].concat());
            let shown = String::from_utf8_lossy(line).into_owned();
            let answer = wire.read_answer("GET").unwrap_or_else(|error| panic!("{error} for {shown:?}"));
            for seen in app.take() {
                assert_user(&seen, user, &shown);
            }
            assert!(matches!(answer.status, 200 | 400), "{shown:?}: {}", answer.status);
        }
    }
}

#[test]
fn a_name_in_connection_neither_saves_a_forged_header_nor_drops_ours() {
    let (app, gateway) = gateway();
    let values = [
        "X-Forwarded-User",
        "close, X-Forwarded-User",
        "keep-alive, x-forwarded-user",
        "X-Forwarded-User, X-Forwarded-User",
        "x_forwarded_user",
        "Authorization, Cookie, Host, Content-Length, X-Forwarded-For, Transfer-Encoding, X-Forwarded-Groups",
        ",,,X-Forwarded-User,,",
    ];
    for value in values {
        for name in ["Connection", "Proxy-Connection", "Keep-Alive"] {
            for (request, user) in ways() {
                let request = request.header(name, value).header("X-Forwarded-User", "forged");
                gateway.send(&request).assert_status(200, value);
                let seen = app.only(value);
                assert_user(&seen, user, value);
                assert!(seen.header("x-forwarded-for").is_some() && seen.header("host").is_some());
                let groups = user.map(|_| "admin,staff".to_owned());
                assert_eq!(seen.header("x-forwarded-groups"), groups, "{value}");
            }
        }
    }
    let two = get("/x").bearer(&token("alice")).header("Connection", "x-a").header("Connection", "X-Forwarded-User");
    gateway.send(&two.header("X-A", "gone")).assert_status(200, "two Connection lines");
    let seen = app.only("two");
    assert_user(&seen, Some("alice"), "two Connection lines");
    assert_eq!(seen.header("x-a"), None, "what Connection names is for this hop only");
}

#[test]
fn trailers_do_not_carry_a_name() {
    let (app, gateway) = gateway();
    for announced in ["", "Trailer: X-Forwarded-User, X-Sum\r\n"] {
        for name in ["X-Forwarded-User", "x_forwarded_user", "Remote-User", "Authorization", "X-Application-Admin"] {
            let mut wire = Wire::connect(gateway.address);
            wire.write(format!(
                "POST /public/x HTTP/1.1\r\nHost: a\r\nTE: trailers\r\n{announced}Transfer-Encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0\r\n{name}: forged\r\nX-Sum: 1\r\n\r\n"
            ));
            wire.read_answer("POST").expect("an answer").assert_status(200, name);
            let seen = app.only(name);
            assert_eq!(seen.body, b"abc");
            let forged = seen.trailers.iter().any(|line| line.contains("forged"));
            assert!(!forged, "{name}: {:?}", seen.trailers);
            assert_user(&seen, None, name);
        }
    }
}

#[test]
fn what_a_user_does_not_have_is_not_there() {
    let (app, gateway) = gateway();
    let request =
        get("/x").bearer(&token("plain")).header("X-Forwarded-Email", "forged").header("X-Forwarded-Groups", "forged");
    gateway.send(&request).assert_status(200, "no groups, no e-mail");
    let seen = app.only("plain");
    assert_user(&seen, Some("plain"), "plain");
    for name in ["x-forwarded-email", "x-forwarded-preferred-username"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert!(seen.header("x-forwarded-groups").is_none_or(|groups| groups.is_empty()));
}

#[test]
fn values_are_encoded_so_that_no_two_are_the_same() {
    let app = Recorder::start();
    let setup = Setup::new(app.address())
        .shared_secret()
        .key("identity.claims", r#"{ "X-Tenant" = "tenant", "X-Deep" = "a.b", "X-List" = "list" }"#);
    let flags = ["--groups", "ops team,größe,a%b,plain", "--email", "jörg@example.com", "--name", "Jörg Ångström"];
    let gateway = setup.user("jo.e+1@x_y-z", &flags).start();
    let claims = json!({ "tenant": "Zürich", "a": { "b": "deep" }, "list": ["x", "y z"] });
    let token = mint(&claims_with("jo.e+1@x_y-z", claims));
    gateway.send(&get("/x").bearer(&token)).assert_status(200, "encoded");
    let seen = app.only("encoded");
    // The recorder shows bytes as Latin-1; what is UTF-8 on the wire is read back as such.
    let utf8 = |name: &str| {
        let bytes: Vec<u8> =
            seen.header(name).expect(name).chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        String::from_utf8(bytes).expect("UTF-8")
    };
    assert_eq!(utf8("x-forwarded-user"), "jo.e+1@x_y-z");
    assert_eq!(utf8("x-forwarded-groups"), "ops%20team,gr%C3%B6%C3%9Fe,a%25b,plain");
    assert_eq!(utf8("x-forwarded-email"), "j%C3%B6rg@example.com");
    assert_eq!(utf8("x-forwarded-preferred-username"), "Jörg Ångström");
    assert_eq!(utf8("x-tenant"), "Zürich");
    assert_eq!(utf8("x-deep"), "deep");
    assert!(utf8("x-list").starts_with("x,y"), "{}", utf8("x-list"));
}

#[test]
fn claims_that_are_no_header_value_leave_it_out() {
    let app = Recorder::start();
    let setup = Setup::new(app.address()).shared_secret().key("identity.claims", r#"{ "X-Tenant" = "tenant" }"#);
    let gateway = setup.start();
    for tenant in [
        json!("a\r\nX-Forwarded-User: forged"),
        json!("a\nb"),
        json!("a\0b"),
        json!("\u{7f}"),
        json!({ "a": 1 }),
        json!(null),
        json!(" a"),
        json!("a "),
    ] {
        let mut claims = claims_with("alice", json!({}));
        claims["tenant"] = tenant.clone();
        let request = get("/x").bearer(&mint(&claims)).header("X-Tenant", "forged");
        gateway.send(&request).assert_status(200, &tenant.to_string());
        let seen = app.only("tenant");
        assert_eq!(seen.header("x-tenant"), None, "{tenant}");
        assert_user(&seen, Some("alice"), &tenant.to_string());
    }
}

#[test]
fn names_can_be_chosen_and_every_routes_names_are_guarded_everywhere() {
    let app = Recorder::start();
    let routes = r#"
        [[routes]]
        path = "/other/**"
        allow = "signed-in"
        upstream = "app"
        identity = { user = "X-Who-Is-It" }
        [[routes]]
        path = "/public/**"
        allow = "anyone"
        upstream = "app"
        [[routes]]
        path = "/**"
        allow = "signed-in"
        upstream = "app"
    "#;
    let setup = Setup::new(app.address()).shared_secret().routes(routes).key("identity.user", "\"X-Remote-User\"");
    let gateway = setup.start();
    let forged = |request: Request| {
        request.header("X-Who-Is-It", "forged").header("x_remote_user", "forged").header("X-Forwarded-User", "forged")
    };
    let alice = token("alice");
    for (path, name) in [("/other/x", "x-who-is-it"), ("/x", "x-remote-user")] {
        gateway.send(&forged(get(path)).bearer(&alice)).assert_status(200, path);
        let seen = app.only(path);
        assert_eq!(seen.header(name).as_deref(), Some("alice"), "{path}");
        assert!(!String::from_utf8_lossy(&seen.head).contains("forged"), "{path}: {:?}", seen.headers());
    }
    gateway.send(&forged(get("/public/x"))).assert_status(200, "public");
    let seen = app.only("public");
    assert!(!String::from_utf8_lossy(&seen.head).contains("forged"), "{:?}", seen.headers());
}
