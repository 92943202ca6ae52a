//! What the machine, the store and the configuration say, each judged for itself.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Check;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, DatedFacts, DatedFile, Facts, StoreKind};
use crate::gateway::control::IssuerState;
use crate::message::certificate::Standing;
use crate::secret::Random;
use crate::store::{KeyRecord, KeyUse, Store};

/// Files that were written lately, with when.
pub(super) fn touched(facts: &Facts) -> Vec<(String, SystemTime)> {
    let written = |path: &Path| Some((path.display().to_string(), std::fs::metadata(path).ok()?.modified().ok()?));
    facts.files.iter().chain(&facts.secret_files).chain(&facts.store).filter_map(|path| written(path)).collect()
}

/// Whether the clock can be right: tokens, sessions and delays go by it.
pub(super) fn clock(now: Timestamp, files: &[(String, SystemTime)]) -> Check {
    let help = "set the clock and keep it with NTP (`timedatectl set-ntp true`): tokens and sessions go by it";
    let said = now.rfc3339();
    if now < EARLIEST {
        return Check::fail("clock", format!("it says {said}, before this program was written"), help);
    }
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |span| span.as_secs());
    let ahead =
        |at: SystemTime| Duration::from_secs(seconds(at)).saturating_sub(Duration::from_millis(now.as_millis()));
    match files.iter().map(|(file, at)| (file, ahead(*at))).max_by_key(|(_, ahead)| *ahead) {
        Some((file, ahead)) if ahead > SKEW => {
            let found = format!("it says {said}, and {file} was written {}s later than that", ahead.as_secs());
            Check::fail("clock", found, help)
        }
        _ => Check::ok("clock", format!("it says {said}, and no file is from later")),
    }
}

/// The key that signs tokens, and those that wait.
pub(super) fn keys(facts: &Facts, clock: &Clock) -> Vec<Check> {
    let Some(path) = &facts.store else {
        return vec![Check::ok("keys", "none: there is no store, and only tokens of other issuers count".to_owned())];
    };
    if let Some((algorithm, count)) = &facts.keys {
        return vec![configured(algorithm, *count)];
    }
    if !path.exists() {
        let found = format!("there is no store {} yet", path.display());
        return vec![Check::warn("keys", found, "start the gateway once: it makes the store and the first key")];
    }
    let read = || -> Result<Vec<KeyRecord>, String> {
        let kind = StoreKind::Sqlite(path.clone());
        let store = config::Store { kind, users: None, max_staleness: Duration::from_secs(60) };
        let store = Store::open(&store, clock.clone(), Random::system()).map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        runtime.block_on(store.signing_keys()).map_err(|error| error.to_string())
    };
    match read() {
        Ok(keys) => stored(&keys, clock.now()),
        Err(error) => {
            let help = "run this as the gateway's user; `portcullis key list` shows the same";
            vec![Check::fail("keys", format!("the store {} can't be read: {error}", path.display()), help)]
        }
    }
}

fn configured(algorithm: &str, count: usize) -> Check {
    Check::ok("keys", format!("{algorithm} from the configuration: one signs, {count} verify"))
}

fn stored(keys: &[KeyRecord], now: Timestamp) -> Vec<Check> {
    let of_tokens: Vec<&KeyRecord> = keys.iter().filter(|key| key.purpose == KeyUse::Tokens).collect();
    let is_former = |key: &&&KeyRecord| key.retired_at.is_some_and(|retired| retired <= now);
    let former = of_tokens.iter().filter(is_former).count();
    let waiting = of_tokens.iter().filter(|key| key.not_before > now && key.ever_signs()).count();
    let signs = |key: &&&KeyRecord| key.not_before <= now && key.retired_at.is_none_or(|retired| retired > now);
    let Some(key) = of_tokens.iter().filter(signs).max_by_key(|key| key.not_before) else {
        let help = "start the gateway: it makes the first one; `portcullis key list` shows all";
        return vec![Check::warn("keys", "no key signs tokens", help)];
    };
    let age = now.since(key.created_at).as_secs() / 86_400;
    let found = format!("{:?}, {age} days old; {waiting} waiting, {former} former", key.algorithm);
    vec![if age > OLD_DAYS {
        Check::warn("keys", found, "replace it: `portcullis key rotate --publish-first 10m` loses no token")
    } else {
        Check::ok("keys", found)
    }]
}

