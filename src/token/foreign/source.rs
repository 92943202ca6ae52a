//! Where an issuer's keys come from: a URL, what its discovery document names, or a file.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::jwks::{Jwks, JwksError};
use crate::config::{self, Issuer, IssuerKeys};
use crate::upstream::fetch::{self, Document, FetchError, Limits};

/// Keys, and how long until they are asked for again.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) jwks: Jwks,
    pub(super) good_for: Duration,
}

/// Asks for the keys of `issuer` once.
pub(super) async fn load(issuer: &Issuer) -> Result<Loaded, SourceError> {
    let (document, good_for) = match &issuer.keys {
        IssuerKeys::Url { url, ca } => by_url(url, ca.as_deref()).await?,
        IssuerKeys::Discovery { ca } => {
            let url = discover(&issuer.issuer, ca.as_deref()).await?;
            by_url(&url, ca.as_deref()).await?
        }
        IssuerKeys::File(path) => (by_file(path.clone()).await?, FILE_EVERY),
        // They are known from the beginning.
        IssuerKeys::Shared(_) => return Err(SourceError::Jwks(JwksError::NoUsable { first: None })),
    };
    let jwks = Jwks::read(&document, &issuer.algorithms).map_err(SourceError::Jwks)?;
    Ok(Loaded { jwks, good_for })
}

async fn by_url(url: &str, ca: Option<&Path>) -> Result<(Bytes, Duration), SourceError> {
    let found = fetch::get(url, ca, LIMITS).await;
    let Document { body, max_age } =
        found.map_err(|source| SourceError::Fetch { url: url.to_owned(), source: Box::new(source) })?;
    Ok((body, max_age.unwrap_or(UNSAID).clamp(LEAST, MOST)))
}

/// OpenID Connect Discovery 1.0 section 4: the document must say the very issuer that it was asked for.
async fn discover(issuer: &str, ca: Option<&Path>) -> Result<String, SourceError> {
    let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let found = fetch::get(&url, ca, LIMITS).await;
    let document = found.map_err(|source| SourceError::Fetch { url: url.clone(), source: Box::new(source) })?;
    keys_of(&document.body, issuer).map_err(|reason| SourceError::Discovery { url, reason })
}

/// Where a discovery document says that the keys of `issuer` are, or why it is not believed.
fn keys_of(document: &[u8], issuer: &str) -> Result<String, String> {
    let document: Value = serde_json::from_slice(document).map_err(|_| "is not JSON".to_owned())?;
    match document.get("issuer").and_then(Value::as_str) {
        Some(says) if says == issuer => {}
        Some(says) => return Err(format!("is of the issuer {says:?}")),
        None => return Err("names no issuer".to_owned()),
    }
    let Some(jwks) = document.get("jwks_uri").and_then(Value::as_str) else {
        return Err("has no `jwks_uri`".to_owned());
    };
    // What the configuration may not say, its issuer may not either; and only one on this machine may name this machine.
    let is_secure = config::is_key_url(jwks) && (jwks.starts_with("https://") || issuer.starts_with("http://"));
    if is_secure { Ok(jwks.to_owned()) } else { Err(format!("names keys that do not come by https: {jwks:?}")) }
}

async fn by_file(path: PathBuf) -> Result<Bytes, SourceError> {
    let read = move || {
        let failed = |source| SourceError::File { path: path.clone(), source };
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&path).map_err(failed)?;
        file.take(LIMITS.bytes as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() > LIMITS.bytes {
            return Err(failed(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any key set")));
        }
        Ok(Bytes::from(bytes))
    };
    match tokio::task::spawn_blocking(read).await {
        Ok(read) => read,
        Err(_) => Err(SourceError::Jwks(JwksError::NotJson)),
    }
}

/// Why there are no keys.
#[derive(Debug)]
#[expect(missing_docs, reason = "the fields are named after what they hold")]
pub enum SourceError {
    /// A document can't be had.
    Fetch { url: String, source: Box<FetchError> },
    /// The discovery document says something else than it should.
    Discovery { url: String, reason: String },
    /// The file can't be read.
    File { path: PathBuf, source: io::Error },
    /// The document is no key set, or one without a key that could be used.
    Jwks(JwksError),
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fetch { url, source } => write!(f, "{url}: {source}"),
            Self::Discovery { url, reason } => write!(f, "the document at {url} {reason}"),
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Jwks(source) => write!(f, "{source}"),
        }
    }
}

impl std::error::Error for SourceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Fetch { source, .. } => Some(source.as_ref()),
            Self::File { source, .. } => Some(source),
            Self::Jwks(source) => Some(source),
            Self::Discovery { .. } => None,
        }
    }
}

const LIMITS: Limits = Limits { bytes: 512 << 10, time: Duration::from_secs(10) };

/// How long keys are good for whose answer does not say.
const UNSAID: Duration = Duration::from_secs(3600);

/// Whatever the answer says, keys are not asked for more often than this, nor more seldom than that.
const LEAST: Duration = Duration::from_secs(300);
const MOST: Duration = Duration::from_secs(86_400);

/// How often a file is looked at.
const FILE_EVERY: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_discovery_document_leads_nowhere_that_the_configuration_could_not() {
        let keys = |issuer: &str, jwks: &str| {
            keys_of(json!({ "issuer": issuer, "jwks_uri": jwks }).to_string().as_bytes(), issuer)
        };
        let (far, near) = ("https://id.example/realm", "http://127.0.0.1:8081");
        for (issuer, good) in [
            (far, "https://id.example/jwks"),
            (far, "https://keys.example:8443/v1/jwks?x=y"),
            (near, "http://127.0.0.1:8081/jwks"),
            (near, "http://localhost/jwks"),
            (near, "https://id.example/jwks"),
        ] {
            assert_eq!(keys(issuer, good).as_deref(), Ok(good));
        }
        for (issuer, bad) in [
            (far, "http://id.example/jwks"),
            (far, "http://127.0.0.1/jwks"),
            (near, "http://id.example/jwks"),
            (near, "http://127.0.0.1.evil.example/jwks"),
            (far, "https://user:password@id.example/jwks"),
            (near, "http://127.0.0.1:8081@evil.example/jwks"),
            (far, "file:///etc/passwd"),
            (near, "file:///etc/passwd"),
            (far, "/jwks"),
            (far, "https://"),
            (far, "https://id.example/a b"),
            (far, ""),
        ] {
            let refused = keys(issuer, bad).unwrap_err();
            assert!(refused.starts_with("names keys that do not come by https"), "{bad}: {refused}");
        }
        let of = |document: &str| keys_of(document.as_bytes(), far).unwrap_err();
        assert_eq!(of("<html>"), "is not JSON");
        assert_eq!(of("[]"), "names no issuer");
        assert_eq!(of(r#"{"issuer":"https://id.example/realm/"}"#), r#"is of the issuer "https://id.example/realm/""#);
        assert_eq!(of(r#"{"issuer":"https://id.example/realm","jwks_uri":1}"#), "has no `jwks_uri`");
    }
}
