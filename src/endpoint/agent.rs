//! A browser in words, as far as its `User-Agent` tells: "Firefox on Windows". For people who look for the session that
//! is not theirs; a client can say what it likes, so nothing is decided by it.

/// What the client that sent this `User-Agent` calls itself, in a few words.
pub(super) fn in_words(agent: &str) -> String {
    let browser = first_of(agent, &BROWSERS);
    let system = first_of(agent, &SYSTEMS);
    match (browser, system) {
        (Some(browser), Some(system)) => format!("{browser} on {system}"),
        (Some(browser), None) => browser.to_owned(),
        (None, Some(system)) => format!("A browser on {system}"),
        (None, None) => program(agent),
    }
}

/// The name of a program that is no browser: the first product, without its version (RFC 9110 section 10.1.5).
fn program(agent: &str) -> String {
    let product = agent.split(['/', ' ']).next().unwrap_or("");
    let is_name = !product.is_empty() && product != "Mozilla" && product.chars().count() <= MOST_CHARS;
    if is_name { product.to_owned() } else { "An unknown program".to_owned() }
}

fn first_of(agent: &str, known: &[(&str, &'static str)]) -> Option<&'static str> {
    known.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, name)| *name)
}

/// What a browser says, and its name. In this order: most of them also claim to be Chrome, and all to be Safari.
const BROWSERS: [(&str, &str); 14] = [
    ("Edg/", "Edge"),
    ("EdgA/", "Edge"),
    ("EdgiOS/", "Edge"),
    ("OPR/", "Opera"),
    ("OPT/", "Opera"),
    ("Vivaldi/", "Vivaldi"),
    ("SamsungBrowser/", "Samsung Internet"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("CriOS/", "Chrome"),
    ("HeadlessChrome/", "Chrome"),
    ("Chromium/", "Chromium"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
];

/// What a system says, and its name. In this order: Android says Linux too, and an iPhone says "like Mac OS X".
const SYSTEMS: [(&str, &str); 7] = [
    ("Android", "Android"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "Mac"),
    ("Linux", "Linux"),
];

/// A longer product is no name that helps anyone.
const MOST_CHARS: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_browser_and_system() {
        let cases = [
            ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:128.0) Gecko/20100101 Firefox/128.0", "Firefox on Windows"),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
                "Chrome on Linux",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
                "Safari on Mac",
            ),
            ("Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36", "A browser on ChromeOS"),
            ("Mozilla/5.0", "An unknown program"),
            ("curl/8.9.1", "curl"),
            ("python-requests/2.32.3", "python-requests"),
            ("", "An unknown program"),
            ("   ", "An unknown program"),
            (&"x".repeat(200), "An unknown program"),
        ];
        for (agent, words) in cases {
            assert_eq!(in_words(agent), words, "{agent}");
        }
    }
}
