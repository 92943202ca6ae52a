//! Every kind of finding is in the list of codes, has a section in `docs/findings.md`, and the section's example yields it.

#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use portcullis::cli::check::{Format, Options, check};
use portcullis::clock::Clock;
use portcullis::config::{self, StoreKind};
use portcullis::diag::{CODES, Severities, Severity};
use portcullis::identity::UserName;
use portcullis::secret::Random;
use portcullis::store::{NewUser, Store};
use serde_json::Value;

/// Codes and severities are the interface: what is here stays.
#[test]
fn the_codes_are_those_that_are_written_down() {
    let list: String = CODES
        .iter()
        .map(|code| {
            let severity = match code.severity {
                Severities::Error => "error",
                Severities::Warning => "warning",
                Severities::Either => "error or warning",
            };
            format!("{} {severity}\n", code.name)
        })
        .collect();
    if std::env::var_os("UPDATE").is_some() {
        fs::write("tests/findings.txt", &list).unwrap();
    }
    assert_eq!(list, fs::read_to_string("tests/findings.txt").unwrap());
}

#[test]
fn every_code_in_the_sources_is_in_the_list_and_every_one_of_the_list_is_used() {
    let known: BTreeSet<&str> = CODES.iter().map(|code| code.name).collect();
    let mut files = Vec::new();
    for room in ["config", "explain", "cli", "gateway"] {
        sources(&Path::new("src").join(room), &mut files);
    }
    assert!(files.len() >= 30);
    let texts: Vec<String> = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap().split("#[cfg(test)]").next().unwrap().to_owned())
        .collect();
    let mut seen = 0;
    for (text, file) in texts.iter().zip(&files) {
        for call in ["Diagnostic::error(", "Diagnostic::warning(", ".parsed("] {
            for after in text.split(call).skip(1) {
                let Some(code) = after.trim_start().strip_prefix('"').and_then(|rest| rest.split('"').next()) else {
                    continue;
                };
                assert!(known.contains(code), "{}: {code} is not in the list of codes", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 120, "only {seen} findings in the sources");
    for code in known {
        assert!(texts.iter().any(|text| text.contains(&format!("\"{code}\""))), "{code} is nowhere in the sources");
    }
}

#[tokio::test]
async fn every_code_has_a_section_whose_example_shows_it_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path()).await;
    let page = fs::read_to_string("docs/findings.md").unwrap();
    let sections: Vec<(&str, &str)> =
        page.split("\n## ").skip(1).map(|section| section.split_once('\n').unwrap()).collect();
    let headings: Vec<&str> = sections.iter().map(|(heading, _)| *heading).collect();
    let codes: Vec<&str> = CODES.iter().map(|code| code.name).collect();
    assert_eq!(headings, codes, "docs/findings.md has one section for each code, in their order");
    let (mut examples, mut wrong) = (0, Vec::new());
    for ((heading, text), code) in sections.into_iter().zip(CODES) {
        let severity = text.split('*').nth(1).unwrap().to_lowercase();
        let says = |word| severity.contains(word);
        assert_eq!(says("error"), code.severity.take(Severity::Error), "{heading}: {severity}");
        assert_eq!(says("warning"), code.severity.take(Severity::Warning), "{heading}: {severity}");
        let Some(example) = text.split("```toml finding\n").nth(1) else {
            assert!(WITHOUT_EXAMPLE.contains(&heading), "{heading} has no example");
            continue;
        };
        let example = completed(example.split("```").next().unwrap());
        let found = findings(directory.path(), heading, &example);
        let only: BTreeSet<&str> = found.iter().map(|(code, _)| code.as_str()).collect();
        if only != BTreeSet::from([heading]) {
            wrong.push(format!("{heading}: {only:?}\n{example}"));
        }
        for (code, severity) in &found {
            let known = CODES.iter().find(|known| known.name == code).unwrap();
            let is_right = |one: Severity| severity == one.name() && known.severity.take(one);
            assert!(is_right(Severity::Error) || is_right(Severity::Warning), "{code} is {severity}");
        }
        examples += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(examples >= 80, "only {examples} examples");
}

#[tokio::test]
async fn people_are_looked_for_where_the_store_can_know_them() {
    let directory = tempfile::tempdir().unwrap();
    prepare(directory.path()).await;
    let path = directory.path().join("gateway.toml");
    let said = |store: &str, more: &str, allow: &str| {
        let text = format!(
            "{more}\n[store]\nurl = \"sqlite:{store}\"\n[upstreams]\napp = \"http://127.0.0.1:3000\"\n[[routes]]\npath = \"/**\"\n\
             allow = {allow}\nupstream = \"app\"\n"
        );
        fs::write(&path, text).unwrap();
        check(Some(&path), Options::default(), &|_| None).stderr
    };
    for (allow, help) in [
        ("{ groups = [\"admin\"] }", "did you mean \"Admin\"? Capitals count in groups"),
        ("{ groups = [\"Admins\"] }", "did you mean \"Admin\"? Otherwise"),
        ("{ groups = [\"staff\"] }", "put someone into it with `portcullis user groups NAME …`"),
        (
            "[{ groups = [\"Admin\"] }, { users = [\"adda\"] }]",
            "did you mean \"ada\"? Otherwise `portcullis user add adda`",
        ),
    ] {
        let text = said("people.db", "", allow);
        assert!(text.contains(help) && text.contains("1 warning"), "{allow}\n{text}");
    }
    let issuer = "[[issuers]]\nname = \"corp\"\nissuer = \"https://id.example\"\naudience = [\"apps\"]\n";
    for (store, more, allow) in [
        ("people.db", "", "{ groups = [\"Admin\"], users = [\"ADA\"] }"),
        ("people.db", issuer, "{ groups = [\"staff\"] }"),
        ("nowhere.db", "", "{ groups = [\"staff\"] }"),
    ] {
        assert_eq!(said(store, more, allow), "", "{store} {allow}");
    }
    let names = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let of_stores: Vec<String> = names.filter(|name| name.contains(".db")).collect();
    assert_eq!(of_stores, ["people.db"], "nothing is made");
}

/// What no text shows; `tests/diagnostics.rs` has files.
const WITHOUT_EXAMPLE: [&str; 5] = ["empty-file", "file-too-large", "needs-restart", "not-possible-now", "not-utf-8"];

/// What examples name: files of different modes, files of accounts, and a store with one user.
async fn prepare(directory: &Path) {
    let write = |name: &str, text: &str, mode| {
        let path = directory.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("open.secret", SECRET, 0o644);
    write("shared.secret", SECRET, 0o602);
    write("jwks.json", "{ \"keys\": [] }", 0o644);
    write("people.htpasswd", &format!("ada:{BCRYPT}:Admin\n"), 0o600);
    write("md5.htpasswd", "ada:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\n", 0o600);
    let day = std::time::Duration::from_secs(86_400);
    for (name, host) in [("app", "apps.example.com"), ("old", "apps.example.com"), ("other", "h.example.com")] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_after = (std::time::SystemTime::now() + 90 * day).into();
        if name == "old" {
            params.not_after -= 91 * day;
        }
        write(&format!("{name}.pem"), &params.self_signed(&key).unwrap().pem(), 0o644);
        write(&format!("{name}.key"), &key.serialize_pem(), 0o600);
    }
    for (name, mode) in [("gateway.pem", 0o644), ("expired.pem", 0o644), ("encrypted.key", 0o600)] {
        write(name, &fs::read_to_string(format!("tests/diagnostics/files/upstream-tls/{name}")).unwrap(), mode);
    }
    fs::create_dir(directory.join("routes.d")).unwrap();
    write("routes.d/tokens.toml", "[tokens]\nlifetime = \"5m\"\n", 0o644);
    let config = config::Store {
        kind: StoreKind::Sqlite(directory.join("people.db")),
        users: None,
        max_staleness: std::time::Duration::ZERO,
    };
    let store = Store::open(&config, Clock::system(), Random::system()).unwrap();
    let ada = NewUser {
        name: UserName::parse("ada").unwrap(),
        hash: None,
        groups: vec!["Admin".to_owned()],
        email: None,
        full_name: None,
    };
    store.add_user(ada).await.unwrap();
    store.close().await.unwrap();
}

/// Codes and severities of what is found in `text`. The store is there only where people are looked for.
fn findings(directory: &Path, code: &str, text: &str) -> Vec<(String, String)> {
    let path = directory.join("gateway.toml");
    let people = if code.starts_with("no-such") { "[store]\nurl = \"sqlite:people.db\"\n\n" } else { "" };
    fs::write(&path, format!("{people}{text}")).unwrap();
    let environment = |name: &str| match name {
        "JWT_SECRET" => Some(SECRET.to_owned()),
        "WEAK_SECRET" => Some("your-256-bit-secret".to_owned()),
        "SIGNING_KEY" => Some("-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n".to_owned()),
        _ => None,
    };
    let outcome = check(Some(&path), Options { format: Format::Json, ..Options::default() }, &environment);
    let document: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let list = document["diagnostics"].as_array().unwrap();
    assert!(list.iter().all(|finding| finding["page"] == format!("docs/findings.md#{}", text(finding, "code"))));
    list.iter().map(|finding| (text(finding, "code"), text(finding, "severity"))).collect()
}

/// A part of a configuration with what it needs to be one.
fn completed(part: &str) -> String {
    let mut text = part.to_owned();
    if !part.contains("[upstreams") {
        text.push_str("\n[upstreams]\napp = \"http://127.0.0.1:3000\"\n");
    }
    if !part.contains("[[routes]]") && !part.contains("routes =") {
        text.push_str("\n[[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n");
    }
    text
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(path);
        }
    }
}

const BCRYPT: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

const SECRET: &str = "kT8!vN2#qR5@wX9$zB4%yC7^uD1&eF6*";
