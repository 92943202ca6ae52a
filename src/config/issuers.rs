//! `[[issuers]]`: whose tokens are accepted beside the gateway's own, as written and checked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::reader::{Context, Item, Table, Written};
use super::secrets::{SecretBytes, read_at_most, secrets};
use super::server::positive;
use super::values::Fault;
use super::{Accounts, Algorithm, Issuer, IssuerKeys, Route, tokens, url};
use crate::diag::{Diagnostic, Span, nearest, quoted};
use crate::secret::Secret;

/// One issuer as written.
pub(super) struct Raw {
    header: Span,
    name: Option<Written<String>>,
    issuer: Option<Written<String>>,
    audience: Option<Vec<String>>,
    jwks: Option<Written<Place>>,
    ca: Option<Written<PathBuf>>,
    secret: Option<Written<Vec<Written<SecretBytes>>>>,
    algorithms: Option<Written<Vec<Written<Algorithm>>>>,
    user: Option<Written<String>>,
    groups: Option<Written<String>>,
    accounts: Option<Written<Accounts>>,
    user_prefix: Option<Written<String>>,
    group_prefix: Option<Written<String>>,
    leeway: Option<Written<Duration>>,
    max_lifetime: Option<Written<Duration>>,
}

/// What `jwks` names.
enum Place {
    Url(String),
    File(PathBuf),
    /// It can't be used, which has been reported.
    Unusable,
}

