//! Files with mistakes, and what is said of them: each `tests/diagnostics/*.toml` has its rendered findings beside it.
//!
//! `UPDATE=1 cargo test --test diagnostics` writes them anew; read them before you commit.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use portcullis::config::{KeySource, Loaded, load_text};
use portcullis::explain::load;
use proptest::prelude::*;

const GOOD_SECRET: &str = "kT8!vN2#qR5@wX9$zB4%yC7^uD1&eF6*";

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "GOOD_SECRET" => GOOD_SECRET,
        "WEAK_SECRET" => "your-256-bit-secret",
        "SET_TO_A_PATH" => "https://example.com/apps",
        "PUBLIC_KEY" => "-----BEGIN PUBLIC KEY-----\nMA==\n-----END PUBLIC KEY-----\n",
        _ => return None,
    };
    Some(value.to_owned())
}

/// Files of accounts and keys are secret, which is no mode that a repository keeps.
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn check(path: &Path) -> Loaded {
    for name in ["good", "bad"] {
        let file = format!("tests/diagnostics/files/{name}.htpasswd");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    for name in [
        "tls/good",
        "tls/other",
        "tls/encrypted",
        "upstream-tls/gateway",
        "upstream-tls/other",
        "upstream-tls/encrypted",
    ] {
        let file = format!("tests/diagnostics/files/{name}.key");
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    }
    load(path, &environment)
}

#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
fn files(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "toml")).collect();
    files.sort();
    files
}

#[test]
fn every_mistake_is_said_as_it_is_written_down() {
    let files = files("tests/diagnostics");
    assert!(files.len() >= 60, "only {} files", files.len());
    let update = std::env::var_os("UPDATE").is_some();
    let mut different = Vec::new();
    for file in &files {
        let loaded = check(file);
        assert!(!loaded.diagnostics.is_empty(), "{} has no finding", file.display());
        assert_eq!(loaded.config.is_none(), loaded.diagnostics.errors() > 0, "{}", file.display());
        for finding in &loaded.diagnostics {
            assert!(finding.help.is_some(), "{} shows no way out of {}", file.display(), finding.code);
        }
        let rendered = loaded.diagnostics.render(false);
        let stored = file.with_extension("txt");
        if update {
            fs::write(&stored, &rendered).unwrap();
        } else if fs::read_to_string(&stored).ok().as_ref() != Some(&rendered) {
            different.push(format!("{}:\n{rendered}", file.display()));
        }
    }
    assert!(different.is_empty(), "not as written down:\n{}", different.join("\n"));
}

#[test]
fn good_files_have_no_findings() {
    let mut files = files("tests/diagnostics/good");
    assert!(files.len() >= 4);
    files.push(PathBuf::from("gateway.toml"));
    for file in files {
        let loaded = check(&file);
        assert!(loaded.diagnostics.is_empty(), "{}", loaded.diagnostics.render(false));
        assert!(loaded.config.is_some());
    }
}

#[test]
fn files_that_can_not_be_read_have_one_finding_without_a_place() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let cases = [
        (directory.path().join("absent.toml"), "unreadable-file"),
        (directory.path().to_owned(), "unreadable-file"),
        (write("empty.toml", b""), "empty-file"),
        (write("blank.toml", b"\n \n\t\n"), "empty-file"),
        (write("mark.toml", b"\xef\xbb\xbf"), "empty-file"),
        (write("latin.toml", b"[login]\ntitle = \"gr\xfcn\"\n"), "not-utf-8"),
        (write("wide.toml", b"\xff\xfe[\0l\0"), "not-utf-8"),
        (write("large.toml", &vec![b'#'; 10 << 20]), "file-too-large"),
    ];
    for (path, code) in cases {
        let loaded = check(&path);
        let found: Vec<_> = loaded.diagnostics.iter().map(|finding| (finding.code, finding.span.clone())).collect();
        assert_eq!(found, [(code, None)], "{}", path.display());
        assert!(loaded.config.is_none());
        assert!(loaded.diagnostics.render(false).contains(code));
    }
}

