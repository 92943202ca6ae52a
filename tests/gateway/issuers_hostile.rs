//! Tokens of other issuers that try to be more than they are: another's name, another's session, a way into our endpoints.

use serde_json::json;

use crate::common::issuer::{Issuer, IssuerKey, with};
use crate::common::{Gateway, Recorder, Request, Setup, get, post, token};

/// Two issuers: `corp`, whose people have a prefix, and `dex`, whose have none.
struct Bench {
    app: Recorder,
    corp: (Issuer, IssuerKey),
    dex: (Issuer, IssuerKey),
    gateway: Gateway,
}

const PREFIXES: &str = "user_prefix = \"corp:\"\ngroup_prefix = \"corp:\"";

impl Bench {
    fn new(of_corp: &str, of_dex: &str) -> Self {
        // Both call their key the same.
        let (app, [one, two]) = (Recorder::start(), ["1", "1"].map(IssuerKey::new));
        let (corp, dex) = (Issuer::publishing(&[&one]), Issuer::publishing(&[&two]));
        let routes = "[[routes]]\nname = \"corp\"\npath = \"/corp/**\"\nissuers = [\"corp\"]\nallow = \"signed-in\"\nupstream = \"app\"\n\
                      [[routes]]\nname = \"groups\"\npath = \"/groups/**\"\nallow = { groups = [\"corp:ops\"] }\nupstream = \"app\"\n\
                      [[routes]]\nname = \"rest\"\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n";
        let sections = format!("{}{}{routes}", corp.section("corp", of_corp), dex.section("dex", of_dex));
        let gateway = Setup::new(app.address()).user("bob", &[]).routes(&sections).start();
        Self { app, corp: (corp, one), dex: (dex, two), gateway }
    }

    fn of_corp(&self, subject: &str) -> String {
        self.corp.1.sign(&self.corp.0.claims(subject))
    }

    fn of_dex(&self, subject: &str) -> String {
        self.dex.1.sign(&self.dex.0.claims(subject))
    }