impl Raw {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let header = table.span.clone();
        for (key, example) in REQUIRED {
            table.require(key, example);
        }
        let secret = table.take("secret").and_then(|item| Some(Spanned::new(item.key.clone(), secrets(&item)?)));
        let raw = Self {
            header,
            name: table.take("name").and_then(|item| item.text()),
            issuer: table.take("issuer").and_then(|item| item.text()),
            audience: table.take("audience").and_then(|item| audience(&item)),
            jwks: table.take("jwks").map(|item| Spanned::new(item.span(), place(&item))),
            ca: table.take("ca").and_then(|item| certificates(&item)),
            secret,
            algorithms: table.take("algorithms").and_then(|item| algorithms(&item)),
            user: table.take("user").and_then(|item| item.text()),
            groups: table.take("groups").and_then(|item| item.text()),
            accounts: table.take("accounts").and_then(|item| item.word("issuers.accounts", ACCOUNTS)),
            user_prefix: table.take("user_prefix").and_then(|item| item.parsed("bad-prefix", prefix)),
            group_prefix: table.take("group_prefix").and_then(|item| item.parsed("bad-prefix", prefix)),
            leeway: table.duration("leeway"),
            max_lifetime: table.duration("max_lifetime"),
        };
        table.finish();
        raw
    }

    fn name(&self) -> &str {
        self.name.as_ref().map_or("", |name| name.get_ref())
    }

    fn place(&self) -> Span {
        self.name.as_ref().map_or(self.header.clone(), Spanned::span)
    }

    /// The issuer, if nothing in it is unusable.
    fn resolve(self, cx: &Context<'_>) -> Option<Issuer> {
        let place = self.place();
        let keys = self.keys(cx, &place);
        let algorithms = self.algorithms(cx);
        let max_lifetime = positive(cx, "max_lifetime", self.max_lifetime, tokens::MAX_LIFETIME);
        tokens::judge_leeway(cx, self.leeway.as_ref());
        let text =
            |text: Option<Written<String>>, default: &str| text.map_or_else(|| default.to_owned(), Spanned::into_inner);
        Some(Issuer {
            name: self.name?.into_inner().into(),
            issuer: self.issuer?.into_inner(),
            audience: self.audience?,
            keys: keys?,
            algorithms: algorithms?,
            user: text(self.user, "sub"),
            groups: text(self.groups, "groups"),
            accounts: self.accounts.map_or(Accounts::Separate, Spanned::into_inner),
            user_prefix: text(self.user_prefix, ""),
            group_prefix: text(self.group_prefix, ""),
            others_users: Vec::new(),
            others_groups: Vec::new(),
            leeway: self.leeway.map_or(Duration::ZERO, Spanned::into_inner),
            max_lifetime,
        })
    }

    fn keys(&self, cx: &Context<'_>, place: &Span) -> Option<IssuerKeys> {
        let ca = self.ca.as_ref().map(|ca| ca.get_ref().clone());
        let report = |code, message: &str, span: Span, help: &str| {
            cx.report(Diagnostic::error(code, message.to_owned()).at(span).help(help));
            None
        };
        match (&self.jwks, &self.secret) {
            (Some(_), Some(secret)) => {
                let help = "`secret` is for HS256, HS384 and HS512, `jwks` for every other algorithm: keep one";
                report("conflicting-keys", "`secret` and `jwks` are both given", secret.span(), help)
            }
            (None, Some(secret)) => {
                let list = secret.get_ref().iter();
                Some(IssuerKeys::Shared(list.map(|secret| Secret::new(secret.get_ref().expose().clone())).collect()))
            }
            (Some(jwks), None) => match jwks.get_ref() {
                Place::Url(url) => Some(IssuerKeys::Url { url: url.clone(), ca }),
                Place::File(path) => Some(IssuerKeys::File(path.clone())),
                Place::Unusable => None,
            },
            (None, None) => {
                let issuer = self.issuer.as_ref()?;
                match document_url(issuer.get_ref()) {
                    Ok(_) => Some(IssuerKeys::Discovery { ca }),
                    Err(_) => {
                        let message = format!("nothing says where the keys of {} are", quoted(self.name()));
                        let help = "add jwks = \"https://…\", jwks = { file = \"jwks.json\" } or a secret: only an issuer that is an https URL is asked itself";
                        report("missing-key", &message, place.clone(), help)
                    }
                }
            }
        }
    }

    /// Which algorithms its tokens may be signed with; a shared secret and a public key never stand for each other.
    fn algorithms(&self, cx: &Context<'_>) -> Option<Vec<Algorithm>> {
        let is_shared = self.secret.is_some();
        let list = match &self.algorithms {
            Some(list) => list.get_ref().iter().map(|one| (one.span(), *one.get_ref())).collect(),
            None if is_shared => vec![(self.header.clone(), Algorithm::HS256)],
            None => return Some(ASYMMETRIC.to_vec()),
        };
        for (span, algorithm) in &list {
            match (tokens::hash_length(*algorithm), &self.secret) {
                (None, Some(_)) => {
                    let message = format!("{algorithm:?} verifies with a public key, not with a shared secret");
                    let help = "write \"HS256\", \"HS384\" or \"HS512\", or give `jwks` in place of `secret`";
                    cx.report(Diagnostic::error("wrong-key-kind", message).at(span.clone()).help(help));
                }
                (Some(_), None) => {
                    let message = format!("{algorithm:?} verifies with a shared secret, not with a public key");
                    let help = "give `secret = { env = \"NAME\" }`, or write an algorithm such as \"RS256\"";
                    cx.report(Diagnostic::error("wrong-key-kind", message).at(span.clone()).help(help));
                }
                (Some(length), Some(secrets)) => {
                    secrets.get_ref().iter().for_each(|secret| tokens::judge_secret(cx, secret, *algorithm, length))
                }
                (None, None) => {}
            }
        }
        Some(list.into_iter().map(|(_, algorithm)| algorithm).collect())
    }
}

