//! Accounts that stand in a file: who signs in, what a change of the file does, and who may not change them elsewhere.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::common::{Gateway, Recorder, Setup, command, get, post, until};

/// `correct horse battery`, as libxcrypt hashes it.
const BCRYPT: &str = "$2b$05$abcdefghijklmnopqrstuuD3mHdCr44zlIZ.VZCaYRpfQhXMYnEo.";
/// `password`, from the tests of the reference implementation.
const ARGON2: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

/// Puts `text` in place of the file, whole, as a deployment does.
fn write(dir: &Path, text: &str) {
    let fresh = dir.join("users.htpasswd.new");
    std::fs::write(&fresh, text).unwrap();
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&fresh, dir.join("users.htpasswd")).unwrap();
}

fn setup(app: &Recorder) -> Setup {
    Setup::new(app.address()).key("store.users", "{ file = \"users.htpasswd\" }").without_users()
}

/// A gateway whose accounts are those of `text`.
fn gateway(app: &Recorder, text: &str) -> Gateway {
    let dir = tempfile::Builder::new().prefix("gate").tempdir().unwrap();
    std::fs::write(dir.path().join("gateway.toml"), setup(app).toml()).unwrap();
    write(dir.path(), text);
    Gateway::serve(dir)
}

fn token(gateway: &Gateway, name: &str, password: &str) -> String {
    let answer = gateway.sign_in(name, password);
    answer.assert_status(200, name);
    answer.json()["access_token"].as_str().expect("an access token").to_owned()
}

fn status(gateway: &Gateway, token: &str) -> u16 {
    gateway.send(&get("/x").bearer(token)).status
}

#[test]
fn people_of_the_file_sign_in_and_applications_are_told_who_they_are() {
    let app = Recorder::start();
    let text = format!("# people\n\nAda:{BCRYPT}:staff,ops:ada@example.com:Ada Lovelace\nbob:{ARGON2}\n");
    let gateway = gateway(&app, &text);
    gateway.sign_in("ada", "correct horse batter").assert_status(403, "another password");
    gateway.sign_in("ada", "password").assert_status(403, "bob's password");
    let ada = token(&gateway, "ada", "correct horse battery");
    app.take();
    assert_eq!(status(&gateway, &ada), 200);
    let seen = app.only("as ada");
    let told = ["X-Forwarded-User", "X-Forwarded-Groups", "X-Forwarded-Email"].map(|name| seen.header(name));
    assert_eq!(told.map(Option::unwrap_or_default), ["ada", "staff,ops", "ada@example.com"]);
    let bob = token(&gateway, "bob", "password");
    // The hash that the sign-in has upgraded is kept over a restart, and so are the sessions.
    let gateway = gateway.restart();
    assert_eq!((status(&gateway, &ada), status(&gateway, &bob)), (200, 200));
    token(&gateway, "ada", "correct horse battery");
}

#[test]
fn a_change_of_the_file_is_in_force_when_the_reload_is_done() {
    let app = Recorder::start();
    let bob = format!("bob:{ARGON2}:staff\n");
    let gateway = gateway(&app, &format!("ada:{BCRYPT}\ncarol:{BCRYPT}\n{bob}"));
    let [ada, carol] = ["ada", "carol"].map(|name| token(&gateway, name, "correct horse battery"));
    let of_bob = token(&gateway, "bob", "password");
    // ada is gone, carol has bob's password, bob is in another group.
    write(gateway.dir(), &format!("carol:{ARGON2}\nbob:{ARGON2}:admin\n"));
    let said = gateway.command(&["reload"]).succeeded();
    assert!(said.stdout.contains("store.users") || said.stderr.contains("store.users"), "{said:?}");
    assert_eq!([&ada, &carol, &of_bob].map(|token| status(&gateway, token)), [401, 401, 200]);
    gateway.send(&get("/admin/x").bearer(&of_bob)).assert_status(200, "the new group");
    gateway.sign_in("ada", "correct horse battery").assert_status(403, "gone");
    gateway.sign_in("carol", "correct horse battery").assert_status(403, "the old password");
    token(&gateway, "carol", "password");
    // Nobody asks for it this time.
    write(gateway.dir(), &bob);
    let carol = || gateway.sign_in("carol", "password").status;
    until("carol is gone", || (carol() == 403).then_some(()));
    assert_eq!(status(&gateway, &of_bob), 200, "bob's session goes on");
    // Without the key there are none of the file's accounts.
    gateway.reload(&Setup::new(app.address()).without_users());
    assert_eq!(status(&gateway, &of_bob), 401);
}

