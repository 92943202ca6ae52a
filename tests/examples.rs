//! The examples: their configurations have no findings, and the embedded gateway does what it says.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

#[path = "../examples/embedded.rs"]
#[expect(dead_code, reason = "its `main` is for `cargo run --example embedded`")]
mod embedded;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use portcullis::config::load;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[test]
fn every_configuration_has_no_findings() {
    let entries = |place| fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
    let directories = entries("examples").chain(entries("examples/forward-auth"));
    let files: Vec<PathBuf> = directories.map(|path| path.join("gateway.toml")).filter(|file| file.exists()).collect();
    assert!(files.len() >= 9, "only {} configurations", files.len());
    for file in files {
        let loaded = load(&file, &|_| None);
        assert!(loaded.diagnostics.is_empty(), "{}", loaded.diagnostics.render(false));
        assert!(loaded.config.is_some(), "{}", file.display());
        let readme = file.with_file_name("README.md");
        assert!(readme.exists(), "{} is missing", readme.display());
    }
}

#[tokio::test]
async fn the_embedded_gateway_refuses_and_lets_in() {
    let running = embedded::start("127.0.0.1:0").await.unwrap();
    let at = running.address;
    let login = |password: &str| {
        let body = format!(r#"{{"username":"alice","password":"{password}"}}"#);
        let fields = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
        (fields, body)
    };

    let stranger = ask(at, "GET /", "X-Forwarded-User: alice\r\n", "").await;
    assert!(stranger.starts_with("HTTP/1.1 401 "), "{stranger}");
    assert!(stranger.contains("Not authenticated") && !stranger.contains("Hello"), "{stranger}");
    let browser = ask(at, "GET /", "Accept: text/html\r\n", "").await;
    assert!(browser.starts_with("HTTP/1.1 303 ") && browser.contains("location: /login?next=%2F"), "{browser}");

    let (fields, body) = login("wrong");
    let wrong = ask(at, "POST /login", &fields, &body).await;
    assert!(wrong.starts_with("HTTP/1.1 403 ") && wrong.ends_with(r#"{"detail":"Invalid credentials"}"#), "{wrong}");

    let (fields, body) = login(running.password.expose());
    let signed_in = ask(at, "POST /login", &fields, &body).await;
    assert!(signed_in.starts_with("HTTP/1.1 200 "), "{signed_in}");
    let document = signed_in.split("\r\n\r\n").nth(1).unwrap();
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    let token = format!("Authorization: Bearer {}\r\n", document["access_token"].as_str().unwrap());

    let forged = format!("{token}X-Forwarded-User: root\r\nX_Forwarded_User: root\r\n");
    let alice = ask(at, "GET /", &forged, "").await;
    assert!(alice.starts_with("HTTP/1.1 200 ") && alice.ends_with("Hello, alice\n"), "{alice}");
    for (target, status) in [("/admin", "403"), ("/ADMIN/x", "404"), ("/nowhere", "404"), ("/admin/%2e%2e/", "400")] {
        let refused = ask(at, &format!("GET {target}"), &token, "").await;
        assert!(refused.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {refused}");
        assert!(!refused.contains("Hello"), "{target}: {refused}");
    }

    assert!(ask(at, "POST /logout", &format!("{token}Content-Length: 0\r\n"), "").await.starts_with("HTTP/1.1 204 "));
    let after = ask(at, "GET /", &token, "").await;
    assert!(after.starts_with("HTTP/1.1 401 ") && after.contains("Invalid token"), "{after}");
    running.gateway.stop();
    running.gateway.join().await;
}

/// Sends one request on a connection of its own, and reads all that comes.
async fn ask(address: SocketAddr, line: &str, fields: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{fields}\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