/// All issuers with the places of their names, and what holds between them. `own` is the `iss` of own tokens.
pub(super) fn resolve(cx: &Context<'_>, raws: Vec<Raw>, own: &str) -> (Vec<Arc<Issuer>>, Vec<Span>) {
    let (mut issuers, mut places): (Vec<Issuer>, Vec<Span>) = Default::default();
    let mut names: Vec<String> = Vec::new();
    for raw in raws {
        let place = raw.place();
        let says = raw.issuer.as_ref().map(|issuer| (issuer.span(), issuer.get_ref().clone()));
        report_name(cx, raw.name(), &names, place.clone());
        names.push(raw.name().to_owned());
        if let Some((span, _)) = says.as_ref().filter(|(_, issuer)| issuer == own) {
            let finding = Diagnostic::error("issuer-is-self", "this is the `iss` of the gateway's own tokens");
            let help = "own tokens are accepted without an entry; set tokens.issuer if someone else has this name";
            cx.report(finding.at(span.clone()).help(help));
        }
        if let Some((span, issuer)) = &says
            && let Some(other) = issuers.iter().find(|other| other.issuer == *issuer)
        {
            let message = format!("{} has this issuer too: nobody could say which one counts", quoted(&other.name));
            let finding = Diagnostic::error("duplicate-issuer", message).at(span.clone());
            cx.report(finding.help("keep one entry; `audience` may list several"));
        }
        if let Some(issuer) = raw.resolve(cx) {
            issuers.push(issuer);
            places.push(place);
        }
    }
    let of = |prefix: fn(&Issuer) -> &str| issuers.iter().map(|issuer| prefix(issuer).to_owned()).collect();
    let (users, groups): (Vec<String>, Vec<String>) =
        (of(|issuer| &issuer.user_prefix), of(|issuer| &issuer.group_prefix));
    let apart = |mut issuer: Issuer| {
        issuer.others_users = longer(&issuer.user_prefix, &users);
        issuer.others_groups = longer(&issuer.group_prefix, &groups);
        Arc::new(issuer)
    };
    (issuers.into_iter().map(apart).collect(), places)
}

/// Those of `prefixes` that a name behind `own` could begin with: otherwise someone of one issuer could call themselves what
/// someone of another is called.
fn longer(own: &str, prefixes: &[String]) -> Vec<String> {
    prefixes.iter().filter(|prefix| prefix.len() > own.len() && prefix.starts_with(own)).cloned().collect()
}

/// Warns where two people of different issuers could come to one route under one name.
pub(super) fn report_same_names(cx: &Context<'_>, issuers: &[Arc<Issuer>], places: &[Span], routes: &[Arc<Route>]) {
    for (index, issuer) in issuers.iter().enumerate() {
        let meet_on = |other: usize| {
            let takes_both = |route: &&Arc<Route>| route.issuers.take(Some(other)) && route.issuers.take(Some(index));
            routes.iter().filter(|route| route.accept.bearer).find(takes_both).map(|route| (other, route))
        };
        let same = (0..index).filter(|other| issuers[*other].user_prefix == issuer.user_prefix);
        let Some((other, route)) = same.into_iter().find_map(meet_on) else { continue };
        let message = format!(
            "someone of {} and someone of {} can come to {} under one name",
            quoted(&issuer.name),
            quoted(&issuers[other].name),
            quoted(&route.name)
        );
        let finding = Diagnostic::warning("same-names", message).at(places[index].clone());
        let finding = finding.label("an application could not tell them apart");
        cx.report(finding.help(format!("add user_prefix = \"{}:\", or limit routes with `issuers`", issuer.name)));
    }
}

fn report_name(cx: &Context<'_>, name: &str, names: &[String], place: Span) {
    if name == SELF {
        let finding = Diagnostic::error("reserved-name", "`self` is this gateway").at(place);
        cx.report(finding.help("give the issuer another name"));
    } else if !name.is_empty() && names.iter().any(|other| other == name) {
        let message = format!("another issuer is called {} too", quoted(name));
        let finding = Diagnostic::error("duplicate-name", message).at(place);
        cx.report(finding.help("give each issuer its own name; routes and logs tell them by it"));
    }
}

/// What a route names in `issuers`: `None` for this gateway, else an index.
pub(super) fn named(cx: &Context<'_>, name: &Written<String>, issuers: &[Arc<Issuer>]) -> Option<Option<usize>> {
    if name.get_ref() == SELF {
        return Some(None);
    }
    let found = issuers.iter().position(|issuer| *issuer.name == **name.get_ref());
    if found.is_none() {
        let known: Vec<&str> = issuers.iter().map(|issuer| &*issuer.name).chain([SELF]).collect();
        let message = format!("there is no issuer {}", quoted(name.get_ref()));
        let finding = Diagnostic::error("unknown-issuer", message).at(name.span());
        cx.report(finding.help(match nearest(name.get_ref(), known.iter().copied()) {
            Some(near) => format!("did you mean \"{near}\"?"),
            None => format!("known issuers: {}", known.join(", ")),
        }));
    }
    found.map(Some)
}

