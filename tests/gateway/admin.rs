//! The admin listener: `/livez` and `/readyz`, there and only there. `/metrics` has tests of its own.

use crate::common::{Client, Recorder, Request, Setup, get};

#[test]
fn livez_and_readyz_are_on_the_admin_listener_only() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).key("admin.listen", "\"127.0.0.1:0\"").start();
    assert_ne!(gateway.admin(), gateway.address);
    let mut admin = Client::of(gateway.admin());
    for path in ["/livez", "/readyz"] {
        admin.send(&get(path)).assert_status(200, path);
        admin.send(&Request::new("HEAD", path)).assert_status(200, path);
        gateway.send(&get(path)).assert_status(401, "an ordinary path on the public listener");
    }
    for path in ["/", "/login", "/public/x", "/x", "/.gateway/userinfo", "/livez/x", "/debug"] {
        admin.send(&get(path)).assert_status(404, path);
    }
    for method in ["POST", "DELETE", "PUT"] {
        admin.send(&Request::new(method, "/livez")).assert_status(405, method);
    }
    app.assert_untouched("admin requests");
}

#[test]
fn readyz_lists_its_checks_and_an_upstream_that_is_away_is_no_reason_to_go() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address())
        .key("admin.listen", "\"127.0.0.1:0\"")
        .key("upstreams.away", "\"http://127.0.0.1:1\"")
        .routes("[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"away\"\n")
        .start();
    gateway.send(&get("/x")).assert_status(502, "nobody there");
    let mut admin = Client::of(gateway.admin());
    assert_eq!(admin.send(&get("/readyz")).text(), "ok\n");
    let answer = admin.send(&get("/readyz?verbose"));
    answer.assert_status(200, "with the list");
    let text = answer.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "[+] drain: not draining");
    assert!(lines[1].starts_with("[+] store: read ") && lines[1].ends_with(" s ago"), "{text}");
    assert!(lines[2].starts_with("[+] keys: signs with "), "{text}");
    let counted = "has no health check and counts as up; 0 connections opened,";
    assert_eq!(lines[3], format!("[+] upstream app: {counted} 0 failed"));
    assert_eq!(lines[4], format!("[+] upstream away: {counted} 1 failed"));
    assert_eq!(lines[5..], ["ok"]);
}

#[test]
fn there_is_no_admin_listener_unless_it_is_set() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let ended = gateway.stop();
    assert!(!ended.stderr.contains("admin address"), "{}", ended.stderr);
}

#[test]
fn the_control_socket_is_its_owners_only() {
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let metadata = std::fs::symlink_metadata(gateway.dir().join("portcullis.sock")).expect("beside the store");
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
}

#[test]
fn the_store_is_its_owners_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    let mode = std::fs::metadata(gateway.dir().join("portcullis.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "keys and hashes are in it: {mode:o}");
}
