//! `server.tls`: the certificates of this gateway, read with the configuration and ready for handshakes.
//!
//! What would fail in a handshake is found here: a key of another certificate, one that is encrypted. So a configuration
//! that is in force can speak TLS, and a bad file leaves the former one there. A certificate whose time is over is served
//! all the same, with a warning: what its clients make of it is theirs to decide.

use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::clients::{Clients, Revoked, clients};
use super::pem;
use super::reader::{Context, Item, Written};
use crate::clock::{Clock, Timestamp};
use crate::diag::{Diagnostic, Span, quoted};
use crate::message::certificate::{Facts, Standing, Term, Trust};

/// The gateway's certificates; none: it speaks no TLS.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls(Vec<Arc<Certificate>>);

/// One certificate with its key.
#[derive(Debug)]
pub struct Certificate {
    /// The file of the certificate and those that lead to an authority.
    pub cert: PathBuf,
    /// The file of its key.
    pub key: PathBuf,
    /// What it says of itself.
    pub facts: Facts,
    /// Which clients may show a certificate; `None`: they are not asked for one.
    pub clients: Option<Clients>,
    chain: Vec<CertificateDer<'static>>,
    handshakes: Arc<ServerConfig>,
}

/// Two are the same that come from the same files and certify the same. Then the key is the same too.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        (&self.cert, &self.key, &self.chain, &self.clients) == (&other.cert, &other.key, &other.chain, &other.clients)
    }
}

impl Certificate {
    /// How handshakes with it go. Its tickets are its own: nothing is resumed under another certificate.
    pub const fn handshakes(&self) -> &Arc<ServerConfig> {
        &self.handshakes
    }
}

impl Tls {
    /// All of them, in the order in which they are written.
    pub fn certificates(&self) -> &[Arc<Certificate>] {
        &self.0
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The certificate for clients that ask for `name`: the first that has it, else the first whose pattern has it, else
    /// the first of all.
    pub fn choose(&self, name: Option<&str>) -> Option<&Arc<Certificate>> {
        let name = name.map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let exact = |name: &String| self.0.iter().find(|one| one.facts.names.contains(name));
        let pattern = |name: &String| self.0.iter().find(|one| one.facts.covers(name));
        name.and_then(|name| exact(&name).or_else(|| pattern(&name))).or_else(|| self.0.first())
    }

    /// Whether clients of `host` are believed by what has this fingerprint: the host's own certificate says so, whichever
    /// the connection was opened with.
    pub fn trusts(&self, host: &str, trust: &Trust) -> bool {
        let clients = self.choose(Some(host)).and_then(|certificate| certificate.clients.as_ref());
        clients.is_some_and(|clients| clients.trust == *trust)
    }

    /// Whether clients are asked for certificates.
    pub fn asks_clients(&self) -> bool {
        self.0.iter().any(|one| one.clients.is_some())
    }

    /// The files that count for a time only.
    pub fn dated(&self) -> impl Iterator<Item = Dated<'_>> {
        self.0.iter().flat_map(|one| {
            let (file, term) = (one.cert.as_path(), one.facts.term);
            let crl = one.clients.as_ref().and_then(|clients| clients.crl.as_ref());
            let list = crl.map(|Revoked { file, term }| Dated { file, what: DatedFile::RevocationList, term: *term });
            iter::once(Dated { file, what: DatedFile::Certificate, term }).chain(list)
        })
    }

    /// Goes on with what of `former` is the same, and with it with the sessions that clients may resume.
    pub fn keep(&mut self, former: &Self) {
        for certificate in &mut self.0 {
            if let Some(same) = former.0.iter().find(|one| *one == certificate) {
                *certificate = Arc::clone(same);
            }
        }
    }
}

/// A file of `server.tls` that counts for a time only.
#[derive(Clone, Copy, Debug)]
pub struct Dated<'a> {
    /// The file.
    pub file: &'a Path,
    /// What it holds.
    pub what: DatedFile,
    /// When that counts.
    pub term: Term,
}

/// What a [`Dated`] file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DatedFile {
    /// A certificate of the gateway.
    Certificate,
    /// Certificates of clients that were revoked.
    RevocationList,
}

/// `server.tls` as written.
pub(super) fn certificates(item: &Item<'_>) -> Option<Vec<Written<Certificate>>> {
    let list = item.list()?.into_inner();
    let provider = Arc::new(default_provider());
    (!list.is_empty()).then(|| list.iter().filter_map(|item| certificate(item, &provider)).collect())
}