/// Who can read or change what the gateway lives on.
pub(super) fn modes(facts: &Facts) -> Vec<Check> {
    let mut found: Vec<Check> = facts.files.iter().filter_map(|file| mode("configuration", file, 0o022)).collect();
    // Its group may read a secret: that is how one is handed to a service.
    found.extend(facts.secret_files.iter().filter_map(|file| mode("secret file", file, 0o027)));
    found.extend(facts.store.as_deref().and_then(|store| mode("store", store, 0o077)));
    found.extend(facts.control.as_deref().and_then(|socket| mode("control socket", socket, 0o077)));
    found
}

/// How the keys of other issuers are, which only a running gateway has asked for.
pub(super) fn issuers(facts: &Facts, states: Option<&[IssuerState]>) -> Vec<Check> {
    let Some(states) = states else {
        let unknown = |name: &String| {
            let help = "start the gateway, and run this again: it gets them";
            Check::warn(format!("issuer {name}"), "no gateway runs that has asked for its keys", help)
        };
        return facts.issuers.iter().map(unknown).collect();
    };
    let judge = |IssuerState { name, is_good, text }: &IssuerState| {
        let (name, help) = (format!("issuer {name}"), "its people get 503 until its keys come; the log says more");
        if *is_good { Check::ok(name, text) } else { Check::fail(name, text, help) }
    };
    states.iter().map(judge).collect()
}

/// Whether the gateway's certificates hold, and lists of revoked ones count.
pub(super) fn dated(facts: &Facts, now: Timestamp) -> Vec<Check> {
    let judge = |DatedFacts { file, what, term }: &DatedFacts| {
        let moment = |seconds: i64| Timestamp::from_secs(u64::try_from(seconds).unwrap_or(0)).rfc3339();
        let (from, until) = (moment(term.from), moment(term.until));
        let (name, over, next) = match what {
            DatedFile::Certificate => ("certificate", "every client refuses it", "renew it"),
            DatedFile::RevocationList => (
                "revocation list",
                "no client's certificate is believed",
                "put the authority's next list into the file",
            ),
        };
        let (file, next) = (file.display(), format!("{next}; it is taken in without a restart"));
        match term.standing(now) {
            Standing::Holds => Check::ok(name, format!("{file} counts until {until}")),
            Standing::EndsSoon => Check::warn(name, format!("{file} counts until {until} only"), next),
            Standing::Over => Check::fail(name, format!("{file} is out of date since {until}: {over}"), next),
            Standing::NotYet => {
                let help = "use one that counts now, or set this machine's clock";
                Check::fail(name, format!("{file} counts only from {from} on: {over}"), help)
            }
        }
    };
    facts.dated.iter().map(judge).collect()
}

/// What is wrong with the mode of `path`, if it is there: none of `forbidden` may be set.
fn mode(what: &str, path: &Path, forbidden: u32) -> Option<Check> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode() & 0o777;
    let found = format!("{} has mode {mode:04o}", path.display());
    if mode & forbidden == 0 {
        return Some(Check::ok(what, found));
    }
    let who = if mode & forbidden & 0o022 == 0 { "read" } else { "change" };
    let help = format!("others can {who} it: chmod {:04o} {}", mode & !forbidden, path.display());
    Some(Check::fail(what, found, help))
}

/// Whether the cookie's flags suit the way that browsers come.
pub(super) fn cookies(facts: &Facts) -> Check {
    let (host, name, origin) = (&facts.host, &facts.cookie, &facts.origin);
    let is_here = host == "localhost"
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match (facts.is_https, is_here) {
        (true, _) => Check::ok("cookie", format!("{name} is `Secure`, for {}", origin)),
        (false, true) => Check::ok("cookie", format!("{name} is for this machine only, at {}", origin)),
        (false, false) => Check::warn(
            "cookie",
            format!("{name} and passwords go in the clear to {}", origin),
            "put a server with TLS before the gateway, and write https:// in server.public_url",
        ),
    }
}

