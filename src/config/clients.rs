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
use super::tls::moment;
use crate::clock::{Clock, Timestamp};
use crate::diag::{Diagnostic, quoted};
use crate::message::certificate::{Standing, Term, Trust};

/// By what clients' certificates are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    /// The file of the authorities.
    pub ca: PathBuf,
    /// Which certificates they have revoked.
    pub crl: Option<Revoked>,
    /// The fingerprint of both.
    pub trust: Trust,
}

/// The lists of revoked certificates of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Where they were read.
    pub file: PathBuf,
    /// When all of them count.
    pub term: Term,
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
        let (file, lists, term) = pem::revocation_lists(cx, crl)?;
        // An empty list is another thing than none.
        print.update(b"crl");
        lists.iter().for_each(|list| print.update(list));
        // Who was revoked since, a list does not say whose time is over: no answer means no.
        verifier = verifier.with_crls(lists).enforce_revocation_expiration();
        let revoked = Revoked { file, term };
        judge_term(&revoked, Clock::system().now()).into_iter().for_each(|finding| cx.report(finding.at(crl.span())));
        clients.crl = Some(revoked);
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

/// What is to be said of the time in which `revoked` counts.
fn judge_term(revoked: &Revoked, now: Timestamp) -> Option<Diagnostic> {
    let Term { from, until } = revoked.term;
    let said = format!("the list of revoked certificates in {}", quoted(&revoked.file.to_string_lossy()));
    let (message, help) = match revoked.term.standing(now) {
        Standing::Holds => return None,
        Standing::EndsSoon => (
            format!("{said} counts until {}: then no client's certificate is believed", moment(until)),
            "put the authority's next list into the file; it is taken in without a restart",
        ),
        Standing::Over => (
            format!("{said} is out of date since {}: no client's certificate is believed", moment(until)),
            "get the authority's next list and put it into the file; it is taken in without a restart",
        ),
        Standing::NotYet => (
            format!("{said} is from {}, which is still to come", moment(from)),
            "use the list that counts now, or set this machine's clock",
        ),
    };
    Some(Diagnostic::warning("certificate-expired", message).help(help))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_that_a_list_is_out_of_date_or_still_to_come() {
        let revoked = Revoked { file: "ca.crl".into(), term: Term { from: 1_000_000, until: 1_700_000 } };
        let said = |seconds| judge_term(&revoked, Timestamp::from_secs(seconds)).map(|finding| finding.message);
        assert_eq!(said(1_000_000), None);
        let soon = "the list of revoked certificates in `ca.crl` counts until 1970-01-20 16:13:20 UTC: \
                    then no client's certificate is believed";
        assert_eq!(said(1_700_000).as_deref(), Some(soon));
        let over = "the list of revoked certificates in `ca.crl` is out of date since 1970-01-20 16:13:20 UTC: \
                    no client's certificate is believed";
        assert_eq!(said(1_700_001).as_deref(), Some(over));
        let early =
            "the list of revoked certificates in `ca.crl` is from 1970-01-12 13:46:40 UTC, which is still to come";
        assert_eq!(said(999_999).as_deref(), Some(early));
    }
}
