//! Files of certificates and keys in PEM, for the gateway's own sake and for that of its upstreams: each is read here, watched,
//! and judged by its mode, and what is wrong with it is said in one way.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::modes;
use super::reader::{Context, Written};
use super::secrets::{read_at_most, secret_file};
use crate::diag::{Diagnostic, quoted};
use crate::message::certificate::Term;

/// The certificates of the file that `written` names: at least one, and none of them broken.
pub(super) fn certificates(
    cx: &Context<'_>,
    written: &Written<String>,
) -> Option<(PathBuf, Vec<CertificateDer<'static>>)> {
    let (file, bytes) = read(cx, written)?;
    let problem = match parse(&bytes) {
        Ok(found) if found.is_empty() => "has no certificate".to_owned(),
        Ok(found) => match found.iter().position(|one| Term::of_certificate(one).is_none()) {
            None => return Some((file, found)),
            Some(at) => format!("can't be used: certificate {} is broken", at + 1),
        },
        Err(error) => format!("is not PEM: {error}"),
    };
    let help = "name a PEM file, which has lines with -----BEGIN CERTIFICATE-----";
    cx.report(bad("bad-certificate", &file, &problem).at(written.span()).help(help));
    None
}

/// The lists of revoked certificates of the file that `written` names, at least one, and the time in which all of them count.
pub(super) fn revocation_lists(
    cx: &Context<'_>,
    written: &Written<String>,
) -> Option<(PathBuf, Vec<CertificateRevocationListDer<'static>>, Term)> {
    let (file, bytes) = read(cx, written)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let problem = match lists {
        Ok(lists) if lists.is_empty() => "has no list of revoked certificates".to_owned(),
        Ok(lists) => {
            let terms: Vec<_> = lists.iter().map(|list| Term::of_revocation_list(list)).collect();
            match terms.iter().position(Option::is_none) {
                Some(at) => {
                    format!("can't be used: list {} is broken, or does not say when the next one comes", at + 1)
                }
                None => {
                    let term = terms.into_iter().flatten().reduce(Term::both)?;
                    return Some((file, lists, term));
                }
            }
        }
        Err(error) => format!("is not PEM: {error}"),
    };
    let help = "name a PEM file, which has lines with -----BEGIN X509 CRL-----";
    cx.report(bad("bad-certificate", &file, &problem).at(written.span()).help(help));
    None
}

/// The private key of the file that `written` names.
pub(super) fn private_key(cx: &Context<'_>, written: &Written<String>) -> Option<(PathBuf, PrivateKeyDer<'static>)> {
    let read = |path: &Path| read_at_most(path, LARGEST).map(Zeroizing::new);
    let (file, bytes) = secret_file(cx, written, read)?;
    let (problem, help) = match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => return Some((file, key)),
        Err(_) if memchr::memmem::find(&bytes, ENCRYPTED).is_some() => {
            ("is encrypted, and nobody is there to be asked", "decrypt it with `openssl pkey`, and chmod 600")
        }
        Err(_) => ("has no private key", "name a PEM file, which has a line with -----BEGIN PRIVATE KEY-----"),
    };
    cx.report(bad("bad-private-key", &file, problem).at(written.span()).help(help));
    None
}

/// The certificates in `bytes`, as they stand there.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_slice_iter(bytes).collect()
}

fn read(cx: &Context<'_>, written: &Written<String>) -> Option<(PathBuf, Vec<u8>)> {
    let file = cx.directory.join(written.get_ref());
    cx.depends_on(file.clone());
    match read_at_most(&file, LARGEST) {
        Ok(bytes) => {
            modes::of_file(&file).into_iter().for_each(|finding| cx.report(finding.at(written.span())));
            Some((file, bytes))
        }
        Err(reason) => {
            let finding = bad("unreadable-file", &file, &format!("can't be read: {reason}")).at(written.span());
            cx.report(finding.help("a relative path starts at the directory of this configuration"));
            None
        }
    }
}

fn bad(code: &'static str, file: &Path, problem: &str) -> Diagnostic {
    Diagnostic::error(code, format!("the file {} {problem}", quoted(&file.to_string_lossy())))
}

/// No file of certificates or keys is larger.
pub(super) const LARGEST: u64 = 4 << 20;

/// In the label of PKCS#8, and in the header of what OpenSSL encrypted in its old way.
const ENCRYPTED: &[u8] = b"ENCRYPTED";
