//! The commands as they are typed, over a store of their own.

use std::time::Duration;

use std::io;

use clap::Parser as _;
use tempfile::TempDir;

use super::*;
use crate::clock::ManualClock;
use crate::config::{self, StoreKind};
use crate::identity::password::account_file;
use crate::store::SessionRecord;

#[derive(clap::Parser)]
struct CommandLine {
    #[command(subcommand)]
    command: UserCommand,
}

struct Fixture {
    directory: TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let kind = StoreKind::Sqlite(directory.path().join("portcullis.db"));
        let config = config::Store { kind, users: None, max_staleness: Duration::from_secs(30) };
        let clock = Clock::manual(&ManualClock::at(Timestamp::from_secs(1_700_000_000)));
        let store = Store::open(&config, clock, Random::system()).unwrap();
        Self { directory, store }
    }

    async fn with(names: &[&str]) -> Self {
        let here = Self::new();
        for name in names {
            here.run(&["add", name, "--password-stdin"], "correct horse\n").await.unwrap();
        }
        here
    }

    /// Runs a command with `input` on a standard input that is no terminal.
    async fn run(&self, arguments: &[&str], input: &str) -> Result<(Outcome, String), Failure> {
        let line = std::iter::once(&"user").chain(arguments);
        let command = CommandLine::try_parse_from(line).unwrap().command;
        let mut out = Vec::new();
        let mut hidden = |_: &str| -> io::Result<String> { panic!("asks though there is no terminal") };
        let mut console =
            Console { out: &mut out, input: &mut input.as_bytes(), is_terminal: false, ask_hidden: &mut hidden };
        let outcome = apply(command, &self.store, &mut console).await?;
        Ok((outcome, String::from_utf8(out).unwrap()))
    }

    async fn output(&self, arguments: &[&str]) -> String {
        self.run(arguments, "").await.unwrap().1
    }

    async fn failure(&self, arguments: &[&str]) -> String {
        self.run(arguments, "").await.unwrap_err().to_string()
    }

    async fn user(&self, name: &str) -> UserRecord {
        self.store.user(&UserName::parse(name).unwrap()).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn adds_and_shows_an_account() {
    let here = Fixture::new();
    let add = [
        "add",
        "Bob",
        "--groups",
        "staff,admin",
        "--email",
        "bob@example.com",
        "--name",
        "Bob Ross",
        "--password-stdin",
    ];
    let (outcome, output) = here.run(&add, "correct horse\n").await.unwrap();
    assert_eq!((outcome, output.as_str()), (Outcome::Changed, "added bob\n"));
    let hash = here.user("bob").await.hash.unwrap();
    assert!(Workspace::default().matches("correct horse", hash.expose()));
    let expected = "\
last sign-in  never
name          bob
full name     Bob Ross
e-mail        bob@example.com
groups        staff,admin
state         enabled
from          store
sessions      0
made          2023-11-14T22:13Z
password set  2023-11-14T22:13Z
";
    assert_eq!(here.output(&["show", "BOB"]).await, expected);
    let json: Value = serde_json::from_str(&here.output(&["show", "bob", "--json"]).await).unwrap();
    assert_eq!(json["groups"], json!(["staff", "admin"]));
    assert_eq!((&json["full_name"], &json["last_sign_in"]), (&json!("Bob Ross"), &Value::Null));
    assert!(json.get("hash").is_none());
}

#[tokio::test]
async fn lists_accounts_as_a_table_and_as_one_document() {
    let here = Fixture::new();
    assert!(here.output(&["list"]).await.starts_with("no users yet"));
    let here = Fixture::with(&["bob", "alexander"]).await;
    here.output(&["groups", "bob", "--groups", "ops,admin"]).await;
    here.output(&["disable", "alexander"]).await;
    let bob = UserName::parse("bob").unwrap();
    here.store.note_sign_in(&bob).await.unwrap();
    let expected = "\
NAME       GROUPS     E-MAIL  STATE     FROM   LAST SIGN-IN
alexander  -          -       disabled  store  never
bob        ops,admin  -       enabled   store  2023-11-14T22:13Z
";
    assert_eq!(here.output(&["list"]).await, expected);
    let json: Value = serde_json::from_str(&here.output(&["list", "--json"]).await).unwrap();
    let names: Vec<_> = json["users"].as_array().unwrap().iter().map(|user| user["name"].clone()).collect();
    assert_eq!(names, ["alexander", "bob"]);
}

#[tokio::test]
async fn an_account_of_the_file_is_changed_there_and_nowhere_else() {
    let here = Fixture::with(&["bob"]).await;
    let hash = Workspace::default().hash(&"correct horse".into());
    let text = format!("ada:{}:staff:ada@example.com:Ada Lovelace\n", hash.expose());
    here.store.sync_file(account_file::parse(&text).unwrap()).await.unwrap();
    let changes: [&[&str]; 7] = [
        &["add", "ada", "--password-stdin"],
        &["passwd", "ada", "--password-stdin"],
        &["groups", "ada", "--groups", "admin"],
        &["set", "ada", "--email", "eve@example.com"],
        &["disable", "ada"],
        &["enable", "ada"],
        &["delete", "ada", "--yes"],
    ];
    for arguments in changes {
        let failure = here.run(arguments, "another horse\n").await.unwrap_err().to_string();
        assert!(failure.starts_with("\"ada\" stands in the file"), "{arguments:?}: {failure}");
        assert!(failure.contains("edit its line"), "{failure}");
    }
    let ada = here.user("ada").await;
    assert_eq!(
        (&*ada.groups, ada.email.as_deref(), ada.disabled),
        (&["staff".to_owned()][..], Some("ada@example.com"), false)
    );
    assert!(Workspace::default().matches("correct horse", ada.hash.unwrap().expose()));
    assert_eq!(here.output(&["groups", "ada"]).await, "staff\n");
    assert_eq!(here.run(&["unlock", "ada"], "").await.unwrap().0, Outcome::Changed);
    assert!(here.output(&["show", "ada"]).await.contains("\nfrom          file\n"));
    let json: Value = serde_json::from_str(&here.output(&["list", "--json"]).await).unwrap();
    let from: Vec<_> = json["users"].as_array().unwrap().iter().map(|user| &user["from"]).collect();
    assert_eq!(from, ["file", "store"]);
}

#[tokio::test]
async fn names_the_user_who_was_meant() {
    let here = Fixture::with(&["bob", "alice"]).await;
    for command in ["show", "passwd", "groups", "set", "disable", "enable", "unlock", "delete"] {
        let failure = here.failure(&[command, "bbo"]).await;
        assert_eq!(failure, "no user named \"bbo\"; did you mean \"bob\"?", "{command}");
    }
    assert!(here.failure(&["show", "somebody"]).await.contains("`portcullis user list` shows all"));
    assert!(here.failure(&["show", "no body"]).await.starts_with("\"no body\" can't be the name of a user"));
}

#[tokio::test]
async fn refuses_what_no_account_can_have_and_says_what_to_do() {
    let here = Fixture::with(&["bob"]).await;
    let cases: [(&[&str], &str, &str); 4] = [
        (&["add", "bob", "--password-stdin"], "correct horse", "there is a user named \"bob\" already"),
        (&["add", "eve"], "correct horse", "give --password-stdin"),
        (
            &["add", "eve", "--groups", "a, b", "--password-stdin"],
            "correct horse",
            "\" b\" can't be the name of a group",
        ),
        (&["add", "eve", "--name", "\u{1b}[2J", "--password-stdin"], "correct horse", "can't be the full name"),
    ];
    for (arguments, input, expected) in cases {
        let failure = here.run(arguments, input).await.unwrap_err().to_string();
        assert!(failure.contains(expected), "{arguments:?}: {failure}");
        assert!(!failure.contains("correct horse") && !failure.contains("hunter2"));
    }
    assert_eq!(here.store.users().await.unwrap().len(), 1);
}

#[tokio::test]
async fn changes_groups_profile_state_and_password() {
    let here = Fixture::with(&["bob"]).await;
    here.output(&["set", "bob", "--email", "bob@example.com", "--name", "Bob"]).await;
    here.output(&["set", "bob", "--groups", "a", "--name", "Robert"]).await;
    let bob = here.user("bob").await;
    assert_eq!((bob.email.as_deref(), bob.full_name.as_deref()), (Some("bob@example.com"), Some("Robert")));
    assert_eq!(here.output(&["groups", "bob"]).await, "a\n");
    assert_eq!(here.output(&["groups", "bob", "--groups", ""]).await, "groups of bob: none\n");
    here.output(&["set", "bob", "--email", ""]).await;
    assert_eq!(here.user("bob").await.email, None);
    assert!(here.failure(&["set", "bob"]).await.starts_with("nothing to set"));

    sign_in(&here, "one").await;
    here.run(&["passwd", "bob", "--password-stdin"], "another horse\n").await.unwrap();
    assert!(here.store.session("one").await.unwrap().is_none());
    let hash = here.user("bob").await.hash.unwrap();
    assert!(Workspace::default().matches("another horse", hash.expose()));
    sign_in(&here, "two").await;
    assert_eq!(here.output(&["disable", "bob"]).await, "bob is disabled; all its sessions are over\n");
    assert!(here.store.session("two").await.unwrap().is_none());
    assert_eq!(here.output(&["enable", "bob"]).await, "bob is enabled\n");
    assert!(!here.user("bob").await.disabled);
    here.output(&["unlock", "bob"]).await;
    here.output(&["delete", "bob", "--yes"]).await;
    assert!(here.store.users().await.unwrap().is_empty());
}

async fn sign_in(here: &Fixture, id: &str) {
    let bob = here.user("bob").await;
    let session = SessionRecord {
        id: id.to_owned(),
        key_hash: None,
        refresh_hash: None,
        refresh_generation: 0,
        user: bob.name,
        created_at: bob.created_at,
        auth_time: bob.created_at,
        last_seen: bob.created_at,
        remember: false,
        methods: vec![],
        client: String::new(),
        agent: String::new(),
        expires_at: bob.created_at + Duration::from_secs(3600),
    };
    here.store.create_session(session, bob.password_version).await.unwrap().unwrap();
}

#[tokio::test]
async fn asks_on_a_terminal_before_it_deletes() {
    let here = Fixture::with(&["bob"]).await;
    for (answer, left) in [("no\n", 1), ("", 1), ("bob\n", 0)] {
        let mut out = Vec::new();
        let mut hidden = |_: &str| -> io::Result<String> { panic!("asks for a password") };
        let mut console =
            Console { out: &mut out, input: &mut answer.as_bytes(), is_terminal: true, ask_hidden: &mut hidden };
        let delete = Delete { user: "bob".to_owned(), yes: false };
        let done = apply(UserCommand::Delete(delete), &here.store, &mut console).await;
        assert_eq!(done.is_err(), left == 1);
        assert_eq!(here.store.users().await.unwrap().len(), left, "{answer:?}");
        assert!(String::from_utf8(out).unwrap().contains("Type bob to go on"));
    }
}

#[tokio::test]
async fn imports_all_of_an_htpasswd_file_or_nothing() {
    const BCRYPT: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
    let here = Fixture::with(&["bob"]).await;
    let file = here.directory.path().join("users.htpasswd");
    let path = file.to_str().unwrap();
    fs::write(&file, format!("carol:{BCRYPT}\nmallory:{{SHA}}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n")).unwrap();
    let failure = here.failure(&["import", path]).await;
    assert!(failure.contains("nothing of it was:\n  line 2: a SHA-1 hash"), "{failure}");
    assert_eq!(here.store.users().await.unwrap().len(), 1);

    fs::write(&file, format!("carol:{BCRYPT}\nBob:{BCRYPT}\n")).unwrap();
    let output = here.output(&["import", path, "--groups", "staff"]).await;
    assert_eq!(output, "imported 1 of 2 accounts\nbob was there already and stays as it was\n");
    let carol = here.user("carol").await;
    assert_eq!(carol.hash.unwrap().expose(), BCRYPT);
    assert_eq!(carol.groups, ["staff"]);
    assert!(here.failure(&["import", "/nowhere/users"]).await.starts_with("can't read /nowhere/users: "));
}
