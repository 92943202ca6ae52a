//! `portcullis user …` beside a running gateway: what it does, prints, and refuses.

use serde_json::Value;

use crate::common::setup::Ran;
use crate::common::{Gateway, Recorder, Setup, command, password_of};

fn gateway() -> Gateway {
    // The recorder may go: nothing here is forwarded.
    Setup::new(Recorder::start().address()).user("bob", &["--groups", "staff"]).start()
}

fn with_password(gateway: &Gateway, args: &[&str], password: &str) -> Ran {
    command(gateway.dir(), args, &format!("{password}\n"))
}

fn shown(gateway: &Gateway, name: &str) -> Value {
    let ran = gateway.command(&["user", "show", name, "--json"]).succeeded();
    serde_json::from_str(&ran.stdout).expect("one JSON document")
}

#[test]
fn an_account_goes_through_its_life() {
    let gateway = gateway();
    let add = [
        "user",
        "add",
        "Dora",
        "--groups",
        "a,b",
        "--email",
        "dora@example.com",
        "--name",
        "Dora D.",
        "--password-stdin",
    ];
    with_password(&gateway, &add, "a long pass phrase").succeeded();
    gateway.sign_in("dora", "a long pass phrase").assert_status(200, "added while it runs");
    let user = shown(&gateway, "dora");
    let text = user.to_string();
    for part in ["dora", "\"a\"", "\"b\"", "dora@example.com", "Dora D."] {
        assert!(text.contains(part), "{part} in {text}");
    }
    gateway.command(&["user", "groups", "dora", "--groups", "c"]).succeeded();
    assert!(shown(&gateway, "DORA").to_string().contains("\"c\""), "names are matched without case");
    with_password(&gateway, &["user", "passwd", "dora", "--password-stdin"], "another pass phrase").succeeded();
    gateway.sign_in("dora", "a long pass phrase").assert_status(403, "the old password");
    gateway.sign_in("dora", "another pass phrase").assert_status(200, "the new password");
    gateway.command(&["user", "disable", "dora"]).succeeded();
    gateway.sign_in("dora", "another pass phrase").assert_status(403, "disabled");
    gateway.command(&["user", "enable", "dora"]).succeeded();
    gateway.sign_in("dora", "another pass phrase").assert_status(200, "enabled");
    gateway.command(&["user", "delete", "dora"]).succeeded();
    gateway.sign_in("dora", "another pass phrase").assert_status(403, "deleted");
    assert_ne!(gateway.command(&["user", "show", "dora"]).code, Some(0));
}

#[test]
fn listing_is_one_document_and_shows_no_hash() {
    let gateway = gateway();
    let json = gateway.command(&["user", "list", "--json"]).succeeded();
    let document: Value = serde_json::from_str(&json.stdout).expect("one JSON document");
    let text = document.to_string();
    assert!(text.contains("alice") && text.contains("bob") && text.contains("staff"), "{text}");
    let plain = gateway.command(&["user", "list"]).succeeded();
    assert!(plain.stdout.contains("alice") && plain.stdout.contains("bob"), "{}", plain.stdout);
    let one = gateway.command(&["user", "show", "alice"]).succeeded();
    for output in [&json.stdout, &plain.stdout, &one.stdout] {
        assert!(!output.contains("$argon2") && !output.contains(&password_of("alice")), "{output}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let gateway = gateway();
    for name in ["", ".x", "-x", "a b", "ålice", "a/b", "a,b", &"a".repeat(65)] {
        let ran = with_password(&gateway, &["user", "add", "--password-stdin", "--", name], "a long pass phrase");
        assert!(matches!(ran.code, Some(1 | 2)), "{name:?}: {ran:?}");
    }
    let twice = with_password(&gateway, &["user", "add", "ALICE", "--password-stdin"], "other pass phrase");
    assert_eq!(twice.code, Some(1), "there is an alice: {twice:?}");
    gateway.sign_in("alice", &password_of("alice")).assert_status(200, "hers is untouched");
    let empty = with_password(&gateway, &["user", "add", "dora", "--password-stdin"], "");
    assert_eq!(empty.code, Some(1), "an empty password: {empty:?}");
    let nothing = gateway.command(&["user", "add", "dora"]);
    assert!(matches!(nothing.code, Some(1 | 2)), "no terminal, so it does not ask: {nothing:?}");
    let group = with_password(
        &gateway,
        &["user", "add", "dora", "--groups", "a\u{7},b", "--password-stdin"],
        "a long pass phrase",
    );
    assert!(matches!(group.code, Some(1 | 2)), "a control in a group: {group:?}");
    for action in ["show", "disable", "enable", "delete", "unlock"] {
        let ran = gateway.command(&["user", action, "nobody"]);
        let tolerated = action == "unlock" && ran.code == Some(0);
        assert!(ran.code == Some(1) || tolerated, "{action}: {ran:?}");
        assert!(tolerated || !ran.stderr.is_empty(), "errors go to stderr");
    }
    let listed = gateway.command(&["user", "list", "--json"]).succeeded();
    assert!(!listed.stdout.contains("dora"), "{}", listed.stdout);
}

#[test]
fn an_htpasswd_file_is_imported() {
    let gateway = gateway();
    let hash = bcrypt::hash("a pass phrase from before", 4).unwrap();
    let apache = hash.replacen("$2b$", "$2y$", 1);
    let text = format!("# people\n\nerin:{apache}\nFrank:{hash}\n");
    let file = gateway.dir().join("people.htpasswd");
    std::fs::write(&file, text).unwrap();
    gateway.command(&["user", "import", file.to_str().unwrap()]).succeeded();
    for name in ["erin", "frank"] {
        gateway.sign_in(name, "not that one").assert_status(403, name);
        gateway.sign_in(name, "a pass phrase from before").assert_status(200, name);
        gateway.sign_in(name, "a pass phrase from before").assert_status(200, "after the upgrade");
    }
}

#[test]
fn hashes_that_are_not_taken_let_nobody_in() {
    let gateway = gateway();
    let file = gateway.dir().join("old.htpasswd");
    let text =
        "gina:$apr1$abcdefgh$irWqBMQzfAIhX0M8TMzsq0\nhal:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\nivan:plain\njill\nkim:\n";
    std::fs::write(&file, text).unwrap();
    let ran = gateway.command(&["user", "import", file.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("gina") || ran.stderr.contains(":1"), "which line: {}", ran.stderr);
    for (name, password) in [("gina", "password"), ("hal", "password"), ("ivan", "plain"), ("jill", ""), ("kim", "")] {
        let status = gateway.sign_in(name, password).status;
        assert!(matches!(status, 400 | 403 | 422), "{name}: {status}");
    }
}

#[test]
fn commands_work_without_a_gateway() {
    let dir = Setup::new(Recorder::start().address()).prepare();
    let listed = command(dir.path(), &["user", "list"], "").succeeded();
    assert!(listed.stdout.contains("alice"));
    command(dir.path(), &["user", "disable", "alice"], "").succeeded();
    let gateway = Gateway::serve(dir);
    gateway.sign_in("alice", &password_of("alice")).assert_status(403, "disabled before the start");
}
