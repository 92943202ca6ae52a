//! TLS as clients see it: which certificate, for how long, what of it the application is told; and the way there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::common::{DEADLINE, Gateway, Recorder, Setup, Wire, get, until};
use crate::reload_listeners::named;

/// Writes a certificate for `names` and its key into `dir`, as `name.pem` and `name.key`.
pub(crate) fn issue(dir: &Path, name: &str, names: &[&str]) -> CertificateDer<'static> {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let put = |file: String, text: String| {
        let fresh = dir.join(format!("{file}.new"));
        std::fs::write(&fresh, text).unwrap();
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(&fresh, dir.join(file)).unwrap();
    };
    put(format!("{name}.key"), key.serialize_pem());
    put(format!("{name}.pem"), certificate.pem());
    certificate.der().clone()
}

/// How a client that believes `roots` speaks.
pub(crate) fn client_config(roots: &[&CertificateDer<'static>], alpn: &[&str]) -> ClientConfig {
    let mut store = RootCertStore::empty();
    roots.iter().for_each(|root| store.add((*root).clone()).unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(store).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// One TLS connection of a client.
pub(crate) struct Secure(pub(crate) StreamOwned<ClientConnection, TcpStream>);

impl Secure {
    pub(crate) fn try_connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        stream.conn.complete_io(&mut stream.sock)?;
        Ok(Self(stream))
    }

    pub(crate) fn connect(address: SocketAddr, config: &Arc<ClientConfig>, name: &str) -> Self {
        Self::try_connect(address, config, name).expect("a handshake")
    }

    /// The head of the answer to a GET.
    pub(crate) fn get(&mut self, host: &str, target: &str) -> String {
        self.0.write_all(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).unwrap();
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).expect("a whole head");
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).unwrap();
        head
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.0.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

/// A gateway for `https://app.example` with the certificates `first` (app.example) and `second` (*.apps.example).
struct Stage {
    app: Recorder,
    gateway: Gateway,
    first: CertificateDer<'static>,
    second: CertificateDer<'static>,
}

fn setup(app: &Recorder) -> Setup {
    let certificates = r#"[{ cert = "first.pem", key = "first.key" }, { cert = "second.pem", key = "second.key" }]"#;
    Setup::new(app.address()).key("server.public_url", r#""https://app.example""#).key("server.tls", certificates)
}

fn prepare(setup: &Setup) -> (TempDir, CertificateDer<'static>, CertificateDer<'static>) {
    // Accounts are added with the configuration in place, and that one needs its certificates.
    let dir = setup_without_users(setup);
    let first = issue(dir.path(), "first", &["app.example"]);
    let second = issue(dir.path(), "second", &["*.apps.example"]);
    (dir, first, second)
}

fn setup_without_users(setup: &Setup) -> TempDir {
    let dir = tempfile::Builder::new().prefix("gate").tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), setup.toml()).unwrap();
    dir
}

fn start(with: impl Fn(Setup) -> Setup) -> Stage {
    let app = Recorder::start();
    let (dir, first, second) = prepare(&with(setup(&app)));
    Stage { app, gateway: Gateway::serve(dir), first, second }
}

impl Stage {
    fn config(&self) -> Arc<ClientConfig> {
        Arc::new(client_config(&[&self.first, &self.second], &[]))
    }
}

#[test]
fn the_application_is_told_https_and_browsers_are_held_to_it() {
    let stage = start(|setup| setup.key("server.hsts", "\"365d\""));
    let mut client = Secure::connect(stage.gateway.address, &stage.config(), "app.example");
    let head = client.get("app.example", "/public/a");
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("\r\nstrict-transport-security: max-age=31536000\r\n"), "{head}");
    let seen = stage.app.only("over TLS");
    assert_eq!(seen.header("x-forwarded-proto").as_deref(), Some("https"));
    // The sign-in page is ours, and held to it too; the connection is the same.
    let head = client.get("app.example", "/private");
    assert!(head.starts_with("http/1.1 401") && head.contains("strict-transport-security"), "{head}");
    stage.app.assert_untouched("nobody is signed in");
}

