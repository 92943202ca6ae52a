//! Client certificates: who may come by one, where it counts, and when it no longer does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::common::{Client, DEADLINE, Gateway, Recorder, Setup, command, get, password_of};
use crate::tls::issue;

/// Who issues to clients.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for the person `name`, changed by `with`.
    fn client(&self, name: &str, with: impl Fn(&mut CertificateParams)) -> Shown {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        with(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().clone(), key.serialize_der())
    }

    /// A list that revokes the certificate with this number.
    fn revoked(&self, number: u64) -> String {
        self.revoked_until(number, date_time_ymd(2100, 1, 1))
    }

    /// The same, where the next list was to come at `next_update`.
    fn revoked_until(&self, number: u64, next_update: time::OffsetDateTime) -> String {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(number),
            revocation_time: date_time_ymd(2026, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 1),
            next_update,
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

/// A certificate and its key.
type Shown = (CertificateDer<'static>, Vec<u8>);

struct Stage {
    app: Recorder,
    gateway: Gateway,
    roots: [CertificateDer<'static>; 2],
    authority: Authority,
    partner: Authority,
}

const ROUTES: &str = r#"
    [[routes]]
    name = "machines"
    path = "/machines/**"
    accept = ["client-cert", "cookie"]
    allow = { groups = ["staff"], methods_of_sign_in = ["client-cert"] }
    upstream = "app"

    [[routes]]
    name = "rest"
    path = "/**"
    allow = "signed-in"
    upstream = "app"
"#;

fn start(more: &str) -> Stage {
    start_with(more, "[]")
}

/// The first certificate with `more`, a second for `partner.example` with authorities of its own, and these `proxies`.
fn start_with(more: &str, proxies: &str) -> Stage {
    let app = Recorder::start();
    let first = format!(r#"{{ cert = "first.pem", key = "first.key", client_ca = "ca.pem"{more} }}"#);
    let second = r#"{ cert = "partner.pem", key = "partner.key", client_ca = "partner-ca.pem" }"#;
    let setup = Setup::new(app.address()).key("server.tls", &format!("[{first}, {second}]")).routes(ROUTES);
    let setup = setup.key("server.trusted_proxies", proxies);
    let setup = setup.key("server.public_url", r#""https://app.example""#).key("admin.listen", "\"127.0.0.1:0\"");
    let dir = tempfile::Builder::new().prefix("gate").tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), setup.toml()).unwrap();
    let root = issue(dir.path(), "first", &["app.example"]);
    let partner_root = issue(dir.path(), "partner", &["partner.example"]);
    let (authority, partner) = (Authority::new("people"), Authority::new("partner"));
    std::fs::write(dir.path().join("ca.pem"), &authority.pem).unwrap();
    std::fs::write(dir.path().join("partner-ca.pem"), &partner.pem).unwrap();
    std::fs::write(dir.path().join("ca.crl"), authority.revoked(7)).unwrap();
    for (name, groups) in [("alice", "staff"), ("bob", "other")] {
        let args = ["user", "add", name, "--password-stdin", "--groups", groups];
        command(dir.path(), &args, &format!("{}\n", password_of(name))).succeeded();
    }
    Stage { app, gateway: Gateway::serve(dir), roots: [root, partner_root], authority, partner }
}

/// A connection on which `shown` was shown, or what the handshake came to.
struct Connection(StreamOwned<ClientConnection, TcpStream>);

impl Connection {
    fn open(address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        Self::to("app.example", address, config)
    }

    fn to(name: &'static str, address: SocketAddr, config: &Arc<ClientConfig>) -> Self {
        let stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let name = ServerName::try_from(name).unwrap();
        Self(StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), stream))
    }

    /// The status of a request; `None`: the handshake or the connection failed.
    fn try_ask(&mut self, request: &str) -> Option<u16> {
        self.try_ask_of("app.example", request)
    }

    fn try_ask_of(&mut self, host: &str, request: &str) -> Option<u16> {
        self.0.write_all(format!("{request}\r\nHost: {host}\r\n\r\n").as_bytes()).ok()?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            self.0.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        let length =
            head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |text| text.parse().unwrap());
        self.0.read_exact(&mut vec![0; length]).ok()?;
        head.split(' ').nth(1)?.parse().ok()
    }
}

