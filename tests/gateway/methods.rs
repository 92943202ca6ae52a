//! Methods: which a route takes, and which fields could stand in for them.

use super::rules::{gateway_with, judge, token};
use crate::common::{Request, get, post};

#[test]
fn methods_limit_a_route_and_get_brings_head() {
    let routes = r#"
        [[routes]]
        path = "/data/**"
        methods = ["GET"]
        allow = { groups = ["staff", "admin"] }
        upstream = "app"
        [[routes]]
        path = "/data/**"
        allow = { groups = ["admin"] }
        upstream = "app"
        [[routes]]
        path = "/read"
        methods = ["GET"]
        allow = "anyone"
        upstream = "app"
        [[routes]]
        path = "/write"
        methods = ["POST", "PUT"]
        allow = "anyone"
        upstream = "app"
    "#;
    let (app, gateway) = gateway_with(routes);
    judge(
        &gateway,
        &app,
        &[
            ("GET", "/data/x", Some("bob"), 200),
            ("HEAD", "/data/x", Some("bob"), 200),
            ("POST", "/data/x", Some("bob"), 403),
            ("DELETE", "/data/x", Some("bob"), 403),
            ("OPTIONS", "/data/x", Some("bob"), 403),
            ("POST", "/data/x", Some("alice"), 200),
            ("PROPFIND", "/data/x", Some("alice"), 200),
            ("GET", "/data/x", Some("carol"), 403),
            ("GET", "/read", None, 200),
            ("HEAD", "/read", None, 200),
            ("POST", "/read", None, 404),
            ("OPTIONS", "/read", None, 404),
            ("PUT", "/write", None, 200),
            ("GET", "/write", None, 404),
            ("HEAD", "/write", None, 404),
        ],
    );
    for method in ["get", "Get", "geT"] {
        let answer = gateway.send(&Request::new(method, "/read"));
        assert!(matches!(answer.status, 400 | 404 | 405 | 501), "{method}: {}", answer.status);
        app.assert_untouched(method);
    }
    for method in ["TRACE", "CONNECT"] {
        for path in ["/read", "/data/x", "/nothing"] {
            let answer = gateway.send(&Request::new(method, path).bearer(&token("alice")));
            assert!(answer.status == 405 || (method == "CONNECT" && answer.status == 400), "{method}");
            assert!(!answer.text().contains("Bearer"), "nothing is echoed");
            app.assert_untouched(method);
        }
    }
}

/// Fields by which some frameworks take another method than the one of the request line.
const OVERRIDES: &[&str] = &[
    "X-HTTP-Method-Override",
    "X-HTTP-Method",
    "X-Method-Override",
    "x-http-method-override",
    "X_HTTP_Method_Override",
    "X.HTTP.Method",
];

#[test]
fn method_overrides_go_where_a_route_of_that_path_names_methods() {
    let routes = r#"
        [[routes]]
        path = "/data/**"
        methods = ["GET"]
        allow = "anyone"
        upstream = "app"
        [[routes]]
        path = "/data/**"
        allow = { groups = ["admin"] }
        upstream = "app"
        [[routes]]
        path = "/free/**"
        allow = "anyone"
        upstream = "app"
    "#;
    let (app, gateway) = gateway_with(routes);
    for name in OVERRIDES {
        gateway.send(&get("/data/x").header(name, "DELETE")).assert_status(200, name);
        assert!(app.only(name).taken_for(name).is_empty(), "{name} arrived");
        let second = post("/data/x").header(name, "GET").bearer(&token("alice"));
        gateway.send(&second).assert_status(200, name);
        assert!(app.only(name).taken_for(name).is_empty(), "{name} arrived behind the second route");
        gateway.send(&post("/data/x").header(name, "GET")).assert_status(401, name);
        app.assert_untouched(name);
    }
    gateway.send(&post("/free/x").header("X-HTTP-Method-Override", "PUT")).assert_status(200, "free");
    assert_eq!(app.only("free").header("x-http-method-override").as_deref(), Some("PUT"));
}
