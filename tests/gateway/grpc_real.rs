//! gRPC between a real client and a real server, Python's, which `scripts/test` installs.

use std::net::SocketAddr;

use crate::apps::{Application, launch, run, script};
use crate::common::gateway::address_in;
use crate::common::tunnel::clear;
use crate::common::{Gateway, Setup};
use crate::tls::issue;

/// What is public, what is for administrators, and what is for whoever is signed in.
const ROUTES: &str = r#"
    [[routes]]
    path = "/public.Test/**"
    allow = "anyone"
    upstream = "app"

    [[routes]]
    path = "/admin.Test/**"
    allow = { groups = ["others"] }
    upstream = "app"

    [[routes]]
    path = "/down.Test/**"
    allow = "anyone"
    upstream = "down"

    [[routes]]
    path = "/test.Test/**"
    allow = "signed-in"
    upstream = "app"
"#;

/// The gateway, and the targets of its two listeners for calls, each with the certificate that it is known by.
struct Running {
    gateway: Gateway,
    targets: [(String, String); 2],
    _files: tempfile::TempDir,
}

fn server() -> Application {
    let path = script("grpc_peer.py");
    launch(std::path::Path::new("."), &[path.to_str().unwrap(), "serve"])
}

/// A gateway before `app`, with a listener for signing in, one in the clear for HTTP/2 and one with TLS.
fn before(app: SocketAddr) -> Running {
    let files = tempfile::tempdir().unwrap();
    issue(files.path(), "first", &["app.example"]);
    let [cert, key] = ["pem", "key"].map(|kind| files.path().join("first").with_extension(kind).display().to_string());
    let listen =
        r#"[{ address = "127.0.0.1:0", tls = false }, { address = "127.0.0.1:0", h2c = true }, "127.0.0.1:0"]"#;
    let setup = Setup::new(app)
        .key("server.listen", listen)
        .key("server.tls", &format!("[{{ cert = \"{cert}\", key = \"{key}\" }}]"))
        .key("upstreams.app", &format!("\"h2c://{app}\""))
        .key("upstreams.down", "\"h2c://127.0.0.1:1\"")
        .key("log.format", "\"json\"");
    let gateway = setup.routes(ROUTES).start();
    let clear = clear(&gateway);
    let is_other = |address: &SocketAddr| *address != gateway.address && *address != clear;
    let secure = gateway
        .stderr
        .wait("the third address", |line| line.contains("listening").then(|| address_in(line).filter(is_other))?);
    let targets = [(clear.to_string(), "-".to_owned()), (secure.to_string(), cert)];
    Running { gateway, targets, _files: files }
}

#[test]
#[ignore = "needs grpcio, which scripts/test installs"]
fn calls_of_every_kind_pass_with_their_metadata_their_statuses_and_their_ends() {
    let app = server();
    let Running { gateway, targets, _files } = before(app.address);
    let token = gateway.token("alice");
    for (target, ca) in &targets {
        let said = run("grpc_peer.py", &["calls", target, &token, ca]);
        assert!(said.ends_with("done"), "{target}: {said}");
    }
}

#[test]
#[ignore = "needs grpcio, which scripts/test installs"]
fn refusals_are_statuses_that_a_client_understands() {
    let app = server();
    let Running { gateway, targets, _files } = before(app.address);
    let token = format!("authorization=Bearer {}", gateway.token("alice"));
    for (target, ca) in &targets {
        let status = |method: &str, fields: &[&str]| {
            run("grpc_peer.py", &[&["status", target.as_str(), ca.as_str(), method], fields].concat())
        };
        assert_eq!(status("/public.Test/Unary", &[]), "OK");
        assert_eq!(status("/test.Test/Unary", &[&token]), "OK");
        assert_eq!(status("/test.Test/Unary", &[]), "UNAUTHENTICATED: Not authenticated");
        assert_eq!(status("/test.Test/Unary", &["authorization=Bearer x"]), "UNAUTHENTICATED: Invalid token");
        assert_eq!(status("/test.Test/Unary", &["x-forwarded-user=alice"]), "UNAUTHENTICATED: Not authenticated");
        assert_eq!(status("/admin.Test/Unary", &[&token]), "PERMISSION_DENIED: Not allowed");
        assert_eq!(status("/down.Test/Unary", &[]), "UNAVAILABLE: Bad Gateway");
        assert_eq!(status("/none.Test/Unary", &[]), "UNIMPLEMENTED: Not found");
        assert!(status("/test.Test/../admin", &[&token]).starts_with("INTERNAL"), "malformed is 400");
    }
    drop(app);
    for (target, ca) in &targets {
        let said = run("grpc_peer.py", &["status", target, ca, "/public.Test/Unary"]);
        assert_eq!(said, "UNAVAILABLE: Bad Gateway");
    }
}