#[test]
fn the_server_name_chooses_the_certificate_and_an_unknown_one_gets_the_first() {
    let stage = start(|setup| setup);
    let config = stage.config();
    for (name, expected) in [("app.example", &stage.first), ("one.apps.example", &stage.second)] {
        let client = Secure::connect(stage.gateway.address, &config, name);
        assert_eq!(client.certificate(), *expected, "{name}");
        assert_eq!(client.0.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    }
    // An address is no server name: the client sends none, and finds that the first certificate is not for it.
    for name in ["other.example", "a.b.apps.example", "127.0.0.1"] {
        let Err(error) = Secure::try_connect(stage.gateway.address, &config, name) else { panic!("{name} is covered") };
        assert!(error.to_string().contains("app.example"), "{name}: {error}");
    }
}

#[test]
fn sessions_are_resumed_under_their_own_certificate_only_and_tls_1_2_is_spoken() {
    let stage = start(|setup| setup);
    let config = stage.config();
    let kind = |name: &str| {
        let mut client = Secure::connect(stage.gateway.address, &config, name);
        // Tickets come with the first bytes of the answer.
        client.get(name, "/public/a");
        client.0.conn.handshake_kind().unwrap()
    };
    assert_eq!(kind("app.example"), HandshakeKind::Full);
    assert_eq!(kind("app.example"), HandshakeKind::Resumed);
    assert_eq!(kind("one.apps.example"), HandshakeKind::Full);
    // A reload that leaves the certificates alone leaves their sessions alone.
    let setup = setup(&stage.app).key("login.title", "\"Other\"");
    stage.gateway.reload(&setup);
    assert_eq!(kind("app.example"), HandshakeKind::Resumed);
    issue(stage.gateway.dir(), "first", &["app.example"]);
    stage.gateway.command(&["reload"]).succeeded();
    let Err(_) = Secure::try_connect(stage.gateway.address, &config, "app.example") else {
        panic!("a ticket of the former certificate is taken");
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let old = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(stage.second.clone()).unwrap();
    let old = Arc::new(old.with_root_certificates(roots).with_no_client_auth());
    let client = Secure::connect(stage.gateway.address, &old, "x.apps.example");
    assert_eq!(client.0.conn.protocol_version(), Some(ProtocolVersion::TLSv1_2));
}

#[test]
fn renewed_files_are_taken_in_and_bad_ones_leave_the_former_in_place() {
    let stage = start(|setup| setup);
    let mut old = Secure::connect(stage.gateway.address, &stage.config(), "app.example");
    old.get("app.example", "/public/a");
    let renewed = issue(stage.gateway.dir(), "first", &["app.example"]);
    let config = Arc::new(client_config(&[&renewed], &[]));
    let has_renewed = || Secure::try_connect(stage.gateway.address, &config, "app.example").ok().map(drop);
    until("the renewed certificate, without a word to the gateway", has_renewed);
    assert!(old.get("app.example", "/public/b").starts_with("http/1.1 200"), "the old connection lives");
    // A key of another certificate, as between the two writes of a renewal.
    std::fs::copy(stage.gateway.dir().join("second.key"), stage.gateway.dir().join("first.key")).unwrap();
    let ran = stage.gateway.command(&["reload"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("key-mismatch") && ran.stderr.contains("is not the key of"), "{}", ran.stderr);
    let ran = stage.gateway.command(&["check"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("is not the key of"), "check says it too: {}", ran.stderr);
    has_renewed().expect("the one in force is still served");
}

#[test]
fn who_speaks_something_else_on_a_tls_port_is_turned_away_in_time() {
    let stage =
        start(|setup| setup.key("server.limits.header_timeout", "\"1s\"").key("admin.listen", "\"127.0.0.1:0\""));
    let mut plain = Wire::connect(stage.gateway.address);
    plain.write("GET /public/a HTTP/1.1\r\nHost: app.example\r\n\r\n");
    let answer = plain.read_answer("GET").expect("an answer in the clear");
    assert_eq!((answer.status, answer.text().contains("https")), (400, true));
    assert!(plain.is_closed());
    for bytes in [&b""[..], b"\x16\x03\x01\x02", b"G", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", b"\x80\x2e\x01\x00"]
    {
        let mut wire = Wire::connect(stage.gateway.address);
        wire.write(bytes);
        wire.read_to_end().expect("closed before the client's patience ends");
    }
    stage.app.assert_untouched("no request came");
    let page = crate::common::Client::of(stage.gateway.admin()).send(&get("/metrics")).text();
    for reason in ["not_tls", "refused", "timeout"] {
        let name = format!(
            "portcullis_tls_handshakes_failed_total{{listener=\"{}\",reason=\"{reason}\"}} ",
            stage.gateway.address
        );
        let line = page.lines().find(|line| line.starts_with(&name)).expect("counted");
        assert!(!line.ends_with(" 0"), "{line}");
    }
    let expiry =
        page.lines().find(|line| line.starts_with("portcullis_tls_certificate_expiry_timestamp_seconds{file="));
    assert!(expiry.expect("a time").contains("first.pem"), "{expiry:?}");
    let log = stage.gateway.stderr.text();
    let told = log.lines().filter(|line| line.contains("TLS") || line.contains("handshake")).count();
    assert_eq!(told, 0, "no storm in the log: {log}");
}

#[test]
fn a_listener_in_the_clear_sends_to_https_and_to_hosts_of_ours_only() {
    let listen = r#"["127.0.0.1:0", { address = "127.0.0.1:0", redirect_to_https = true }]"#;
    let route = r#"
        [[routes]]
        path = "/**"
        hosts = ["app.example", "*.apps.example"]
        allow = "anyone"
        upstream = "app"
    "#;
    let stage = start(|setup| setup.key("server.listen", listen).routes(route).key("server.hsts", "\"1d\""));
    let plain = until("two listeners", || named(&stage.gateway).get(1).copied());
    let ask = |host: &str, target: &str| crate::common::Client::of(plain).send(&get(target).host(host));
    for (host, target, location) in [
        ("app.example", "/a/b?c=d&e=https://evil", "https://app.example/a/b?c=d&e=https://evil"),
        ("APP.example.:80", "/login", "https://app.example/login"),
        ("one.apps.example", "/", "https://one.apps.example/"),
        ("evil.example", "/a", "https://app.example/a"),
        ("app.example", "//evil.example/a", "https://app.example//evil.example/a"),
        ("app.example", "/.gateway/userinfo", "https://app.example/.gateway/userinfo"),
    ] {
        let answer = ask(host, target);
        assert_eq!((answer.status, answer.header("location")), (308, Some(location)), "{host} {target}");
        assert_eq!(answer.header("strict-transport-security"), None, "said over https only (RFC 6797, section 7.2)");
    }
    assert_eq!(ask("app.example", "/a/../b").status, 400, "what nobody should see is not sent on");
    assert_eq!(ask("a@app.example", "/").status, 400);
    stage.app.assert_untouched("nothing is forwarded from there");
}
