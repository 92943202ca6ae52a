//! What a look at a setup needs to know of a configuration, without its secrets: `portcullis doctor` asks a running gateway
//! for it, or takes it from the file.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{AdminListen, Config, Dated, DatedFile, IssuerKeys, KeySource, ServerAddr, Show};
use crate::message::certificate::Term;

/// What is known of a configuration. Paths are whole, whoever asks and from wherever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are named after their keys")]
pub struct Facts {
    /// The file that it was read from.
    pub file: PathBuf,
    /// That one and every other that it was made of, but those with secrets.
    pub files: Vec<PathBuf>,
    /// Files with secrets, keys or accounts.
    pub secret_files: Vec<PathBuf>,
    /// `None`: there is no store.
    pub store: Option<PathBuf>,
    /// `None`: there is no control socket.
    pub control: Option<PathBuf>,
    pub listen: Vec<SocketAddr>,
    /// Those of them where a request in the clear, without more before it, is not understood.
    pub not_plain: Vec<SocketAddr>,
    /// Unix sockets for clients.
    pub sockets: Vec<PathBuf>,
    /// An address, or `unix:` and a path.
    pub admin: Option<String>,
    pub origin: String,
    pub is_https: bool,
    pub host: String,
    pub login_path: String,
    pub cookie: String,
    pub trusted_proxies: Vec<String>,
    /// Algorithm and number of the keys that the configuration names; `None`: they are in the store.
    pub keys: Option<(String, usize)>,
    /// The servers of the upstreams.
    pub servers: Vec<ServerFacts>,
    pub issuers: Vec<String>,
    /// Lists of certificates of clients that were revoked.
    #[serde(default)]
    pub dated: Vec<DatedFacts>,
    /// What the gateway shows for itself, to clients and to upstreams.
    #[serde(default)]
    pub certificates: Vec<CertificateFacts>,
    /// Tells two configurations apart, but not by their secrets.
    pub digest: String,
}

/// A server of an upstream, and by what its certificate is believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are named after their keys")]
pub struct ServerFacts {
    pub upstream: String,
    pub server: ServerAddr,
    pub ca: Option<PathBuf>,
    pub server_name: Option<String>,
}

/// A file that counts for a time only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the fields are named after those of `Dated`")]
pub struct DatedFacts {
    pub file: PathBuf,
    pub what: DatedFile,
    pub term: Term,
}

/// A certificate that the gateway shows, as it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFacts {
    /// To which upstream; `None`: to clients.
    pub upstream: Option<String>,
    /// Its file.
    pub cert: PathBuf,
    /// That of its key.
    pub key: PathBuf,
    /// From when it holds, in seconds since the epoch.
    pub from: u64,
    /// Until when.
    pub until: u64,
}

impl Facts {
    /// Whether a request in the clear is understood at `address`, which may be what port 0 has become.
    pub fn speaks_http(&self, address: SocketAddr) -> bool {
        let is_it =
            |written: &&SocketAddr| **written == address || (written.port() == 0 && written.ip() == address.ip());
        !self.not_plain.iter().any(|written| is_it(&written))
    }

