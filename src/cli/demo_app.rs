//! The application behind `portcullis demo`: it shows everything that an application receives, and so that it
//! receives a name and no credential. Like any application behind the gateway it believes the headers.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode;
use serde_json::{Map, Value as Json, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::endpoint::page::html::Html;
use crate::endpoint::page::html::Value::{Html as Markup, Text};
use crate::endpoint::page::{Width, csp_for, document};

/// Answers requests until its task is dropped, each connection in a task of its own.
///
/// # Errors
/// When the listener can't be used by the runtime.
pub async fn serve(listener: std::net::TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
            return Ok(());
        };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: wait for some to be given back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        tokio::spawn(async move {
            connection(stream).await;
            drop(permit);
        });
    }
}

/// The page for a browser.
#[must_use]
pub fn page(method: &Method, path: &str, headers: &HeaderMap) -> String {
    let user = user(headers);
    let place = path.split('?').next().unwrap_or(path);
    let (account, leave) = account(user.as_deref(), place);
    // What the gateway says about the person comes first.
    let (told, rest): (Vec<_>, Vec<_>) = headers.iter().partition(|(name, _)| IDENTITY.contains(&name.as_str()));
    let rows = Html::join(told.into_iter().chain(rest).map(|(name, value)| row(name.as_str(), value)));
    let current = |link| Html::fixed(if place == link { " aria-current=\"page\"" } else { "" });
    let content = Html::fill(
        include_str!("demo_app/demo.html"),
        &[
            ("account", Markup(&account)),
            ("leave", Markup(&leave)),
            ("user", Text(user.as_deref().unwrap_or(NOBODY))),
            ("lede", Text(lede(place, user.is_some()))),
            ("at_home", Markup(&current("/"))),
            ("at_admin", Markup(&current("/admin"))),
            ("at_public", Markup(&current("/public"))),
            ("method", Text(method.as_str())),
            ("path", Text(path)),
            ("rows", Markup(&rows)),
        ],
    );
    document("Demo application", "Demo application", Width::Wide, STYLE, &content)
}

/// The answer for a program: the greeting and the same facts as JSON.
#[must_use]
pub fn json(method: &Method, path: &str, headers: &HeaderMap) -> String {
    let mut seen = Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers.get_all(name).iter().map(text).collect();
        seen.insert(name.to_string(), Json::String(values.join(", ")));
    }
    let user = user(headers);
    let answer = json!({
        "message": format!("Hello, {}", user.as_deref().unwrap_or(NOBODY)),
        "user": user,
        "method": method.as_str(),
        "path": path,
        "headers": seen,
    });
    format!("{answer:#}\n")
}

async fn connection(stream: TcpStream) {
    // The gateway is the client here, and has nothing to learn from an error: it sees the connection close.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, mut body) = request.into_parts();
    // Read to the end and dropped, so that the connection can be used again.
    while let Some(Ok(_)) = body.frame().await {}
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let for_people = head.headers.get_all(header::ACCEPT).iter().any(|accept| text(accept).contains("text/html"));
    let (kind, content) = if for_people {
        ("text/html; charset=utf-8", page(&head.method, path, &head.headers))
    } else {
        ("application/json", json(&head.method, path, &head.headers))
    };
    let mut response = Response::new(Full::from(content));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    Ok(response)
}

/// Who it is, as the gateway says. What is not visible ASCII is percent-encoded there.
fn user(headers: &HeaderMap) -> Option<String> {
    let name = headers.get("x-forwarded-user")?.as_bytes();
    let name = percent_decode(name).decode_utf8_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

fn account(user: Option<&str>, place: &str) -> (Html, Html) {
    match user {
        Some(user) => (
            Html::fill("Signed in as <b><bdi>{{user}}</bdi></b>", &[("user", Text(user))]),
            Html::fixed(
                "<div class=\"leave\"><a href=\"/.gateway/account\">Your account</a>\n\
                 <form method=\"post\" action=\"/logout\"><button class=\"quiet\" type=\"submit\">Sign out</button></form></div>\n",
            ),
        ),
        None => (
            Html::fixed("Not signed in"),
            Html::fill(
                "<a class=\"action\" href=\"{{to}}\">Sign in</a>\n",
                &[("to", Text(if place == "/public" { "/login?next=%2Fpublic" } else { "/login" }))],
            ),
        ),
    }
}

fn lede(place: &str, signed_in: bool) -> &'static str {
    match (place, signed_in) {
        ("/admin" | "/admin/", _) => "This page is for group admin only, and the gateway let you in.",
        ("/public" | "/public/", true) => {
            "This page is open to everyone. You are signed in, so the application knows your name here too."
        }
        ("/public" | "/public/", false) => {
            "This page is open to everyone, and nobody has told the application who you are."
        }
        (_, true) => "The gateway has let you in, and told the application your name.",
        (_, false) => "Nobody has told the application who you are.",
    }
}