#[test]
fn a_file_that_can_not_be_taken_leaves_everything_as_it_is() {
    let app = Recorder::start();
    let gateway = gateway(&app, &format!("ada:{BCRYPT}:staff\nbob:{ARGON2}\n"));
    let ada = token(&gateway, "ada", "correct horse battery");
    let broken = format!("bob:{BCRYPT}\nada:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\n");
    write(gateway.dir(), &broken);
    let said = gateway.command(&["reload"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let text = format!("{}{}", said.stdout, said.stderr);
    assert!(text.contains("error[bad-account]") && text.contains("line 2: an MD5 hash"), "{text}");
    std::fs::remove_file(gateway.dir().join("users.htpasswd")).unwrap();
    assert_eq!(gateway.command(&["reload"]).code, Some(1), "it is not there");
    assert_eq!(status(&gateway, &ada), 200);
    token(&gateway, "ada", "correct horse battery");
    token(&gateway, "bob", "password");
    write(gateway.dir(), &broken);
    assert_eq!(command(gateway.dir(), &["serve"], "").code, Some(1), "and no other one starts with it");
}

#[test]
fn the_store_s_own_account_counts_and_whoever_looks_is_told() {
    let app = Recorder::start();
    let gateway = gateway(&app, &format!("ada:{BCRYPT}\n"));
    let added = command(gateway.dir(), &["user", "add", "eve", "--password-stdin"], "a long pass phrase\n");
    added.succeeded();
    write(gateway.dir(), &format!("ada:{BCRYPT}\nEve:{BCRYPT}:admin\n"));
    let reload = gateway.command(&["reload"]).succeeded();
    let check = gateway.command(&["check"]).succeeded();
    for said in [reload, check] {
        let text = format!("{}{}", said.stdout, said.stderr);
        assert!(text.contains("warning[store-has-user]: the store has an account `eve` of its own"), "{text}");
    }
    gateway.sign_in("eve", "correct horse battery").assert_status(403, "the file's password");
    token(&gateway, "eve", "a long pass phrase");
}

#[test]
fn only_the_file_changes_the_accounts_of_the_file() {
    let app = Recorder::start();
    let gateway = gateway(&app, &format!("ada:{BCRYPT}:staff\n"));
    let refused = gateway.command(&["user", "delete", "ada", "--yes"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("edit its line"), "{refused:?}");
    let (old, new) = ("correct horse battery", "a brand new pass phrase");
    let answer = gateway.send(&post("/login").form(&[("username", "ada"), ("password", old)]));
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let fields = [("username", "ada"), ("password", old), ("new_password", new), ("new_password_again", new)];
    let page = gateway.send(&get("/.gateway/account").page_load().cookie(&cookie));
    page.assert_status(200, "their own page");
    assert!(page.text().contains("It is kept elsewhere") && !page.text().contains("new_password"), "{}", page.text());
    let change = post("/.gateway/account/password").page_load().form(&fields).cookie(&cookie);
    let answer = gateway.send(&change);
    answer.assert_status(409, "a change of the password");
    assert!(answer.text().contains("It is kept in a file"), "{}", answer.text());
    gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "the session goes on");
    gateway.sign_in("ada", new).assert_status(403, "the new one");
    token(&gateway, "ada", old);
}
