//! Thousands of spellings of a protected path, from a fixed seed: none reaches the application.

use crate::common::{Numbers, Recorder, Setup, get};

/// Everything is public but this.
const ROUTES: &str = r#"
    [[routes]]
    path = "/admin/secret/**"
    allow = "nobody"
    upstream = "app"
    [[routes]]
    path = "/**"
    allow = "anyone"
    upstream = "app"
"#;

/// One character of the path as some decoder would read it back.
fn letter(numbers: &mut Numbers, letter: char) -> String {
    let flipped = if numbers.once_in(6) { letter.to_ascii_uppercase() } else { letter };
    let code = u32::from(flipped);
    match numbers.below(14) {
        0 | 1 => format!("%{code:02x}"),
        2 => format!("%{code:02X}"),
        3 => format!("%25{code:02x}"),
        4 => format!("%25{code:02X}"),
        5 if letter == 'i' => "%C4%B1".to_owned(),
        5 if letter == 's' => "%C5%BF".to_owned(),
        _ => flipped.to_string(),
    }
}

/// A separator, and what an application may read away around it.
fn separator(numbers: &mut Numbers) -> String {
    let slash = |numbers: &mut Numbers| numbers.pick(&["/", "/", "/", "%2F", "%2f", "%252F", "%252f"]);
    let parameter = ["", "", "", ";", ";x", ";x=y", "%3Bx", "%3b", "%253bq", ";a;b"];
    let mut text = numbers.pick(&parameter).to_owned();
    for _ in 0..=numbers.below(3) {
        text.push_str(slash(numbers));
        if numbers.once_in(4) {
            text.push_str(numbers.pick(&[";", ";x", "%3b", "%253Bx"]));
            text.push_str(slash(numbers));
        }
    }
    if numbers.once_in(8) {
        let hop = [
            "x/../",
            "./",
            "%2e/",
            "x/%2e%2e/",
            "..;/",
            "x/..;y/",
            ".;/",
            "x/%252e%252e/",
            "x\\..\\",
            "%5c",
            "x/..%2f",
        ];
        text.push_str(numbers.pick(&hop));
    }
    text
}

fn spelling(numbers: &mut Numbers) -> String {
    let mut path = String::from("/");
    if numbers.once_in(2) {
        path.push_str(&separator(numbers));
    }
    if !path.ends_with('/') {
        path.push_str("%2F");
    }
    let of_word =
        |numbers: &mut Numbers, word: &str| -> String { word.chars().map(|one| letter(numbers, one)).collect() };
    path.push_str(&of_word(numbers, "admin"));
    path.push_str(&separator(numbers));
    if !path.ends_with('/') && !path.to_lowercase().ends_with("2f") {
        path.push('/');
    }
    path.push_str(&of_word(numbers, "secret"));
    let endings =
        ["", "", "/", "//", "/x", ";x", ";", "%2Fx", "?x", "?/public", "%3Fx", "%23x", "/.", "/x/..", "%00", "/;x"];
    path.push_str(numbers.pick(&endings));
    path
}

#[test]
fn no_spelling_of_a_protected_path_reaches_the_application() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).routes(ROUTES).without_users().start();
    let mut client = gateway.client();
    client.send(&get("/admin/other")).assert_status(200, "the rest is open");
    app.only("the rest is open");
    let mut numbers = Numbers(20_261_123);
    let mut judged = [0_usize; 2];
    for _ in 0..6000 {
        let path = spelling(&mut numbers);
        let answer = client.send(&get(&path));
        assert!(matches!(answer.status, 400 | 403 | 404), "{path} got {}", answer.status);
        app.assert_untouched(&path);
        judged[usize::from(answer.status == 400)] += 1;
    }
    assert!(judged[0] > 2000 && judged[1] > 500, "by rule and as malformed: {judged:?}");
}

/// One reading of an application: the path that it would look up for the one that arrived.
fn application_reads(target: &str, how: usize) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let cut = |text: String| -> String {
        let segments: Vec<_> = text.split('/').map(|one| one.split(';').next().unwrap_or_default()).collect();
        segments.join("/")
    };
    let merged = |text: String| -> String {
        let segments: Vec<_> = text.split('/').filter(|one| !one.is_empty()).collect();
        format!("/{}", segments.join("/"))
    };
    match how {
        0 => decoded(path),
        1 => decoded(&decoded(path)),
        2 => cut(decoded(path)),
        3 => merged(decoded(path)),
        4 => decoded(path).to_lowercase(),
        5 => merged(cut(decoded(&decoded(path)))).to_lowercase(),
        6 => decoded(&cut(path.to_owned())),
        _ => merged(path.to_owned()),
    }
}

#[test]
fn whatever_arrives_is_not_protected_in_any_applications_reading() {
    let app = Recorder::start();
    let gateway = Setup::new(app.address()).routes(ROUTES).without_users().start();
    let mut client = gateway.client();
    let mut numbers = Numbers(7);
    let pieces = [
        "/",
        "/",
        "/",
        "/",
        "//",
        "admin",
        "admin",
        "secret",
        "secret",
        "public",
        "x",
        "ADMIN",
        "Secret",
        "%2F",
        "%2f",
        "%252f",
        ";",
        ";x",
        ".",
        "..",
        "%2e",
        "%2E%2e",
        "%252e",
        "%61dmin",
        "%73ecret",
        "%2573ecret",
        "\\",
        "%5c",
        "%25",
        "%3f",
        "%23",
        "%3b",
        "%00",
        "%20",
        "?",
        "%C3%A9",
        "*",
    ];
    let mut passed = 0;
    for _ in 0..6000 {
        let mut path = String::from("/");
        for _ in 0..=numbers.below(9) {
            path.push_str(numbers.pick(&pieces));
        }
        let answer = client.send(&get(&path));
        assert!(matches!(answer.status, 200 | 400 | 403 | 404), "{path} got {}", answer.status);
        for seen in app.take() {
            passed += 1;
            let target = seen.target();
            for how in 0..8 {
                let read = application_reads(&target, how);
                let protected = read == "/admin/secret" || read.starts_with("/admin/secret/");
                assert!(!protected, "{path} arrived as {target}, read as {read}");
                assert!(!read.split('/').any(|one| one == ".." || one == "."), "{path} as {read}");
                assert!(!read.contains(['\\', '\0']), "{path} as {read}");
            }
        }
    }
    assert!(passed > 500, "only {passed} passed: the generator makes nothing but refusals");
}