fn audience(item: &Item<'_>) -> Option<Vec<String>> {
    let list = item.strings()?.into_inner();
    if list.is_empty() {
        let finding = Diagnostic::error("empty-list", "`audience` is empty: no token could be for it").at(item.span());
        item.cx.report(finding.help("name what the issuer calls this gateway, such as a client id"));
        return None;
    }
    Some(list.into_iter().map(Spanned::into_inner).collect())
}

fn place(item: &Item<'_>) -> Place {
    let is_file =
        matches!(item.value.get_ref(), DeValue::Table(table) if table.keys().any(|key| key.get_ref() == "file"));
    if is_file {
        let Some(mut table) = item.table("issuers.jwks") else { return Place::Unusable };
        let file = table.take("file").and_then(|file| file.text());
        table.finish();
        return file.map_or(Place::Unusable, |file| key_set(item.cx, &file));
    }
    item.mask_user();
    item.parsed("bad-url", document_url).map_or(Place::Unusable, |url| Place::Url(url.into_inner()))
}

/// A file with a key set. Which of its keys can be used is found out when it is read for good.
fn key_set(cx: &Context<'_>, file: &Written<String>) -> Place {
    let path = cx.directory.join(file.get_ref());
    let problem = match read_at_most(&path, LARGEST) {
        Err(error) => Some(("unreadable-file", format!("can't be read: {error}"))),
        Ok(bytes) => match serde_json::from_slice::<serde_json::Value>(&bytes) {
            Err(error) => Some(("bad-jwks", format!("is not JSON: {error}"))),
            Ok(set) => match set.get("keys").and_then(serde_json::Value::as_array) {
                Some(keys) if !keys.is_empty() => None,
                Some(_) => Some(("bad-jwks", "has no keys".to_owned())),
                None => Some(("bad-jwks", "is no key set: it has no list `keys`".to_owned())),
            },
        },
    };
    let Some((code, problem)) = problem else {
        for finding in super::modes::of_file(&path) {
            cx.report(finding.at(file.span()));
        }
        return Place::File(path);
    };
    let finding = Diagnostic::error(code, format!("the file {} {problem}", quoted(&path.to_string_lossy())));
    cx.report(finding.at(file.span()).help("a JWK Set is { \"keys\": [ … ] }, as the issuer publishes it"));
    Place::Unusable
}

/// Whether keys are believed that come from `url`, whoever names it.
pub fn is_key_url(url: &str) -> bool {
    document_url(url).is_ok()
}

/// The URL of a document that keys are believed from: `https`, or `http` to this machine itself.
fn document_url(text: &str) -> Result<String, Fault> {
    let fault = |message: String, label, help: &str| Err(Fault::new(message, label, help));
    let end = text.find("://").map_or(0, |at| at + 3);
    let path = text[end..].find(['/', '?', '#']).map_or(text.len(), |at| end + at);
    let origin = url::origin(&text[..path])?;
    let is_loopback = |host: &str| {
        let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    };
    match origin.scheme.as_str() {
        "https" => {}
        "http" if is_loopback(&origin.host) => {}
        "http" => {
            return fault(
                "keys that come over http:// could be anybody's".to_owned(),
                "not https",
                "write https://; http:// is taken to 127.0.0.1, [::1] and localhost only",
            );
        }
        other => {
            return fault(
                format!("{} is not a scheme that keys come by", quoted(other)),
                "not https",
                "write https://",
            );
        }
    }
    if text.contains('#') || text.bytes().any(|byte| byte <= b' ' || byte >= 0x7f) || text.parse::<http::Uri>().is_err()
    {
        return fault(format!("{} is not a URL", quoted(text)), "not a URL", "write \"https://id.example/jwks.json\"");
    }
    Ok(text.to_owned())
}

