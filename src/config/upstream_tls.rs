//! `tls` of an upstream: which authorities its certificate is believed from, what the gateway shows for itself, and under
//! which name. The files are read here, so that a change of one is a change of the configuration.

use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::pem;
use super::reader::{Context, Item, Table, Written};
use super::secrets::read_at_most;
use super::tls::moment;
use super::values::Fault;
use crate::clock::{Clock, Timestamp};
use crate::diag::{Diagnostic, Span, quoted};
use crate::message::certificate::{Standing, Term};
use crate::secret::Secret;

/// How an `https` server is spoken to. Its certificate is always verified.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UpstreamTls {
    /// The authorities that are believed; `None`: the system's.
    pub ca: Option<Certificates>,
    /// What the gateway shows for itself where it is asked.
    pub client: Option<ClientCertificate>,
    /// The name that is asked for and verified; `None`: the host of the server's address.
    pub server_name: Option<String>,
}

/// The certificates of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// Where they were read.
    pub file: PathBuf,
    /// At least one, in DER.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// A certificate, those that lead to its authority, and its key.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientCertificate {
    /// Its own is the first.
    pub chain: Certificates,
    /// Where the key was read.
    pub key_file: PathBuf,
    /// The key, in DER: PKCS#8, PKCS#1 or SEC1.
    pub key: Secret<Vec<u8>>,
}

impl UpstreamTls {
    /// Settings by which a server is only verified.
    ///
    /// # Errors
    /// When `ca` can't be read.
    pub fn believing(ca: Option<&Path>, server_name: Option<String>) -> io::Result<Self> {
        let read = |file: &Path| {
            let bytes = read_at_most(file, pem::LARGEST).map_err(io::Error::other)?;
            let certificates = pem::parse(&bytes).map_err(io::Error::other)?;
            Ok::<_, io::Error>(Certificates { file: file.to_owned(), certificates })
        };
        Ok(Self { ca: ca.map(read).transpose()?, client: None, server_name })
    }

    /// The same, and what the gateway shows for itself.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn showing(self, cert: &Path, key: &Path) -> io::Result<Self> {
        let named = |file: &Path, error: String| io::Error::other(format!("{}: {error}", file.display()));
        let read = |file: &Path| read_at_most(file, pem::LARGEST).map_err(|error| named(file, error.to_string()));
        let certificates = pem::parse(&read(cert)?).map_err(|error| named(cert, error.to_string()))?;
        let written = Secret::new(read(key)?);
        let der = PrivateKeyDer::from_pem_slice(written.expose()).map_err(|error| named(key, error.to_string()))?;
        let chain = Certificates { file: cert.to_owned(), certificates };
        let client = ClientCertificate { chain, key_file: key.to_owned(), key: Secret::new(der.secret_der().to_vec()) };
        Ok(Self { client: Some(client), ..self })
    }
}

/// `tls` and where it is written.
pub(super) struct Raw {
    pub(super) tls: UpstreamTls,
    pub(super) place: Span,
}

impl Raw {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let (cx, place) = (table.cx, table.span.clone());
        let ca = table.take("ca").and_then(|item| authorities(&item));
        let (cert, key) = (table.take("cert"), table.take("key"));
        let lone = match (&cert, &key) {
            (Some(cert), None) => Some((cert, "key", "client.key")),
            (None, Some(key)) => Some((key, "cert", "client.pem")),
            (Some(_), Some(_)) | (None, None) => None,
        };
        if let Some((there, missing, example)) = lone {
            let message = format!("`tls` has `{}` without `{missing}`", there.name);
            let finding = Diagnostic::error("missing-key", message).at(there.key.clone());
            cx.report(finding.help(format!("add {missing} = \"{example}\"")));
        }
        let client = cert.zip(key).and_then(|(cert, key)| client(&cert, &key));
        let server_name = table.take("server_name").and_then(|item| item.parsed("bad-host", server_name));
        table.finish();
        let server_name = server_name.map(Written::into_inner);
        Self { tls: UpstreamTls { ca, client, server_name }, place }
    }
}

