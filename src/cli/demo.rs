//! `portcullis demo`: a throw-away gateway in front of a small application, with a user to sign in as.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};

use super::demo_app;
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::gateway::Gateway;
use crate::identity::UserName;
use crate::identity::password::Workspace;
use crate::observe;
use crate::secret::{Random, Secret};
use crate::store::{NewUser, Store};

/// Where the demonstration is served.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

/// Runs the demonstration until Ctrl-C. Everything it made is gone with it.
pub(super) fn run(args: &Args) -> Result<(), String> {
    let dir = Scratch::new().map_err(|error| format!("no directory for the demonstration: {error}"))?;
    let app = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no port for the demo application: {error}"))?;
    let app_address = app.local_addr().map_err(|error| error.to_string())?;
    let address = free_address(args.listen)?;
    let config = configuration(&dir.0, address, app_address)?;
    observe::init_log(&config.log).map_err(|error| error.to_string())?;
    let password = Secret::new(password());
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        tokio::spawn(demo_app::serve(app));
        add_users(&config, &password).await?;
        let gateway = Gateway::start(config).await.map_err(|error| error.to_string())?;
        let address = gateway.addresses().first().copied().unwrap_or(address);
        let text = greeting(args.listen, address, &password);
        let _closed_pipe = io::stdout().lock().write_all(text.as_bytes());
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        gateway.stop();
        gateway.join().await;
        Ok(())
    })
}

/// The people of the demonstration.
async fn add_users(config: &Config, password: &Secret<String>) -> Result<(), String> {
    let store = Store::open(&config.store, Clock::system(), Random::system()).map_err(|error| error.to_string())?;
    for (name, groups) in [("alice", &["staff"][..]), ("root", &["admin", "staff"][..])] {
        let user = NewUser {
            name: UserName::parse(name).ok_or("the demonstration's names are names")?,
            hash: Some(Workspace::default().hash(password)),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
            email: Some(format!("{name}@example.com")),
            full_name: None,
        };
        store.add_user(user).await.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// `wanted`, or a free port of the same host when it is taken.
fn free_address(wanted: SocketAddr) -> Result<SocketAddr, String> {
    let bound = TcpListener::bind(wanted).or_else(|error| {
        if error.kind() == io::ErrorKind::AddrInUse { TcpListener::bind((wanted.ip(), 0)) } else { Err(error) }
    });
    let listener = bound.map_err(|error| format!("can't listen on {wanted}: {error}"))?;
    listener.local_addr().map_err(|error| error.to_string())
}

fn configuration(dir: &Path, address: SocketAddr, app: SocketAddr) -> Result<Config, String> {
    let text = format!(
        r#"
[server]
listen     = ["{address}"]
public_url = "http://{address}"

[log]
level  = "warn"
access = "off"

[login]
title = "Portcullis demo"

[upstreams]
demo = "http://{app}"

[[routes]]
name     = "public"
path     = "/public/**"
allow    = "anyone"
upstream = "demo"

[[routes]]
name     = "admin"
path     = "/admin/**"
allow    = {{ groups = ["admin"] }}
upstream = "demo"

[[routes]]
name     = "rest"
path     = "/**"
allow    = "signed-in"
upstream = "demo"
accept   = ["bearer", "cookie", "api-key"]
"#
    );
    let file = dir.join("gateway.toml");
    std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    let loaded = config::load(&file, &|_| None);
    loaded.config.ok_or_else(|| loaded.diagnostics.render(false))
}

fn greeting(wanted: SocketAddr, address: SocketAddr, password: &Secret<String>) -> String {
    let (url, password) = (format!("http://{address}"), password.expose());
    let mut text = String::new();
    if wanted.port() != 0 && wanted != address {
        let _infallible = writeln!(text, "\n{wanted} is taken by another program, so this is another port.");
    }
    let _infallible = write!(
        text,
        r#"
Portcullis stands in front of a small application that knows nothing of it.

  Address    {url}
  User       alice       (group staff)
  or         root        (groups admin, staff: may see {url}/admin)
  Password   {password}

In a browser, open {url}

With curl:

  token=$(curl -s {url}/login -H 'Content-Type: application/json' \
            -d '{{"username":"alice","password":"{password}"}}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
  curl -s {url}/ -H "Authorization: Bearer $token"

Ctrl-C ends it, and leaves nothing behind.
"#
    );
    text
}

/// Sixteen characters of which none is mistaken for another: 80 bits.
fn password() -> String {
    const CHARACTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let bytes = Random::system().bytes::<16>();
    let mut text = String::with_capacity(19);
    for (index, byte) in bytes.iter().enumerate() {
        if index > 0 && index % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(CHARACTERS[usize::from(byte % 32)]));
    }
    text
}

/// A directory of one's own below the system's temporary one, removed at the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("portcullis-demo-{}", Random::system().token::<9>()));
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_long_and_never_the_same() {
        let (one, other) = (password(), password());
        assert_eq!(one.len(), 19);
        assert_ne!(one, other);
    }

    #[test]
    fn its_configuration_has_no_findings() {
        let dir = Scratch::new().unwrap();
        let address = "127.0.0.1:8080".parse().unwrap();
        configuration(&dir.0, address, "127.0.0.1:3000".parse().unwrap()).unwrap();
        let loaded = config::load(&dir.0.join("gateway.toml"), &|_| None);
        assert_eq!(loaded.diagnostics.render(false), "");
    }
}