fn row(name: &str, value: &HeaderValue) -> Html {
    let value = text(value);
    let values = [("name", Text(name)), ("value", Text(&value))];
    if IDENTITY.contains(&name) {
        Html::fill(
            "<tr class=\"identity\"><th scope=\"row\"><code>{{name}}</code> <small>Set by the gateway</small></th>\
             <td><code>{{value}}</code></td></tr>\n",
            &values,
        )
    } else {
        Html::fill("<tr><th scope=\"row\"><code>{{name}}</code></th><td><code>{{value}}</code></td></tr>\n", &values)
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// The headers that say who it is.
const IDENTITY: [&str; 5] = [
    "x-forwarded-user",
    "x-forwarded-groups",
    "x-forwarded-email",
    "x-forwarded-preferred-username",
    "x-portcullis-assertion",
];

const NOBODY: &str = "stranger";

const STYLE: &str = concat!(include_str!("../endpoint/page/style.css"), include_str!("demo_app/demo.css"));

static POLICY: LazyLock<String> = LazyLock::new(|| csp_for(STYLE));

const CONNECTIONS: usize = 256;

const HEADER_TIMEOUT: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn greets_by_the_decoded_name() {
        let headers = headers(&[("x-forwarded-user", "j%C3%BCrgen"), ("accept", "text/html")]);
        let page = page(&Method::GET, "/", &headers);
        assert!(page.contains("<h1>Hello, <bdi>jürgen</bdi></h1>"), "{page}");
        assert!(page.contains("<code>j%C3%BCrgen</code>"));
        assert!(page.contains("action=\"/logout\"") && page.contains("href=\"/.gateway/account\""));
        assert_eq!(page.matches("aria-current=\"page\"").count(), 1);
        assert_eq!(page.matches("<tr class=\"identity\">").count(), 1);
        assert_eq!(page.matches("<tr><th scope=\"row\">").count(), 1);
    }

    #[test]
    fn knows_nobody_without_the_header() {
        let page = page(&Method::GET, "/public?x=1", &HeaderMap::new());
        assert!(page.contains("<h1>Hello, <bdi>stranger</bdi></h1>"));
        assert!(page.contains("href=\"/login?next=%2Fpublic\""));
        assert!(!page.contains("action=\"/logout\"") && !page.contains("/.gateway/account"));
    }

    #[test]
    fn nothing_that_arrives_becomes_markup() {
        let mut headers = headers(&[("x-forwarded-user", "%3Cscript%3Ealert(1)%3C/script%3E"), ("x-a", "<script>\"'")]);
        headers.insert("x-b", HeaderValue::from_bytes(b"\xff<img>").unwrap());
        let page = page(&Method::GET, "/<script>", &headers);
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    }

    #[test]
    fn tells_a_program_the_same_as_json() {
        let mut headers = headers(&[("x-forwarded-user", "alice"), ("x-a", "1")]);
        headers.append("x-a", HeaderValue::from_static("2"));
        let answer: Json = serde_json::from_str(&json(&Method::POST, "/data?a=b", &headers)).unwrap();
        let expected = json!({
            "message": "Hello, alice", "user": "alice", "method": "POST", "path": "/data?a=b",
            "headers": { "x-forwarded-user": "alice", "x-a": "1, 2" },
        });
        assert_eq!(answer, expected);
        let nobody: Json = serde_json::from_str(&json(&Method::GET, "/", &HeaderMap::new())).unwrap();
        assert_eq!(nobody["user"], Json::Null);
    }

    #[tokio::test]
    async fn serves_people_and_programs_on_one_connection() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let requests = "POST / HTTP/1.1\r\nhost: a\r\naccept: */*\r\ncontent-length: 4\r\n\r\nbodyGET / HTTP/1.1\r\nhost: a\r\n\
                        accept: text/html,*/*\r\nconnection: close\r\n\r\n";
        stream.write_all(requests.as_bytes()).await.unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        let (first, second) = answers.split_at(answers.rfind("HTTP/1.1 ").unwrap());
        assert!(first.contains("content-type: application/json") && first.contains("Hello, stranger"), "{first}");
        assert!(second.contains("content-type: text/html") && second.contains(&*POLICY), "{second}");
        server.abort();
    }

    /// `DEMO=127.0.0.1:3000 cargo test --lib demo_app -- --ignored` shows the application by itself.
    #[tokio::test]
    #[ignore = "runs until it is stopped, for a person to look at"]
    async fn serve_for_a_person() {
        let address = std::env::var("DEMO").expect("DEMO names an address");
        serve(std::net::TcpListener::bind(address).unwrap()).await.unwrap();
    }
}