impl Stage {
    fn config(&self, shown: Option<&Shown>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        self.roots.iter().for_each(|root| roots.add(root.clone()).unwrap());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots);
        Arc::new(match shown {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.clone()).unwrap();
                config.with_client_auth_cert(vec![certificate.clone()], key).unwrap()
            }
        })
    }

    fn ask(&self, shown: Option<&Shown>, request: &str) -> Option<u16> {
        Connection::open(self.gateway.address, &self.config(shown)).try_ask(request)
    }

    fn put(&self, file: &str, text: &str) {
        std::fs::write(Path::new(self.gateway.dir()).join(file), text).unwrap();
    }
}

const GET: &str = "GET /machines/a HTTP/1.1";

#[test]
fn a_certificate_is_the_account_of_its_name_where_the_route_takes_it() {
    let stage = start("");
    let alice = stage.authority.client("alice", |_| {});
    let forged = format!("{GET}\r\nX-SSL-Client-CN: root\r\nX-Forwarded-User: root");
    assert_eq!(stage.ask(Some(&alice), &forged), Some(200));
    let seen = stage.app.only("by certificate");
    assert_eq!(
        (seen.all("x-forwarded-user"), seen.all("x-forwarded-groups")),
        (vec!["alice".to_owned()], vec!["staff".to_owned()])
    );
    assert!(seen.taken_for("x-ssl-client-cn").is_empty(), "nobody but the gateway speaks of certificates");
    for (what, name, request, status) in [
        ("another route", "alice", "GET /other HTTP/1.1", 401),
        ("an unsafe request without a word of where it comes from", "alice", "POST /machines/a HTTP/1.1", 200),
        ("one of another site", "alice", "POST /machines/a HTTP/1.1\r\nSec-Fetch-Site: cross-site", 403),
        (
            "a cookie that is not good beside it",
            "alice",
            "GET /machines/a HTTP/1.1\r\nCookie: __Host-portcullis=x",
            200,
        ),
        ("the wrong group", "bob", GET, 403),
        ("nobody's name", "carol", GET, 401),
        ("no name that an account can have", "../alice", GET, 401),
        ("no name", "", GET, 401),
    ] {
        let shown = stage.authority.client(name, |_| {});
        assert_eq!(stage.ask(Some(&shown), request), Some(status), "{what}");
        match status {
            200 => drop(stage.app.only(what)),
            _ => stage.app.assert_untouched(what),
        }
    }
    assert_eq!(stage.ask(None, GET), Some(401), "nobody has to show one");
    let mut standing = Connection::open(stage.gateway.address, &stage.config(Some(&alice)));
    assert_eq!(standing.try_ask(GET), Some(200));
    stage.gateway.command(&["user", "disable", "alice"]).succeeded();
    assert_eq!(standing.try_ask(GET), Some(401), "at once, on a connection that stands");
}

#[test]
fn a_bad_certificate_fails_the_handshake() {
    let stage = start(", client_crl = \"ca.crl\"");
    let good = stage.authority.client("alice", |params| params.serial_number = Some(SerialNumber::from(8)));
    assert_eq!(stage.ask(Some(&good), GET), Some(200));
    stage.app.take();
    let other = Authority::new("people");
    let bad: [(&str, Shown); 6] = [
        ("another authority of the same name", other.client("alice", |_| {})),
        ("over", stage.authority.client("alice", |params| params.not_after = date_time_ymd(2020, 1, 1))),
        ("not yet", stage.authority.client("alice", |params| params.not_before = date_time_ymd(2090, 1, 1))),
        (
            "for servers",
            stage
                .authority
                .client("alice", |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        ),
        ("revoked", stage.authority.client("alice", |params| params.serial_number = Some(SerialNumber::from(7)))),
        ("issued by a client", {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "alice");
            (params.self_signed(&key).unwrap().der().clone(), key.serialize_der())
        }),
    ];
    for (what, shown) in bad {
        assert_eq!(stage.ask(Some(&shown), GET), None, "{what}");
    }
    stage.app.assert_untouched("none of them came through");
}