/// What was written, and what can be said of it only beside `public_url`.
pub(super) fn resolve(cx: &Context<'_>, written: Option<Vec<Written<Certificate>>>, public_host: Option<&str>) -> Tls {
    let written = written.unwrap_or_default();
    let now = Clock::system().now();
    for certificate in &written {
        if let Some(finding) = judge_time(certificate.get_ref(), now) {
            cx.report(finding.at(certificate.span()));
        }
    }
    if let (Some(host), Some(first)) = (public_host, written.first())
        && !written.iter().any(|one| one.get_ref().facts.covers(host))
    {
        let message = format!("no certificate is for {}, the host of public_url", quoted(host));
        let names = first.get_ref().facts.names.join(", ");
        let label = if names.is_empty() { "has no names".to_owned() } else { format!("is for {names}") };
        let finding = Diagnostic::warning("certificate-names", message).at(first.span()).label(label);
        cx.report(finding.help("browsers refuse it: have one issued with this name as subject alternative name"));
    }
    Tls(written.into_iter().map(|one| Arc::new(one.into_inner())).collect())
}

/// What is to be said of the time in which `certificate` holds.
fn judge_time(certificate: &Certificate, now: Timestamp) -> Option<Diagnostic> {
    let term = certificate.facts.term;
    let said = quoted(&certificate.cert.to_string_lossy());
    let help = "renew it; the gateway takes in the new files by itself";
    match term.standing(now) {
        Standing::Holds => None,
        Standing::EndsSoon => {
            let message = format!("the certificate {said} expires on {}", moment(term.until));
            Some(Diagnostic::warning("certificate-expired", message).help(help))
        }
        Standing::Over => {
            let message = format!("the certificate {said} has expired on {}", moment(term.until));
            // No error, which would make an outage of every host out of one bad certificate.
            Some(Diagnostic::warning("certificate-expired", message).help(help))
        }
        Standing::NotYet => {
            let message = format!("the certificate {said} holds only from {} on", moment(term.from));
            let finding = Diagnostic::warning("certificate-expired", message);
            Some(finding.help("use one that holds now, or set this machine's clock"))
        }
    }
}

/// A moment in seconds since 1970, for people.
pub(super) fn moment(seconds: i64) -> String {
    let moment = Timestamp::from_secs(u64::try_from(seconds).unwrap_or(0)).rfc3339();
    moment.split('.').next().unwrap_or_default().replace('T', " ") + " UTC"
}

fn certificate(item: &Item<'_>, provider: &Arc<CryptoProvider>) -> Option<Written<Certificate>> {
    let mut table = item.table("server.tls")?;
    table.require("cert", "write { cert = \"cert.pem\", key = \"key.pem\" }");
    table.require("key", "write { cert = \"cert.pem\", key = \"key.pem\" }");
    let cert = table.take("cert").and_then(|cert| cert.text());
    let key = table.take("key").and_then(|key| key.text());
    let ca = table.take("client_ca").and_then(|ca| ca.text());
    let crl = table.take("client_crl").and_then(|crl| crl.text());
    table.finish();
    if let (None, Some(crl)) = (&ca, &crl) {
        let finding = Diagnostic::error("bad-certificate", "`client_crl` counts only beside `client_ca`");
        item.cx.report(finding.at(crl.span()).help("name the authorities in client_ca, or remove it"));
    }
    let clients = match &ca {
        Some(ca) => Some(clients(item.cx, ca, crl.as_ref(), provider)?),
        None => None,
    };
    let (cert, key) = (cert?, key?);
    let chain = pem::certificates(item.cx, &cert);
    let private = pem::private_key(item.cx, &key);
    let ((cert_path, chain), (key_path, private)) = (chain?, private?);
    let bad = |code: &'static str, reason: String, place: Span, help: &str| {
        item.cx.report(Diagnostic::error(code, reason).at(place).help(help));
    };
    let Some(facts) = chain.first().and_then(|first| Facts::read(first)) else {
        let reason = format!("the first certificate in {} can't be read", quoted(&cert_path.to_string_lossy()));
        bad("bad-certificate", reason, cert.span(), "save it anew as it was issued");
        return None;
    };
    let certified = match CertifiedKey::from_der(chain.clone(), private, provider) {
        Ok(certified) => certified,
        Err(rustls::Error::InconsistentKeys(_)) => {
            let shown = [&key_path, &cert_path].map(|path| quoted(&path.to_string_lossy()).to_string());
            let reason = format!("{} is not the key of the first certificate in {}", shown[0], shown[1]);
            bad(
                "key-mismatch",
                reason,
                key.span(),
                "name the key that the certificate was issued for; its own stands first",
            );
            return None;
        }
        Err(error) => {
            bad(
                "bad-certificate",
                format!("certificate and key can't be used: {error}"),
                item.span(),
                "have both made anew",
            );
            return None;
        }
    };
    let (clients, verifier) = clients.unzip();
    match handshakes(certified, verifier, provider) {
        Ok(handshakes) => {
            let certificate = Certificate { cert: cert_path, key: key_path, facts, clients, chain, handshakes };
            Some(Spanned::new(cert.span(), certificate))
        }
        Err(error) => {
            bad(
                "bad-certificate",
                format!("certificate and key can't be used: {error}"),
                item.span(),
                "have both made anew",
            );
            None
        }
    }
}