    /// Whom the application is told behind `token`; `None`: it is 401 and reaches nobody.
    #[track_caller]
    fn told(&self, token: &str) -> Option<String> {
        match self.gateway.send(&get("/x").bearer(token)).status {
            200 => Some(self.app.only(token).header("x-forwarded-user").unwrap_or_default()),
            401 => {
                self.app.assert_untouched(token);
                None
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn nobody_takes_the_name_of_someone_of_another_issuer() {
    let bench = Bench::new(PREFIXES, "");
    assert_eq!(bench.told(&bench.of_corp("carol")).as_deref(), Some("corp:carol"));
    assert_eq!(bench.told(&bench.of_dex("carol")).as_deref(), Some("carol"));
    assert_eq!(bench.told(&bench.of_dex("corp:carol")), None, "that would be carol of corp");
    assert_eq!(bench.told(&bench.of_dex("corp:")), None);
    assert_eq!(bench.told(&bench.of_corp("corp:carol")).as_deref(), Some("corp:corp:carol"));
    // Nor a group that only the other's people have.
    let claims = with(bench.dex.0.claims("carol"), json!({ "groups": ["corp:ops", "dev"] }));
    bench.gateway.send(&get("/groups/x").bearer(&bench.dex.1.sign(&claims))).assert_status(403, "a group of corp's");
    bench.gateway.send(&get("/groups/x").bearer(&bench.of_corp("carol"))).assert_status(200, "theirs");
    assert_eq!(bench.app.only("groups").header("x-forwarded-groups").as_deref(), Some("corp:ops"));
    // A token of one issuer, signed by the key that the other calls the same.
    let crossed = bench.dex.1.sign(&bench.corp.0.claims("carol"));
    assert_eq!(bench.told(&crossed), None);
    // Good where it is good, it is not good elsewhere for having been seen.
    let dex = bench.of_dex("carol");
    for _ in 0..2 {
        assert_eq!(bench.told(&dex).as_deref(), Some("carol"));
        bench.gateway.send(&get("/corp/x").bearer(&dex)).assert_status(401, "not of corp");
        bench.app.assert_untouched("not of corp");
    }
}

#[test]
fn names_that_look_like_a_local_one_are_that_one_or_visibly_another() {
    let bench = Bench::new(PREFIXES, "");
    for same in ["bob", "BOB", "Bob"] {
        assert_eq!(bench.told(&bench.of_dex(same)), None, "{same}");
    }
    for (name, told) in [
        ("bob\u{17f}", "bob%C5%BF"),
        ("\u{ff42}ob", "%EF%BD%82ob"),
        ("bob\u{200b}", "bob%E2%80%8B"),
        ("\u{202e}bob", "%E2%80%AEbob"),
        ("bob%20", "bob%2520"),
        ("b ob", "b%20ob"),
        ("b\u{f8}b", "b%C3%B8b"),
    ] {
        assert_eq!(bench.told(&bench.of_dex(name)).as_deref(), Some(told), "{name:?}");
    }
    for bad in [
        "",
        " bob",
        "bob ",
        "bob\t",
        "bob\0",
        "b\nob",
        "bo\u{308}b",
        "bob\u{85}",
        "\u{a0}bob",
        "\u{212a}bob",
        &"b".repeat(257),
    ] {
        assert_eq!(bench.told(&bench.of_dex(bad)), None, "{bad:?}");
    }
    let hostile = json!({
        "groups": ["a\r\nX-Forwarded-User: root", "caf\u{e9}", "", " x", "ops,admin", 7, null, ["admin"], {"a": 1}],
        "name": "Bo\r\nX: y", "email": "b b@example.com\n", "email_verified": true,
    });
    bench
        .gateway
        .send(&get("/x").bearer(&bench.dex.1.sign(&with(bench.dex.0.claims("carol"), hostile))))
        .assert_status(200, "carol");
    let seen = bench.app.only("carol");
    assert_eq!(seen.header("x-forwarded-groups").as_deref(), Some("caf%C3%A9"));
    assert_eq!((seen.header("x-forwarded-email"), seen.header("x-forwarded-preferred-username")), (None, None));
    assert_eq!((seen.all("x").len(), seen.all("x-forwarded-user")), (0, vec!["carol".to_owned()]));
    for groups in [json!({ "admin": true }), json!(7), json!(true), json!([[["admin"]]])] {
        let claims = with(bench.dex.0.claims("carol"), json!({ "groups": groups }));
        bench.gateway.send(&get("/x").bearer(&bench.dex.1.sign(&claims))).assert_status(200, "carol");
        assert_eq!(bench.app.only("carol").header("x-forwarded-groups"), None);
    }
}

/// In `shared` mode alice of the issuer is alice here: for applications, and for nothing that only a sign-in here gives.
#[test]
fn a_foreign_token_opens_nothing_that_belongs_to_a_session_here() {
    let bench = Bench::new(PREFIXES, "accounts = \"shared\"");
    let own = bench.gateway.token("alice");
    let (cookie, sid) = (bench.gateway.cookie("alice"), token::claims_of(&own)["sid"].clone());
    let claims = with(
        bench.dex.0.claims("alice"),
        json!({ "sid": sid, "jti": sid, "scope": "introspect", "amr": ["password"] }),
    );
    let foreign = bench.dex.1.sign(&claims);
    assert_eq!(bench.told(&foreign).as_deref(), Some("alice"));
    let ask = |request: Request| bench.gateway.send(&request.bearer(&foreign));
    ask(get("/.gateway/account").page_load()).assert_status(403, "the account page");
    ask(post("/.gateway/account/password").form(&[("password", "x"), ("new", "y")]))
        .assert_status(403, "a change of the password");
    ask(post("/.gateway/introspect").form(&[("token", &own)])).assert_status(401, "introspection");
    let answer = ask(post("/.gateway/token").form(&[("grant_type", "refresh_token"), ("refresh_token", &foreign)]));
    answer.assert_status(400, "not a refresh token");
    assert!(!answer.text().contains("access_token"));
    let page = ask(get("/login?next=/x"));
    assert!(page.status < 400 && page.header("set-cookie").is_none(), "no session comes of it");
    // Ending it ends it alone, whatever session it claims to belong to.
    ask(post("/logout")).assert_status(204, "signed out");
    assert_eq!(bench.told(&foreign), None);
    assert_eq!(bench.told(&own).as_deref(), Some("alice"));
    bench.gateway.send(&get("/x").cookie(&cookie)).assert_status(200, "the cookie is as good as before");
    bench.app.only("cookie");
    // And the end of the session ends no token of theirs.
    let other = bench.of_dex("alice");
    bench.gateway.send(&post("/logout").bearer(&own)).assert_status(204, "signed out");
    assert_eq!((bench.told(&own), bench.told(&other).as_deref()), (None, Some("alice")));
    bench.gateway.command(&["user", "disable", "alice"]).succeeded();
    assert_eq!(bench.told(&other), None);
}

/// A deleted account leaves someone whom only the issuer knows; the tokens from before stay ended.
#[test]
fn a_shared_account_that_goes_takes_its_tokens_with_it() {
    let bench = Bench::new(PREFIXES, "accounts = \"shared\"");
    let timeless = |bench: &Bench| bench.dex.1.sign(&with(bench.dex.0.claims("bob"), json!({ "iat": null })));
    let (token, without_iat) = (bench.of_dex("bob"), timeless(&bench));
    assert!(bench.told(&token).is_some() && bench.told(&without_iat).is_some());
    bench.gateway.command(&["user", "delete", "bob"]).succeeded();
    assert_eq!((bench.told(&token), bench.told(&without_iat)), (None, None));
    let add = ["user", "add", "bob", "--password-stdin"];
    crate::common::command(bench.gateway.dir(), &add, "a long pass phrase of bob\n").succeeded();
    assert_eq!((bench.told(&token), bench.told(&without_iat)), (None, None), "another bob");
}