pub(super) fn certificates(item: &Item<'_>) -> Option<Written<PathBuf>> {
    let file = item.text()?;
    let path = item.cx.directory.join(file.get_ref());
    let problem = match read_at_most(&path, LARGEST) {
        Err(error) => Some(format!("the file {} can't be read: {error}", quoted(&path.to_string_lossy()))),
        Ok(bytes) if !bytes.windows(CERTIFICATE.len()).any(|window| window == CERTIFICATE) => {
            Some(format!("there is no certificate in {}", quoted(&path.to_string_lossy())))
        }
        Ok(_) => None,
    };
    match problem {
        None => Some(Spanned::new(file.span(), path)),
        Some(message) => {
            let finding = Diagnostic::error("unreadable-file", message).at(file.span());
            item.cx.report(finding.help("give a PEM file with the certificates of your own authority"));
            None
        }
    }
}

fn algorithms(item: &Item<'_>) -> Option<Written<Vec<Written<Algorithm>>>> {
    let list = item.list()?;
    if list.get_ref().is_empty() {
        let finding = Diagnostic::error("empty-list", "`algorithms` is empty: no token could verify").at(item.span());
        item.cx.report(finding.help("leave it out for every algorithm that signs with a private key"));
        return None;
    }
    let words: Vec<Option<_>> =
        list.get_ref().iter().map(|item| item.word("issuers.algorithms", tokens::ALGORITHMS)).collect();
    Some(Spanned::new(list.span(), words.into_iter().collect::<Option<_>>()?))
}

/// What stands before a name must be fit to stand in a name.
fn prefix(text: &str) -> Result<String, Fault> {
    let is_bad = text.starts_with(char::is_whitespace) || text.contains(|c: char| c.is_control() || c == ',');
    if is_bad {
        let message = format!("{} can't stand before a name", quoted(text));
        return Err(Fault::new(message, "has a comma, a control or a space", "write such as \"corp:\""));
    }
    Ok(text.to_owned())
}

const REQUIRED: &[(&str, &str)] = &[
    ("name", "add name = \"corp\", by which routes and logs tell it"),
    ("issuer", "add issuer = \"https://id.example\", exactly as its tokens say it in `iss`"),
    ("audience", "add audience = [\"apps\"], what its tokens for you say in `aud`"),
];

const ACCOUNTS: &[(&str, Accounts)] = &[("separate", Accounts::Separate), ("shared", Accounts::Shared)];

/// Bytes of a key set, or of certificates.
const LARGEST: u64 = 512 << 10;

/// What a route calls this gateway.
const SELF: &str = "self";

const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

const ASYMMETRIC: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_begin_only_with_a_longer_prefix_of_another() {
        let prefixes = ["", "corp:", "corp:eu:", "dex:"].map(str::to_owned);
        assert_eq!(longer("", &prefixes), ["corp:", "corp:eu:", "dex:"]);
        assert_eq!(longer("corp:", &prefixes), ["corp:eu:"]);
        assert_eq!(longer("dex:", &prefixes), [""; 0]);
    }

    #[test]
    fn keys_come_by_https_or_from_this_machine() {
        for good in [
            "https://id.example/jwks.json",
            "https://id.example",
            "http://127.0.0.1:9/k?a=b",
            "http://[::1]/k",
            "http://localhost:80/",
        ] {
            assert_eq!(document_url(good).unwrap(), good);
        }
        for bad in [
            "http://id.example/k",
            "ftp://id.example",
            "id.example",
            "https://u:p@h/k",
            "https://h/k#f",
            "https://h/a b",
            "http://127.0.0.1.evil/k",
            "http://localhost.evil/",
        ] {
            assert!(document_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_without_end_is_read_only_so_far() {
        for key in ["jwks = { file = \"/dev/zero\" }", "ca = \"/dev/zero\""] {
            let text = format!(
                "[[issuers]]\nname = \"a\"\nissuer = \"https://a.example\"\naudience = [\"b\"]\n{key}\n\
                 [upstreams]\napp = \"http://127.0.0.1:1\"\n\
                 [[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n"
            );
            let loaded = crate::config::load_text(std::path::Path::new("gateway.toml"), text, &|_| None);
            let said = loaded.diagnostics.render(false);
            assert!(loaded.config.is_none() && said.contains("it is longer than 512 KiB"), "{said}");
        }
    }
}