/// TLS 1.2 and 1.3, sessions that can be resumed, nothing early (RFC 8446, section 8).
fn handshakes(
    certified: CertifiedKey,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let config = ServerConfig::builder_with_provider(Arc::clone(provider)).with_safe_default_protocol_versions()?;
    let resolver = Arc::new(SingleCertAndKey::from(certified));
    let clients = clients.unwrap_or_else(WebPkiClientVerifier::no_client_auth);
    let mut config = config.with_client_cert_verifier(clients).with_cert_resolver(resolver);
    config.ticketer = Ticketer::new()?;
    config.max_early_data_size = 0;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};
    use rustls::pki_types::PrivateKeyDer;

    use super::*;

    fn certificate(file: &str, names: &[&str]) -> Arc<Certificate> {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 4, 1);
        let chain = vec![params.self_signed(&key).unwrap().der().clone()];
        let provider = Arc::new(default_provider());
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let facts = Facts::read(&chain[0]).unwrap();
        let certified = CertifiedKey::from_der(chain.clone(), private, &provider).unwrap();
        let handshakes = handshakes(certified, None, &provider).unwrap();
        Arc::new(Certificate { cert: file.into(), key: "key.pem".into(), facts, clients: None, chain, handshakes })
    }

    #[test]
    fn the_name_that_a_client_asks_for_chooses_the_certificate() {
        let tls = Tls(vec![
            certificate("default", &["first.example"]),
            certificate("pattern", &["*.apps.example"]),
            certificate("exact", &["one.apps.example", "apps.example"]),
        ]);
        for (asked, chosen) in [
            (None, "default"),
            (Some("first.example"), "default"),
            (Some("nobody.example"), "default"),
            (Some("two.apps.example"), "pattern"),
            (Some("TWO.Apps.Example."), "pattern"),
            (Some("one.apps.example"), "exact"),
            (Some("apps.example"), "exact"),
            (Some("a.b.apps.example"), "default"),
            (Some(""), "default"),
        ] {
            assert_eq!(tls.choose(asked).unwrap().cert, Path::new(chosen), "{asked:?}");
        }
        assert!(Tls::default().choose(Some("h")).is_none());
    }

    #[test]
    fn an_unchanged_certificate_keeps_its_sessions_and_a_renewed_one_does_not() {
        let former = Tls(vec![certificate("a", &["a.example"]), certificate("b", &["b.example"])]);
        let same = |one: &Certificate, handshakes: &Arc<ServerConfig>| {
            let Certificate { cert, key, facts, chain, .. } = one;
            let (cert, key, facts, chain) = (cert.clone(), key.clone(), facts.clone(), chain.clone());
            Arc::new(Certificate { cert, key, facts, clients: None, chain, handshakes: Arc::clone(handshakes) })
        };
        let renewed = certificate("b", &["b.example"]);
        let mut next = Tls(vec![same(&former.0[0], &renewed.handshakes), Arc::clone(&renewed)]);
        next.keep(&former);
        assert!(Arc::ptr_eq(&next.0[0].handshakes, &former.0[0].handshakes));
        assert!(Arc::ptr_eq(&next.0[1].handshakes, &renewed.handshakes));
    }

    #[test]
    fn says_what_is_over_what_begins_later_and_what_ends_soon() {
        let certificate = certificate("a.pem", &["a.example"]);
        // 2026-01-01 and 2026-04-01.
        let (begins, ends) = (1_767_225_600, 1_775_001_600);
        let said = |seconds| judge_time(&certificate, Timestamp::from_secs(seconds)).map(|finding| finding.message);
        assert_eq!(said(begins), None);
        assert_eq!(said(ends - 14 * 86_400), None);
        assert_eq!(said(ends - 14 * 86_400 + 1).unwrap(), "the certificate `a.pem` expires on 2026-04-01 00:00:00 UTC");
        assert_eq!(said(ends + 1).unwrap(), "the certificate `a.pem` has expired on 2026-04-01 00:00:00 UTC");
        assert_eq!(said(begins - 1).unwrap(), "the certificate `a.pem` holds only from 2026-01-01 00:00:00 UTC on");
    }
}
