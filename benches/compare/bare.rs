//! A forwarder that is nothing but hyper: what `run.py` measures the gateway against where the question is how much of a
//! request's cost is the gateway's own.
//!
//! One thread, hyper's server, and hyper's client on connections that are kept. It decides nothing, removes one field and adds
//! one, and has no deadline. `bare PORT UPSTREAM_PORT`, both on the loopback address.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

type Fault = Box<dyn Error + Send + Sync>;

/// Connections to the upstream that nobody uses.
type Unused = Rc<RefCell<Vec<SendRequest<Incoming>>>>;

fn main() -> Result<(), Fault> {
    let ports: Vec<u16> = std::env::args().skip(1).map(|port| port.parse()).collect::<Result<_, _>>()?;
    let [port, upstream] = ports[..] else { return Err("bare PORT UPSTREAM_PORT".into()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    Ok(LocalSet::new().block_on(&runtime, serve(port, upstream))?)
}

async fn serve(port: u16, upstream: u16) -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    let unused = Unused::default();
    loop {
        let (client, _) = listener.accept().await?;
        client.set_nodelay(true)?;
        let unused = Rc::clone(&unused);
        spawn_local(async move {
            let service = service_fn(|request| forward(request, upstream, &unused));
            // A client that breaks off is nobody's fault.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(client), service).await;
        });
    }
}

async fn forward(mut request: Request<Incoming>, upstream: u16, unused: &Unused) -> Result<Response<Incoming>, Fault> {
    request.headers_mut().remove(CONNECTION);
    request.headers_mut().insert(FORWARDED_FOR, HeaderValue::from_static("127.0.0.1"));
    let kept = unused.borrow_mut().pop();
    let mut connection = match kept {
        Some(connection) => connection,
        None => connect(upstream).await?,
    };
    let answer = connection.send_request(request).await?;
    unused.borrow_mut().push(connection);
    Ok(answer)
}

async fn connect(upstream: u16) -> Result<SendRequest<Incoming>, Fault> {
    let stream = TcpStream::connect(("127.0.0.1", upstream)).await?;
    stream.set_nodelay(true)?;
    let (sender, driver) = handshake(TokioIo::new(stream)).await?;
    spawn_local(async move {
        // Whoever sends over it is told.
        let _ = driver.await;
    });
    Ok(sender)
}