#[test]
fn other_authorities_end_what_the_former_ones_vouched_for() {
    let stage = start("");
    let alice = stage.authority.client("alice", |_| {});
    let config = stage.config(Some(&alice));
    let mut standing = Connection::open(stage.gateway.address, &config);
    assert_eq!(standing.try_ask(GET), Some(200));
    let other = Authority::new("others");
    stage.put("ca.pem", &format!("{}{}", stage.authority.pem, other.pem));
    stage.gateway.command(&["reload"]).succeeded();
    assert_eq!(standing.try_ask(GET), Some(401), "it has to connect again");
    let mut again = Connection::open(stage.gateway.address, &config);
    assert_eq!(again.try_ask(GET), Some(200), "and is believed as before");
    stage.put("ca.pem", &other.pem);
    stage.gateway.command(&["reload"]).succeeded();
    assert_eq!(again.try_ask(GET), Some(401));
    // With the tickets of both connections in hand.
    assert_eq!(Connection::open(stage.gateway.address, &config).try_ask(GET), None, "no session is resumed");
    let theirs = other.client("alice", |_| {});
    assert_eq!(stage.ask(Some(&theirs), GET), Some(200));
}

#[test]
fn a_certificate_counts_on_the_hosts_whose_authorities_vouch_for_it() {
    let stage = start("");
    // The partner signs what it likes.
    let theirs = stage.config(Some(&stage.partner.client("alice", |_| {})));
    let mut connection = Connection::to("partner.example", stage.gateway.address, &theirs);
    assert_eq!(connection.try_ask_of("partner.example", GET), Some(200), "where the partner is believed");
    stage.app.only("the partner's host");
    for host in ["app.example", "APP.example.:443", "nowhere.example"] {
        assert_eq!(connection.try_ask_of(host, GET), Some(401), "{host} believes others");
    }
    stage.app.assert_untouched("a connection for another host");
}

#[test]
fn the_certificate_of_a_trusted_proxy_is_nobodys() {
    let stage = start_with("", r#"["127.0.0.0/8"]"#);
    let proxy = stage.authority.client("alice", |_| {});
    for forwarded in ["\r\nX-Forwarded-For: 192.0.2.7", ""] {
        assert_eq!(stage.ask(Some(&proxy), &format!("{GET}{forwarded}")), Some(401), "its clients are not it");
    }
    stage.app.assert_untouched("a proxy shows a certificate of its own");
}

#[test]
fn a_list_that_is_out_of_date_lets_nobody_in_and_is_told_of() {
    let stage = start(", client_crl = \"ca.crl\"");
    let alice = stage.authority.client("alice", |params| params.serial_number = Some(SerialNumber::from(8)));
    assert_eq!(stage.ask(Some(&alice), GET), Some(200));
    let until = time::OffsetDateTime::now_utc() - std::time::Duration::from_secs(60);
    stage.put("ca.crl", &stage.authority.revoked_until(7, until));
    let told = stage.gateway.command(&["reload"]).succeeded();
    let said = format!("{}{}", told.stdout, told.stderr);
    assert!(
        said.contains("warning[certificate-expired]") && said.contains("no client's certificate is believed"),
        "{said}"
    );
    assert_eq!(stage.ask(Some(&alice), GET), None, "nobody knows who was revoked since");
    assert_eq!(stage.ask(None, GET), Some(401), "whoever shows none goes on");
    let doctor = stage.gateway.command(&["doctor"]);
    assert!(doctor.stdout.contains("ca.crl is out of date since"), "{}", doctor.stdout);
    let page = Client::of(stage.gateway.admin()).send(&get("/metrics")).text();
    let expiry = page.lines().find(|line| line.starts_with("portcullis_tls_crl_expiry_timestamp_seconds{"));
    let (name, value) = expiry.unwrap().rsplit_once(' ').unwrap();
    assert!(name.contains("ca.crl"), "{name}");
    assert_eq!(value.parse::<f64>().unwrap() as i64, until.unix_timestamp());
    stage.put("ca.crl", &stage.authority.revoked(7));
    stage.gateway.command(&["reload"]).succeeded();
    assert_eq!(stage.ask(Some(&alice), GET), Some(200), "the next list");
}
