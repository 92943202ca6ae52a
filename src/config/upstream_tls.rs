//! `tls` of an upstream: which authorities its certificate is believed from, what the gateway shows for itself, and under
//! which name. The files are read here, so that a change of one is a change of the configuration.

use std::io;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::modes;
use super::reader::{Context, Item, Table, Written};
use super::secrets::{SecretBytes, read_at_most, secret_file};
use super::validity::{Validity, validity};
use super::values::Fault;
use crate::clock::{Clock, Timestamp};
use crate::diag::{Diagnostic, Span, quoted};
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
            let bytes = read_at_most(file, LARGEST).map_err(io::Error::other)?;
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
            let certificates = certificates.map_err(io::Error::other)?;
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
        let read = |file: &Path| read_at_most(file, LARGEST).map_err(|error| named(file, error.to_string()));
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(cert)?).collect();
        let certificates = certificates.map_err(|error| named(cert, error.to_string()))?;
        let pem = Secret::new(read(key)?);
        let der = PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|error| named(key, error.to_string()))?;
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
    let judged: Vec<_> = found.certificates.iter().map(|certificate| age(certificate, now)).collect();
    if let Some(Some(first)) = judged.first()
        && judged.iter().all(Option::is_some)
    {
        warn_age(item, &found, first);
    }
    Some(found)
}

fn client(cert: &Item<'_>, key: &Item<'_>) -> Option<ClientCertificate> {
    let (chain, key_file) = (certificates(cert), key.text());
    let (key_file, key_der) = secret_file(key.cx, &key_file?, |path| read_at_most(path, LARGEST).map(Secret::new))?;
    let (chain, key_der) = (chain?, private_key(key, &key_file, &key_der)?);
    let parsed = PrivateKeyDer::try_from(key_der.expose().clone()).map_err(str::to_owned);
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let matched = parsed.map(|parsed| CertifiedKey::from_der(chain.certificates.clone(), parsed, &provider));
    match matched {
        Ok(Ok(_)) => {}
        Ok(Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch))) => {
            let message = format!("the key in {} is not that of {}", shown(&key_file), shown(&chain.file));
            report(key, Diagnostic::error("key-mismatch", message), "name the key that the certificate was made for");
            return None;
        }
        Ok(Err(rustls::Error::InvalidCertificate(error))) => {
            let message = format!("{} can't be used: {error:?}", shown(&chain.file));
            report(cert, Diagnostic::error("bad-certificate", message), "make it anew; the gateway's own comes first");
            return None;
        }
        Ok(Err(_)) | Err(_) => {
            let message = format!("the key in {} can't be used", shown(&key_file));
            report(key, Diagnostic::error("bad-private-key", message), "use an RSA, ECDSA or Ed25519 key in PEM");
            return None;
        }
    }
    let own = chain.certificates.first().and_then(|own| age(own, Clock::system().now()));
    if let Some(age) = own {
        warn_age(cert, &chain, &age);
    }
    Some(ClientCertificate { chain, key_file, key: key_der })
}

fn certificates(item: &Item<'_>) -> Option<Certificates> {
    let written = item.text()?;
    let file = item.cx.directory.join(written.get_ref());
    item.cx.depends_on(file.clone());
    let bytes = match read_at_most(&file, LARGEST) {
        Ok(bytes) => bytes,
        Err(reason) => {
            let message = format!("the file {} can't be read: {reason}", shown(&file));
            let help = "a relative path starts at the directory of this configuration";
            report(item, Diagnostic::error("unreadable-file", message), help);
            return None;
        }
    };
    modes::of_file(&file).into_iter().for_each(|finding| item.cx.report(finding.at(item.span())));
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let problem = match read {
        Ok(certificates) if certificates.is_empty() => "has no certificate".to_owned(),
        Ok(certificates) => match certificates.iter().position(|certificate| validity(certificate).is_none()) {
            None => return Some(Certificates { file, certificates }),
            Some(at) => format!("can't be used: certificate {} is broken", at + 1),
        },
        Err(error) => format!("is not PEM: {error}"),
    };
    let message = format!("the file {} {problem}", shown(&file));
    let help = "name a PEM file, which has lines with -----BEGIN CERTIFICATE-----";
    report(item, Diagnostic::error("bad-certificate", message), help);
    None
}

fn private_key(item: &Item<'_>, file: &Path, pem: &SecretBytes) -> Option<SecretBytes> {
    if let Ok(key) = PrivateKeyDer::from_pem_slice(pem.expose()) {
        return Some(Secret::new(key.secret_der().to_vec()));
    }
    let is_encrypted = pem.expose().windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED);
    let (problem, help) = match is_encrypted {
        true => ("is encrypted, and nobody is there to be asked", "decrypt it with `openssl pkey`"),
        false => ("has no private key", "name a PEM file, which has a line with -----BEGIN PRIVATE KEY-----"),
    };
    let message = format!("the file {} {problem}", shown(file));
    report(item, Diagnostic::error("bad-private-key", message), help);
    None
}

/// When a certificate does not hold.
enum Age {
    Expired(Timestamp),
    NotYet(Timestamp),
}

fn age(certificate: &CertificateDer<'_>, now: Timestamp) -> Option<Age> {
    let Validity { from, until } = validity(certificate)?;
    if now > until {
        return Some(Age::Expired(until));
    }
    (now < from).then_some(Age::NotYet(from))
}

/// A warning only: all that goes to other upstreams works.
fn warn_age(item: &Item<'_>, certificates: &Certificates, age: &Age) {
    let file = shown(&certificates.file);
    let day = |moment: &Timestamp| moment.rfc3339().get(..10).unwrap_or_default().to_owned();
    let message = match age {
        Age::Expired(until) => format!("the certificate in {file} expired on {}", day(until)),
        Age::NotYet(from) => format!("the certificate in {file} does not hold before {}", day(from)),
    };
    let finding = Diagnostic::warning("certificate-expired", message);
    report(item, finding, "put a new one into the file; it is taken in without a restart");
}

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

/// No file of certificates or keys is larger.
const LARGEST: u64 = 4 << 20;

/// In the label of PKCS#8, and in the header of what OpenSSL encrypted in its old way.
const ENCRYPTED: &[u8] = b"ENCRYPTED";
