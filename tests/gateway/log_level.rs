//! `portcullis log-level`: the filter of the log, changed while the gateway runs.

use crate::common::{Recorder, Setup, command, get};

#[test]
fn the_log_says_more_or_less_without_a_restart() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).user("bob", &[]).start();
    assert_eq!(gateway.command(&["log-level"]).succeeded().stdout, "info\n");
    let token = gateway.token("bob");
    let deny = |path: &str| {
        let answer = gateway.send(&get(path).bearer(&token));
        answer.assert_status(403, path);
        answer.header("x-request-id").expect("an id").to_owned()
    };
    let filter = "warn,portcullis::token=debug";
    assert_eq!(gateway.command(&["log-level", filter]).succeeded().stdout, format!("{filter}\n"));
    let silent = deny("/admin/silent");
    assert_eq!(gateway.command(&["log-level"]).succeeded().stdout, format!("{filter}\n"));
    gateway.command(&["log-level", "info"]).succeeded();
    let told = deny("/admin/told");
    gateway.stderr.wait("the denial", |line| line.contains(&told).then_some(()));
    let log = gateway.stderr.text();
    assert!(!log.contains(&silent), "{log}");
    assert!(log.contains("the log is filtered anew"), "{log}");
}

#[test]
fn what_is_no_filter_changes_nothing() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).start();
    for (filter, said) in [("debgu", "did you mean \"debug\"?"), ("portcullis", "levels are off"), ("", "not a level")]
    {
        let ran = gateway.command(&["log-level", filter]);
        assert_eq!(ran.code, Some(1), "{filter}");
        assert!(ran.stderr.contains(said), "{filter}: {}", ran.stderr);
    }
    assert_eq!(gateway.command(&["log-level"]).succeeded().stdout, "info\n");
}

#[test]
fn without_a_gateway_it_says_so() {
    let app = Recorder::start();
    let directory = Setup::new(app.address()).prepare();
    let ran = command(directory.path(), &["log-level", "debug"], "");
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("is the gateway running?"), "{}", ran.stderr);
}