    /// What is known of `config`.
    pub fn of(config: &Config) -> Self {
        let server = &config.server;
        let algorithm = format!("{:?}", config.tokens.algorithm);
        let named = config.issuers.iter().filter_map(|issuer| match &issuer.keys {
            IssuerKeys::File(path) => Some(path.as_path()),
            IssuerKeys::Url { ca, .. } | IssuerKeys::Discovery { ca } => ca.as_deref(),
            IssuerKeys::Shared(_) => None,
        });
        let files = config.files.iter().filter(|file| !config.secret_files.contains(file));
        let servers = config.upstreams.iter().flat_map(|upstream| {
            upstream.servers.iter().map(|server| ServerFacts {
                upstream: upstream.name.clone(),
                server: server.address.clone(),
                ca: upstream.tls.ca.as_ref().map(|ca| whole(&ca.file)),
                server_name: upstream.tls.server_name.clone(),
            })
        });
        let not_plain = server.listen.iter().filter(|listen| listen.tls || listen.h2c || server.proxy_protocol);
        Self {
            file: whole(&config.file),
            files: files.map(|file| file.as_path()).chain(named).map(whole).collect(),
            secret_files: config.secret_files.iter().map(|file| whole(file)).collect(),
            store: config.store.file().map(whole),
            control: config.admin.control.as_deref().map(whole),
            listen: server.listen.iter().filter_map(|listen| listen.address.tcp()).collect(),
            not_plain: not_plain.filter_map(|listen| listen.address.tcp()).collect(),
            sockets: server.listen.iter().filter_map(|listen| listen.address.path()).map(whole).collect(),
            admin: config.admin.listen.as_ref().map(|listen| match listen {
                AdminListen::Tcp(address) => address.to_string(),
                AdminListen::Unix(path) => format!("unix:{}", whole(path).display()),
            }),
            origin: server.public_url.origin(),
            is_https: server.public_url.https,
            host: server.public_url.host.clone(),
            login_path: config.login.path.clone(),
            cookie: config.sessions.cookie.clone(),
            trusted_proxies: server
                .trusted_proxies
                .iter()
                .map(ToString::to_string)
                .chain(server.trusts_unix.then(|| "unix".to_owned()))
                .collect(),
            keys: match &config.tokens.keys {
                KeySource::Store => None,
                KeySource::Shared(keys) | KeySource::Pem(keys) => Some((algorithm, keys.len())),
            },
            servers: servers.collect(),
            dated: server
                .tls
                .dated()
                .filter(|dated| dated.what == DatedFile::RevocationList)
                .map(|Dated { file, what, term }| DatedFacts { file: whole(file), what, term })
                .collect(),
            issuers: config.issuers.iter().map(|issuer| issuer.name.to_string()).collect(),
            certificates: certificates(config),
            digest: digest_of(&Show::of(config).toml()),
        }
    }

    /// Whether what `peer` says of its clients is believed.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let networks = self.trusted_proxies.iter().filter_map(|network| network.parse::<IpNet>().ok());
        networks.into_iter().any(|network| network.contains(&peer))
    }
}

fn certificates(config: &Config) -> Vec<CertificateFacts> {
    let seconds = |moment: i64| u64::try_from(moment).unwrap_or(0);
    let shown = config.server.tls.certificates().iter().map(|one| CertificateFacts {
        upstream: None,
        cert: whole(&one.cert),
        key: whole(&one.key),
        from: seconds(one.facts.term.from),
        until: seconds(one.facts.term.until),
    });
    let to_upstreams = config.upstreams.iter().filter_map(|upstream| {
        let client = upstream.tls.client.as_ref()?;
        let Term { from, until } = Term::of_certificate(client.chain.certificates.first()?)?;
        Some(CertificateFacts {
            upstream: Some(upstream.name.clone()),
            cert: whole(&client.chain.file),
            key: whole(&client.key_file),
            from: seconds(from),
            until: seconds(until),
        })
    });
    shown.chain(to_upstreams).collect()
}

fn digest_of(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn whole(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::load_text;
    use super::*;

    fn facts(section: &str) -> Facts {
        let rest =
            "[upstreams]\na = \"http://b:81\"\n[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"a\"\n";
        let loaded = load_text(Path::new("/etc/gate/gateway.toml"), format!("{section}\n{rest}"), &|_| None);
        Facts::of(&loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false))))
    }

    #[test]
    fn says_what_is_in_force_and_no_secret() {
        let secret = "a secret of at least thirty-two bytes";
        let facts = facts(&format!("[tokens]\nalgorithm = \"HS256\"\nsecret = \"{secret}\""));
        let text = serde_json::to_string(&facts).unwrap();
        assert!(!text.contains(secret) && text.contains("HS256"), "{text}");
        assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), facts);
        let servers: Vec<_> = facts.servers.iter().map(|facts| (&*facts.upstream, facts.server.to_string())).collect();
        assert_eq!(servers, [("a", "http://b:81".to_owned())]);
        assert_eq!(facts.store.as_deref(), Some(Path::new("/etc/gate/portcullis.db")));
    }

    #[test]
    fn another_value_is_another_digest() {
        let [one, same, other] = ["", "", "[login]\ntitle = \"x\""].map(facts);
        assert!(one.digest == same.digest && one.digest != other.digest);
        let trusting = facts("[server]\ntrusted_proxies = [\"10.0.0.0/8\"]");
        assert!(trusting.trusts([10, 1, 1, 1].into()) && !trusting.trusts([11, 1, 1, 1].into()));
    }
}
