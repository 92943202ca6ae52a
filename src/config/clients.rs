//! `client_ca` and `client_crl` of a certificate: by whom clients' certificates are believed.

use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::pem;
use super::reader::{Context, Written};
use crate::diag::{Diagnostic, quoted};
use crate::message::certificate::Trust;

/// By what clients' certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// The file of the authorities.
    pub ca: PathBuf,
    /// The file of the certificates that they have revoked.
    pub crl: Option<PathBuf>,
    /// The fingerprint of both.
    pub trust: Trust,
}

/// Who vouches for clients, and how their certificates are verified: one may be shown, and a bad one ends the handshake.
pub(super) fn clients(
    cx: &Context<'_>,
    ca: &Written<String>,
    crl: Option<&Written<String>>,
    provider: &Arc<CryptoProvider>,
) -> Option<(Clients, Arc<dyn ClientCertVerifier>)> {
    let (path, authorities) = pem::certificates(cx, ca)?;
    let refuse = |place: &Written<String>, message: String, help: &str| {
        cx.report(Diagnostic::error("bad-certificate", message).at(place.span()).help(help));
    };
    let mut print = digest::Context::new(&digest::SHA256);
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        print.update(&authority);
        if let Err(error) = roots.add(authority) {
            let message = format!("{} holds what is no authority's: {error}", quoted(&path.to_string_lossy()));
            refuse(ca, message, "name the certificates of those who issue to clients");
            return None;
        }
    }
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let mut clients = Clients { ca: path, crl: None, trust: Trust::default() };
    if let Some(crl) = crl {
        let (path, lists, _) = pem::revocation_lists(cx, crl)?;
        // An empty list is another thing than none.
        print.update(b"crl");
        lists.iter().for_each(|list| print.update(list));
        verifier = verifier.with_crls(lists);
        clients.crl = Some(path);
    }
    clients.trust.copy_from_slice(print.finish().as_ref());
    match verifier.allow_unauthenticated().build() {
        Ok(verifier) => Some((clients, verifier)),
        Err(error) => {
            let message = format!("clients can't be verified by this: {error}");
            refuse(crl.unwrap_or(ca), message, "save the files anew as they were issued");
            None
        }
    }
}
