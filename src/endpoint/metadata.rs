//! What others learn of this gateway without asking it at every request: its public keys, and where its endpoints are.
//!
//! Both stand on `public_url`'s host only: elsewhere `/.well-known` is the applications'.

use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::{Answered, Call, Endpoint, find};
use crate::config::Config;

/// The document of a canonical path.
pub(super) fn find_document(canonical: &str) -> Option<Endpoint> {
    match canonical {
        JWKS => Some(Endpoint::Jwks),
        SERVER => Some(Endpoint::ServerMetadata),
        _ => None,
    }
}

/// The public keys of own tokens and of assertions (RFC 7517 section 5), as `application/json`: there are clients that
/// take nothing else, and none that insists on `application/jwk-set+json`.
pub(super) fn jwks(call: Call<'_>) -> Answered {
    let keys = call.state.keys.verification_keys(call.head.now);
    publish(call, &keys)
}

/// Where what is (RFC 8414 section 2). Names only what this version answers.
pub(super) fn server(call: Call<'_>) -> Answered {
    let document = describe(&call.state.config);
    publish(call, &document)
}

fn publish(call: Call<'_>, document: &Value) -> Answered {
    let mut response = call.asker().document(StatusCode::OK, document);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    call.unread(response)
}

fn describe(config: &Config) -> Value {
    let public_url = &config.server.public_url;
    let origin = public_url.origin();
    let is_served = |path: &str| !matches!(find(config, &public_url.host, path), None | Some(Endpoint::Unknown));
    let mut members = Map::new();
    let mut say = |name: &str, value: Value| members.insert(name.to_owned(), value);
    say("issuer", json!(config.tokens.issuer));
    say("jwks_uri", json!(format!("{origin}{JWKS}")));
    // There is no authorization endpoint, so that there are no response types; the member is required all the same.
    say("response_types_supported", json!([]));
    let mut grants: &[&str] = &[];
    for (name, path, methods) in ENDPOINTS {
        if is_served(path) {
            say(&format!("{name}_endpoint"), json!(format!("{origin}{path}")));
            if let Some(methods) = methods {
                say(&format!("{name}_endpoint_auth_methods_supported"), json!([methods]));
            }
            grants = if *name == "token" { &["password", "refresh_token"] } else { grants };
        }
    }
    // Left out it would mean the code and implicit grants.
    say("grant_types_supported", json!(grants));
    Value::Object(members)
}

/// Member, path, and how its callers say who they are: nobody has a client's secret here, and `introspect` takes a
/// token of the caller's own.
const ENDPOINTS: &[(&str, &str, Option<&str>)] = &[
    ("token", "/.gateway/token", Some("none")),
    ("revocation", "/.gateway/revoke", Some("none")),
    ("introspection", "/.gateway/introspect", Some("Bearer")),
    ("userinfo", "/.gateway/userinfo", None),
];

const JWKS: &str = "/.well-known/jwks.json";

/// RFC 8414 section 3.
const SERVER: &str = "/.well-known/oauth-authorization-server";

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        let text = "[server]\npublic_url = \"https://apps.example.com:8443\"\n[tokens]\nissuer = \"https://id.example.com\"\n\
                    [upstreams]\napp = \"http://127.0.0.1:1\"\n\
                    [[routes]]\npath = \"/**\"\nallow = \"signed-in\"\nupstream = \"app\"\n";
        crate::config::load_text(std::path::Path::new("/gateway.toml"), text.to_owned(), &|_| None).config.unwrap()
    }

    #[test]
    fn names_only_endpoints_that_answer() {
        let config = config();
        let document = describe(&config);
        assert_eq!(document["issuer"], "https://id.example.com");
        assert_eq!(document["jwks_uri"], "https://apps.example.com:8443/.well-known/jwks.json");
        assert_eq!(document["response_types_supported"], json!([]));
        for (name, path, methods) in ENDPOINTS {
            let served = find(&config, "apps.example.com", path) != Some(Endpoint::Unknown);
            let (endpoint, auth) = (format!("{name}_endpoint"), format!("{name}_endpoint_auth_methods_supported"));
            assert_eq!(document.get(&endpoint).is_some(), served, "{name}");
            assert_eq!(document.get(&auth).is_some(), served && methods.is_some(), "{name}");
            if *name == "token" {
                let grants = if served { json!(["password", "refresh_token"]) } else { json!([]) };
                assert_eq!(document["grant_types_supported"], grants);
            }
        }
    }
}
