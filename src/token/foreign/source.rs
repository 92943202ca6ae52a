//! Where an issuer's keys come from: a URL, what its discovery document names, or a file.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::jwks::{Jwks, JwksError};
use crate::config::{Issuer, IssuerKeys};
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
    let malformed = |reason: String| SourceError::Discovery { url: url.clone(), reason };
    let document: Value = serde_json::from_slice(&document.body).map_err(|_| malformed("is not JSON".to_owned()))?;
    match document.get("issuer").and_then(Value::as_str) {
        Some(says) if says == issuer => {}
        Some(says) => return Err(malformed(format!("is of the issuer {says:?}"))),
        None => return Err(malformed("names no issuer".to_owned())),
    }
    let Some(jwks) = document.get("jwks_uri").and_then(Value::as_str) else {
        return Err(malformed("has no `jwks_uri`".to_owned()));
    };
    // Keys over http:// are believed only where the configuration itself names that machine.
    if !jwks.starts_with("https://") && !issuer.starts_with("http://") {
        return Err(malformed(format!("names keys that do not come by https: {jwks:?}")));
    }
    Ok(jwks.to_owned())
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