/// Whether the proxies before the gateway are named: it ends no TLS itself, and `seen` say that they forward for others.
pub(super) fn proxies(facts: &Facts, seen: &[(IpAddr, u64)]) -> Check {
    if !seen.is_empty() {
        let who: Vec<String> = seen.iter().map(|(peer, count)| format!("{peer} ({count} times)")).collect();
        return Check::warn(
            "proxies",
            format!("forwarded headers came from peers that are not trusted: {}", who.join(", ")),
            "name those that are your proxies in server.trusted_proxies, and no others: what they say is ignored until then",
        );
    }
    match (facts.is_https, facts.trusted_proxies.len()) {
        (true, 0) => Check::warn(
            "proxies",
            "public_url is https, so a proxy stands before the gateway, and none is trusted",
            "name its address in server.trusted_proxies, or all clients seem to be one",
        ),
        (_, 0) => Check::ok("proxies", "none is trusted: clients are whoever connects"),
        (_, count) => Check::ok("proxies", format!("{count} networks are trusted")),
    }
}

/// Whether clients can be told apart.
pub(super) fn clients(facts: &Facts, clients: &[IpAddr]) -> Check {
    let Some(first) = clients.first().filter(|_| clients.len() > ENOUGH) else {
        return Check::ok("clients", format!("{} requests are remembered: too few to say", clients.len()));
    };
    if clients.iter().any(|client| client != first) {
        return Check::ok("clients", format!("{} requests of late came from several addresses", clients.len()));
    }
    let found = format!("all {} requests of late came from {first}", clients.len());
    let is_trusted = facts.trusts(*first);
    let help = if is_trusted {
        "it is a trusted proxy: have it send one of server.trusted_headers with the client's address"
    } else {
        "if that is a proxy, name it in server.trusted_proxies: delays and rules by address take all clients for one"
    };
    Check::warn("clients", found, help)
}

/// 2024, when nobody ran this program.
const EARLIEST: Timestamp = Timestamp::from_secs(1_704_067_200);

/// How far files may lie ahead: file servers have clocks of their own.
const SKEW: Duration = Duration::from_secs(300);

/// A signing key that is older should be replaced.
const OLD_DAYS: u64 = 365;