#[test]
fn a_byte_order_mark_is_no_mistake() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gateway.toml");
    let text = fs::read_to_string("tests/diagnostics/good/smallest.toml").unwrap();
    fs::write(&path, format!("\u{feff}{text}")).unwrap();
    assert!(check(&path).diagnostics.is_empty());
    fs::write(&path, text.replace('\n', "\r\n")).unwrap();
    assert!(check(&path).diagnostics.is_empty());
}

#[test]
fn a_secret_in_a_file_is_read_and_its_mode_judged() {
    let directory = tempfile::tempdir().unwrap();
    let routes = fs::read_to_string("tests/diagnostics/good/smallest.toml").unwrap();
    let text = format!("[tokens]\nalgorithm = \"HS256\"\nsecret = {{ file = \"secret\" }}\n\n{routes}");
    let (path, secret) = (directory.path().join("gateway.toml"), directory.path().join("secret"));
    fs::write(&path, text).unwrap();
    fs::write(&secret, format!("{GOOD_SECRET}\n")).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let loaded = check(&path);
    assert!(loaded.diagnostics.is_empty(), "{}", loaded.diagnostics.render(false));
    let KeySource::Shared(keys) = loaded.config.unwrap().tokens.keys else { panic!("not a shared secret") };
    assert!(keys[0].is(GOOD_SECRET.as_bytes()));

    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let loaded = check(&path);
    let codes: Vec<_> = loaded.diagnostics.iter().map(|finding| finding.code).collect();
    assert_eq!((codes.as_slice(), loaded.config.is_some()), (["readable-by-all"].as_slice(), true));
}

#[test]
fn a_file_full_of_mistakes_is_refused_in_no_time() {
    for text in ["=\n".repeat(1 << 17), "a.b".repeat(50_000), "x = {".repeat(20_000), "[[routes]]\n".repeat(20_000)] {
        let loaded = load_text(Path::new("gateway.toml"), text, &environment);
        assert!(loaded.config.is_none());
        assert!(loaded.diagnostics.errors() <= 600 && loaded.diagnostics.errors() > 0);
        assert!(loaded.diagnostics.render(false).len() < 1 << 20);
    }
}

#[test]
fn no_finding_shows_a_secret() {
    let secret = "kT8!vN2#qR5@wX9$zB4%yC7^uD1&eF6";
    for text in [
        format!("[tokens]\nalgorithm = \"HS512\"\nsecret = \"{secret}\"\n"),
        format!("[tokens]\nalgorithm = \"HS512\"\nsecret = {{ env = \"UNSET\", default = \"{secret}\" }}\n"),
        format!("[tokens]\nalgorithm = \"HS512\"\nsecret = [\"{secret}\", \"{secret}\"]\n"),
        format!("[tokens]\nsecret = \"{secret}\n"),
        format!("[tokens]\nsecret = {secret}\n"),
        format!("tokens = {{ secret = \"{secret}\", algorithm = 1 }}\n"),
    ] {
        let loaded = load_text(Path::new("gateway.toml"), text.clone(), &environment);
        assert!(loaded.diagnostics.errors() > 0);
        let shown = loaded.diagnostics.render(false) + &loaded.diagnostics.json().to_string();
        assert!(!shown.contains("kT8!v"), "{text}\n{shown}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_change_of_bytes_makes_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3u8), 1..8)) {
        let mut bytes = fs::read("gateway.toml").unwrap();
        for (index, byte, kind) in changes {
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                _ => bytes.insert(at, byte),
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let loaded = load_text(Path::new("gateway.toml"), text, &environment);
        let _ = (loaded.diagnostics.render(true), loaded.diagnostics.json());
        prop_assert_eq!(loaded.config.is_some(), loaded.diagnostics.errors() == 0);
    }
}
