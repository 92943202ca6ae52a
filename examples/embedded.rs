//! The gateway inside a program of your own, in front of that program's own application.
//!
//! `cargo run --example embedded` prints an address, a user and a password. The application listens on the loopback
//! address only: whoever reaches it without the gateway could say to be anyone.

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use portcullis::clock::Clock;
use portcullis::config::{self, Config};
use portcullis::gateway::Gateway;
use portcullis::identity::UserName;
use portcullis::identity::password::Workspace;
use portcullis::secret::{Random, Secret};
use portcullis::store::{NewUser, Store};
use tokio::net::TcpListener;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let running = start("127.0.0.1:0").await?;
    writeln!(io::stdout().lock(), "{}", running.greeting())?;
    tokio::signal::ctrl_c().await?;
    running.gateway.drain();
    running.gateway.join().await;
    Ok(())
}

/// The gateway and what is needed to use it.
pub(crate) struct Running {
    /// The gateway; dropping it ends it.
    pub(crate) gateway: Gateway,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The password of the user `alice`.
    pub(crate) password: Secret<String>,
    /// Where the store is; removed at the end.
    _directory: tempfile::TempDir,
}

impl Running {
    fn greeting(&self) -> String {
        let (address, password) = (self.address, self.password.expose());
        format!("Open http://{address}/ and sign in as alice with the password {password}")
    }
}

/// Starts the application, and the gateway on `listen` in front of it.
pub(crate) async fn start(listen: &str) -> Result<Running, Box<dyn Error>> {
    let application = TcpListener::bind("127.0.0.1:0").await?;
    let upstream = application.local_addr()?;
    tokio::spawn(serve(application));

    // A program would keep its store; this one begins anew each time.
    let directory = tempfile::tempdir()?;
    let config = configuration(directory.path(), listen, upstream)?;
    let password = Secret::new(Random::system().token::<12>());
    add_user(&config, "alice", &password).await?;

    let gateway = Gateway::start(config).await?;
    let address = *gateway.addresses().first().ok_or("the gateway listens nowhere")?;
    Ok(Running { gateway, address, password, _directory: directory })
}

/// The configuration, as the file `gateway.toml` would say it. What is wrong with it is the error.
fn configuration(directory: &Path, listen: &str, upstream: SocketAddr) -> Result<Config, String> {
    let text = format!(
        r#"
        [server]
        listen = ["{listen}"]

        [log]
        access = "off"

        [login]
        title = "Embedded"

        [upstreams]
        notes = "http://{upstream}"

        [[routes]]
        name     = "front"
        path     = "/"
        allow    = "signed-in"
        upstream = "notes"

        [[routes]]
        name     = "admin"
        path     = "/admin/**"
        allow    = {{ groups = ["admin"] }}
        upstream = "notes"
        "#
    );
    // Relative paths in it begin at the directory of this file, which need not exist.
    let loaded = config::load_text(&directory.join("gateway.toml"), text, &|name| std::env::var(name).ok());
    loaded.config.ok_or_else(|| loaded.diagnostics.render(false))
}

async fn add_user(config: &Config, name: &str, password: &Secret<String>) -> Result<(), Box<dyn Error>> {
    let store = Store::open(&config.store, Clock::system(), Random::system())?;
    let user = NewUser {
        name: UserName::parse(name).ok_or("not a name for an account")?,
        hash: Some(Workspace::default().hash(password)),
        groups: vec!["staff".to_owned()],
        email: None,
        full_name: None,
    };
    store.add_user(user).await?.ok_or("there is such an account already")?;
    Ok(())
}

/// The application: it knows nothing of passwords, and believes one header.
async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = service_fn(|request: Request<Incoming>| async move {
            let user = request.headers().get("x-forwarded-user").and_then(|user| user.to_str().ok());
            let text = format!("Hello, {}\n", user.unwrap_or("stranger"));
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text))))
        });
        let connection = http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
        tokio::spawn(async move {
            // A client that left is no error of the application.
            let _ended = connection.await;
        });
    }
}