/// A name, or an address, that a certificate can be for.
pub(super) fn server_name(text: &str) -> Result<String, Fault> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            let message = format!("no certificate can be for {}", quoted(text));
            Err(Fault::new(message, "not a host name or an address", "write a name such as \"api.internal\""))
        }
    }
}

fn authorities(item: &Item<'_>) -> Option<Certificates> {
    let found = certificates(item)?;
    let mut roots = RootCertStore::empty();
    for certificate in &found.certificates {
        if let Err(error) = roots.add(certificate.clone()) {
            let message = format!("{} has a certificate that is no authority's: {error}", shown(&found.file));
            report(item, Diagnostic::error("bad-certificate", message), "name the authority's certificates in PEM");
            return None;
        }
    }
    let now = Clock::system().now();
    // Of several, one that still holds is enough.
    let terms = found.certificates.iter().filter_map(|certificate| Term::of_certificate(certificate));
    let judged: Option<Vec<_>> = terms.map(|term| judge_term(term, &found.file, now)).collect();
    if let Some(first) = judged.into_iter().flatten().next() {
        report(item, first, RENEW);
    }
    Some(found)
}

fn client(cert: &Item<'_>, key: &Item<'_>) -> Option<ClientCertificate> {
    let (chain, private) = (certificates(cert), pem::private_key(key.cx, &key.text()?));
    let (chain, (key_file, private)) = (chain?, private?);
    let key_der = Secret::new(private.secret_der().to_vec());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    match CertifiedKey::from_der(chain.certificates.clone(), private, &provider) {
        Ok(_) => {}
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let message = format!("the key in {} is not that of {}", shown(&key_file), shown(&chain.file));
            report(key, Diagnostic::error("key-mismatch", message), "name the key that the certificate was made for");
            return None;
        }
        Err(rustls::Error::InvalidCertificate(error)) => {
            let message = format!("{} can't be used: {error:?}", shown(&chain.file));
            report(cert, Diagnostic::error("bad-certificate", message), "make it anew; the gateway's own comes first");
            return None;
        }
        Err(_) => {
            let message = format!("the key in {} can't be used", shown(&key_file));
            report(key, Diagnostic::error("bad-private-key", message), "use an RSA, ECDSA or Ed25519 key in PEM");
            return None;
        }
    }
    let own = chain.certificates.first().and_then(|own| Term::of_certificate(own));
    if let Some(finding) = own.and_then(|term| judge_term(term, &chain.file, Clock::system().now())) {
        report(cert, finding, RENEW);
    }
    Some(ClientCertificate { chain, key_file, key: key_der })
}

fn certificates(item: &Item<'_>) -> Option<Certificates> {
    let (file, certificates) = pem::certificates(item.cx, &item.text()?)?;
    Some(Certificates { file, certificates })
}

/// What is to be said of the time in which a certificate of `file` holds. A warning only: all that goes to other upstreams
/// works.
fn judge_term(term: Term, file: &Path, now: Timestamp) -> Option<Diagnostic> {
    let day = |seconds: i64| moment(seconds).get(..10).unwrap_or_default().to_owned();
    let message = match term.standing(now) {
        Standing::Holds | Standing::EndsSoon => return None,
        Standing::Over => format!("the certificate in {} expired on {}", shown(file), day(term.until)),
        Standing::NotYet => format!("the certificate in {} does not hold before {}", shown(file), day(term.from)),
    };
    Some(Diagnostic::warning("certificate-expired", message))
}

const RENEW: &str = "put a new one into the file; it is taken in without a restart";

/// Reports `tls` where no server is `https`.
pub(super) fn report_unused(cx: &Context<'_>, place: Span) {
    let finding =
        Diagnostic::warning("unused-tls", "`tls` has no use: no server of this upstream is https://").at(place);
    cx.report(finding.help("write https:// in `servers`, or remove `tls`"));
}

fn report(item: &Item<'_>, finding: Diagnostic, help: &str) {
    item.cx.report(finding.at(item.span()).help(help));
}

fn shown(file: &Path) -> String {
    quoted(&file.to_string_lossy())
}
