//! A certificate that is over, at the start or later: connections go on, the log says it, and its renewal is taken in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;

use crate::common::{Client, Gateway, Recorder, Setup, get, until};
use crate::tls::{Secure, client_config, issue};

/// Writes a certificate for `app.example` that holds until `end`.
fn issue_until(dir: &Path, end: OffsetDateTime) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["app.example".to_owned()]).unwrap();
    params.not_after = end;
    let certificate = params.self_signed(&key).unwrap();
    std::fs::write(dir.join("own.key"), key.serialize_pem()).unwrap();
    std::fs::write(dir.join("own.pem"), certificate.pem()).unwrap();
    certificate.der().clone()
}

#[test]
fn what_stands_goes_on_and_the_log_and_the_metric_tell() {
    let app = Recorder::start();
    let tls = r#"[{ cert = "own.pem", key = "own.key" }]"#;
    let setup = Setup::new(app.address()).without_users().key("server.tls", tls);
    let dir = setup.key("admin.listen", "\"127.0.0.1:0\"").prepare();
    let root = issue(dir.path(), "own", &["app.example"]);
    let gateway = Gateway::serve(dir);
    let config = Arc::new(client_config(&[&root], &[]));
    let mut there = Secure::connect(gateway.address, &config, "app.example");
    assert!(there.get("app.example", "/public/before").starts_with("http/1.1 200"));

    let end = OffsetDateTime::now_utc() - Duration::from_secs(5);
    let root = issue_until(gateway.dir(), end);
    gateway.command(&["reload"]).succeeded();
    let line = gateway.stderr.wait("the end", |line| line.contains("has expired:").then(|| line.to_owned()));
    assert!(line.contains("ERROR") && line.contains("own.pem"), "{line}");
    assert!(there.get("app.example", "/public/after").starts_with("http/1.1 200"), "a connection that stands");
    // Another client: this one would resume its session.
    let config = Arc::new(client_config(&[&root], &[]));
    let error = Secure::try_connect(gateway.address, &config, "app.example").err().expect("no client believes it");
    assert!(error.to_string().contains("expired"), "it is the certificate that is served: {error}");
    let page = Client::of(gateway.admin()).send(&get("/metrics")).text();
    let expiry = page.lines().find(|line| line.starts_with("portcullis_tls_certificate_expiry_timestamp_seconds{"));
    let expiry: f64 = expiry.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((expiry - end.unix_timestamp() as f64).abs() < 1.5, "{expiry}");

    let renewed = issue(gateway.dir(), "own", &["app.example"]);
    let config = Arc::new(client_config(&[&renewed], &[]));
    until("the renewed certificate", || Secure::try_connect(gateway.address, &config, "app.example").ok().map(drop));
    let told = gateway.stderr.text().lines().filter(|line| line.contains("has expired:")).count();
    assert_eq!(told, 1, "said once");
}

/// `app.example` over TLS, whose certificate is over before the gateway starts.
fn start_expired(app: &Recorder) -> (Gateway, CertificateDer<'static>) {
    let tls = r#"[{ cert = "own.pem", key = "own.key" }]"#;
    let dir = Setup::new(app.address()).without_users().key("server.tls", tls).prepare();
    let root = issue_until(dir.path(), OffsetDateTime::now_utc() - Duration::from_secs(3600));
    (Gateway::serve(dir), root)
}

fn is_served(gateway: &Gateway, root: &CertificateDer<'static>) {
    let config = Arc::new(client_config(&[root], &[]));
    let error = Secure::try_connect(gateway.address, &config, "app.example").err().expect("no client believes it");
    assert!(error.to_string().contains("expired"), "it is the certificate that is served: {error}");
}

#[test]
fn an_expired_certificate_is_an_outage_of_its_own_hosts_only() {
    let app = Recorder::start();
    let (gateway, root) = start_expired(&app);
    gateway.stderr.wait("the warning", |line| line.contains("warning[certificate-expired]").then_some(()));
    gateway.stderr.wait("the end", |line| (line.contains("ERROR") && line.contains("has expired:")).then_some(()));
    is_served(&gateway, &root);
    let ran = gateway.command(&["check"]).succeeded();
    assert!(ran.stderr.contains("warning[certificate-expired]"), "{}", ran.stderr);
    let ran = gateway.command(&["doctor"]);
    assert!(ran.stdout.contains("own.pem expired on "), "{}", ran.stdout);

    let setup = Setup::new(app.address()).without_users();
    let tls = r#"[{ cert = "own.pem", key = "own.key" }, { cert = "other.pem", key = "other.key" }]"#;
    let other = issue(gateway.dir(), "other", &["other.example"]);
    gateway.reload(&setup.key("server.tls", tls)).succeeded();
    is_served(&gateway, &root);
    let config = Arc::new(client_config(&[&other], &[]));
    let head = Secure::connect(gateway.address, &config, "other.example").get("other.example", "/public/x");
    assert!(head.starts_with("http/1.1 200"), "the other host goes on: {head}");
}