/// So many requests come from more than one client.
const ENOUGH: usize = 50;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Verdict;
    use super::*;
    use crate::config::{Algorithm, load_text};
    use crate::message::certificate::Term;
    use crate::secret::Secret;

    fn facts(section: &str) -> Facts {
        let rest = "[upstreams]\na = \"http://b\"\n[[routes]]\npath = \"/**\"\nallow = \"anyone\"\nupstream = \"a\"\n";
        let loaded = load_text(Path::new("/etc/gate/gateway.toml"), format!("{section}\n{rest}"), &|_| None);
        Facts::of(&loaded.config.unwrap_or_else(|| panic!("{}", loaded.diagnostics.render(false))))
    }

    #[test]
    fn a_clock_before_its_files_or_before_this_program_is_wrong() {
        let now = Timestamp::from_secs(1_800_000_000);
        let written = |seconds| vec![("a".to_owned(), UNIX_EPOCH + Duration::from_secs(seconds))];
        assert_eq!(clock(now, &written(1_700_000_000)).result, Verdict::Ok);
        assert_eq!(clock(now, &written(1_800_000_299)).result, Verdict::Ok);
        assert_eq!(clock(now, &written(1_800_000_301)).result, Verdict::Fail);
        assert_eq!(clock(Timestamp::from_secs(1_000_000_000), &[]).result, Verdict::Fail);
    }

    #[test]
    fn an_old_key_and_no_key_are_said() {
        let now = Timestamp::from_secs(1_800_000_000);
        let key = |days: u64, retired_at| KeyRecord {
            purpose: KeyUse::Tokens,
            kid: "k".to_owned(),
            algorithm: Algorithm::ES256,
            private: Secret::new(Vec::new()),
            created_at: Timestamp::from_secs(1_800_000_000 - days * 86_400),
            not_before: Timestamp::from_secs(1_800_000_000 - days * 86_400),
            retired_at,
            lifetime: None,
        };
        let said = |keys: &[KeyRecord]| stored(keys, now).pop().expect("one check");
        assert_eq!(said(&[key(10, None), key(400, Some(now))]).found, "ES256, 10 days old; 0 waiting, 1 former");
        assert_eq!(said(&[key(366, None)]).result, Verdict::Warn);
        assert_eq!((said(&[]).result, said(&[key(1, Some(now))]).result), (Verdict::Warn, Verdict::Warn));
    }

    #[test]
    fn a_certificate_and_a_list_are_judged_by_their_time() {
        let mut facts = facts("");
        let term = Term { from: 1_700_000_000, until: 1_800_000_000 };
        facts.dated = [("/a.pem", DatedFile::Certificate), ("/a.crl", DatedFile::RevocationList)]
            .map(|(file, what)| DatedFacts { file: file.into(), what, term })
            .to_vec();
        for (now, result) in [
            (1_700_000_000, Verdict::Ok),
            (1_799_999_999, Verdict::Warn),
            (1_800_000_001, Verdict::Fail),
            (1_699_999_999, Verdict::Fail),
        ] {
            let found = dated(&facts, Timestamp::from_secs(now));
            assert_eq!(found.iter().map(|check| check.result).collect::<Vec<_>>(), [result; 2], "{now}");
        }
        let over = dated(&facts, Timestamp::from_secs(1_800_000_001)).pop().unwrap();
        let found = "/a.crl is out of date since 2027-01-15T08:00:00.000Z: no client's certificate is believed";
        assert_eq!((over.check.as_str(), over.found.as_str()), ("revocation list", found));
    }

    #[test]
    fn one_client_is_doubtful_only_once_there_are_many_requests() {
        let (plain, trusting) = (facts(""), facts("[server]\ntrusted_proxies = [\"192.0.2.1\"]"));
        let one: IpAddr = [192, 0, 2, 1].into();
        let mut all = vec![one; 50];
        assert_eq!(clients(&plain, &all).result, Verdict::Ok);
        all.push(one);
        assert!(clients(&plain, &all).help.contains("name it in server.trusted_proxies"));
        assert!(clients(&trusting, &all).help.contains("it is a trusted proxy"));
        all.push([192, 0, 2, 2].into());
        assert_eq!(clients(&plain, &all).result, Verdict::Ok);
    }

    #[test]
    fn a_public_url_has_to_suit_cookies_and_proxies() {
        for (section, cookie, proxy) in [
            ("", Verdict::Ok, Verdict::Ok),
            ("[server]\npublic_url = \"http://apps.example.com\"", Verdict::Warn, Verdict::Ok),
            ("[server]\npublic_url = \"https://apps.example.com\"", Verdict::Ok, Verdict::Warn),
            (
                "[server]\npublic_url = \"https://apps.example.com\"\ntrusted_proxies = [\"127.0.0.1\"]",
                Verdict::Ok,
                Verdict::Ok,
            ),
        ] {
            let facts = facts(section);
            assert_eq!((cookies(&facts).result, proxies(&facts, &[]).result), (cookie, proxy), "{section}");
        }
    }

    #[test]
    fn issuers_are_as_the_running_gateway_says() {
        let state =
            |name: &str, is_good, text: &str| IssuerState { name: name.to_owned(), is_good, text: text.to_owned() };
        let states = [state("a", true, "2 keys"), state("b", false, "has no keys: no connection")];
        let found: Vec<_> =
            issuers(&facts(""), Some(&states)).into_iter().map(|check| (check.check, check.result)).collect();
        assert_eq!(found, [("issuer a".to_owned(), Verdict::Ok), ("issuer b".to_owned(), Verdict::Fail)]);
        let mut alone = facts("");
        alone.issuers.push("a".to_owned());
        assert_eq!(issuers(&alone, None)[0].result, Verdict::Warn);
    }
}
