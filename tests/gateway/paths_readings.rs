//! Paths that an application may read otherwise than they are written: judged under every reading.

use super::paths::{ROUTES, gateway_with, token};
use crate::common::get;

/// Other ways to write `/admin` for one application or another: judged as `/admin`, forwarded as they came.
const READINGS: &[&str] = &[
    "//admin",
    "///admin//x",
    "/admin//",
    "/%2Fadmin",
    "/%2fadmin",
    "/%2F%2Fadmin/x",
    "/admin%2Fx",
    "/admin%2fx",
    "/ADMIN",
    "/Admin/x",
    "/aDMIN",
    "/;/admin",
    "/;x/admin",
    "/;x=y;z/admin/x",
    "/admin;x",
    "/admin;x=y/action",
    "/admin;.css",
    "/admin;",
    "/%3b/admin",
    "/admin%3Bx/y",
    "/%2561dmin",
    "/%2561%2564min/x",
    "/%252Fadmin",
    "/%252fadmin",
    "/admin%252Fx",
    "/admin%23x",
    "/admin%3Fx",
    "/admin%3fx=y",
    "//ADMIN;x//y",
    "/%2F%2541DMIN%3Bx",
    "/;a//%2541dmin",
    "/%2f%61%64%6d%69%6e",
    "/adm%C4%B1n",
];

#[test]
fn another_reading_of_a_protected_path_is_protected() {
    let (app, gateway) = gateway_with(ROUTES);
    let (alice, bob) = (token("alice"), token("bob"));
    for path in READINGS {
        gateway.send(&get(path)).assert_status(401, path);
        gateway.send(&get(path).bearer(&bob)).assert_status(403, path);
        app.assert_untouched(path);
        gateway.send(&get(path).bearer(&alice)).assert_status(200, path);
        let arrived = app.only(path).target();
        let unreserved = path.replace("%61%64%6d%69%6e", "admin");
        assert_eq!(arrived, unreserved, "it goes on as it came");
    }
}

#[test]
fn the_rule_does_not_end_at_the_exact_spelling() {
    let (app, gateway) = gateway_with(ROUTES);
    for path in [
        "/admin",
        "/admin/",
        "/admin?x",
        "/admin/?x=/public",
        "/admin?x=/health",
        "/%61dmin",
        "/admin/x.css",
        "/admin/%20",
    ] {
        gateway.send(&get(path)).assert_status(401, path);
    }
    app.assert_untouched("spellings of /admin");
    for path in ["/admin.json", "/admin..", "/admin%20", "/adminx", "/admin-/x", "/x/admin"] {
        let answer = gateway.send(&get(path));
        assert!(matches!(answer.status, 200 | 400), "{path} is another path: {}", answer.status);
        app.take();
    }
}

#[test]
fn a_reading_that_finds_no_route_is_a_no() {
    let routes = r#"
        [[routes]]
        path = "/a/*/b"
        allow = "anyone"
        upstream = "app"
        [[routes]]
        path = "/raw/*/b"
        allow = "anyone"
        upstream = "app"
        readings = "as-written"
        [[routes]]
        path = "/exact"
        allow = "anyone"
        upstream = "app"
    "#;
    let (app, gateway) = gateway_with(routes);
    gateway.send(&get("/a/x/b")).assert_status(200, "plain");
    app.take();
    for path in ["/a/x%2Fy/b", "/a/x%252Fy/b", "/exact%2F%2F", "/a/%3F/b"] {
        let answer = gateway.send(&get(path));
        let refused = matches!(answer.status, 403 | 404);
        assert!(refused || path == "/exact%2F%2F", "{path}: {}", answer.status);
        if refused {
            app.assert_untouched(path);
        }
        app.take();
    }
    for path in ["/raw/x%2Fy/b", "/raw/group%2Fproject%2fsub/b", "/raw/a;b/b", "/raw/%2561/b"] {
        gateway.send(&get(path)).assert_status(200, path);
        assert_eq!(app.only(path).target(), path, "as-written lets it pass as it came");
    }
}

#[test]
fn as_written_is_for_its_own_route_only() {
    let (app, gateway) = gateway_with(ROUTES);
    for path in ["/raw/x%2Fy", "/raw//x", "/raw/;x/y", "/raw/admin%2Fx"] {
        gateway.send(&get(path)).assert_status(200, path);
        assert_eq!(app.only(path).target(), path);
    }
    gateway.send(&get("//admin")).assert_status(401, "another route reads in full");
    app.assert_untouched("another route");
}

#[test]
fn patterns_are_read_as_the_paths_are() {
    let routes = r#"
        [[routes]]
        path = "/API/Admin/**"
        allow = { groups = ["admin"] }
        upstream = "app"
        [[routes]]
        path = "/API/**"
        allow = "anyone"
        upstream = "app"
    "#;
    let (app, gateway) = gateway_with(routes);
    gateway.send(&get("/API/x")).assert_status(200, "as the pattern has it");
    assert_eq!(app.only("as the pattern has it").target(), "/API/x");
    for path in ["/API/Admin", "/API/ADMIN/x", "/API/admin", "/API//aDmin", "/API/%2541dmin"] {
        gateway.send(&get(path)).assert_status(401, path);
    }
    for path in ["/api/x", "/api/admin"] {
        gateway.send(&get(path)).assert_status(404, path);
    }
    app.assert_untouched("upper-case patterns");
}

#[test]
fn escapes_in_patterns_match_every_way_of_writing_them() {
    let routes = r#"
        [[routes]]
        path = "/caf%C3%A9/**"
        allow = "nobody"
        upstream = "app"
        [[routes]]
        path = "/a@b/**"
        allow = "nobody"
        upstream = "app"
        [[routes]]
        path = "/**"
        allow = "anyone"
        upstream = "app"
    "#;
    let (app, gateway) = gateway_with(routes);
    for path in
        ["/caf%C3%A9", "/caf%c3%a9/x", "/%63af%C3%A9", "/CAF%C3%89", "/caf%25C3%25A9", "/a@b", "/a%40b", "/A%40B/x"]
    {
        gateway.send(&get(path)).assert_status(403, path);
    }
    app.assert_untouched("escapes in patterns");
}
