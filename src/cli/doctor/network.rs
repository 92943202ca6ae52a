//! Who answers: upstreams, the gateway's own listeners, the admin listener.

use std::io::{self, Read as _, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::Check;
use crate::config::{CertificateFacts, Facts, HostPort, ServerAddr, ServerFacts, UpstreamTls};
use crate::upstream::verify;

/// Whether each server of each upstream takes connections, and shows a certificate that is believed; all are tried at once.
pub(super) fn upstreams(facts: &Facts) -> Vec<Check> {
    let shown = |server: &ServerFacts| {
        let theirs = |one: &&CertificateFacts| one.upstream.as_ref() == Some(&server.upstream);
        facts.certificates.iter().find(theirs).cloned()
    };
    let servers = facts.servers.iter().map(|server| (server.clone(), shown(server)));
    let tried: Vec<_> = servers
        .map(|(facts, shown)| {
            let (sender, receiver) = mpsc::sync_channel(1);
            let (name, server) = (format!("upstream {}", facts.upstream), facts.server.clone());
            // A look-up of the name has no deadline of its own: whoever waits has one.
            thread::spawn(move || drop(sender.send(reach(&facts, shown.as_ref()))));
            (name, server, receiver)
        })
        .collect();
    let judge = |(name, server, receiver): (String, ServerAddr, mpsc::Receiver<Result<(), Unreached>>)| {
        let place = server.to_string();
        let late = |_| Err(Unreached::Connect(io::ErrorKind::TimedOut.into()));
        match receiver.recv_timeout(PATIENCE * 3).unwrap_or_else(late) {
            Ok(()) => Check::ok(name, format!("{place} takes connections")),
            Err(Unreached::Connect(error)) => {
                let help = "start the application, or correct the address in [upstreams]: its users see 502 or 504";
                Check::fail(name, format!("{place} takes none: {error}"), help)
            }
            Err(Unreached::Tls(error)) => {
                let help = "correct its certificate, or name its authority in `tls.ca`, its name in `tls.server_name`, \
                            or what it asks of clients in `tls.cert` and `tls.key`: its users see 502";
                Check::fail(name, format!("TLS with {place} does not come about: {error}"), help)
            }
        }
    };
    tried.into_iter().map(judge).collect()
}

/// What keeps requests from a server.
enum Unreached {
    Connect(io::Error),
    Tls(io::Error),
}

fn reach(facts: &ServerFacts, shown: Option<&CertificateFacts>) -> Result<(), Unreached> {
    let place = match &facts.server {
        ServerAddr::Http(place) | ServerAddr::H2c(place) | ServerAddr::Https(place) => place,
        ServerAddr::Unix(path) => return UnixStream::connect(path).map(drop).map_err(Unreached::Connect),
    };
    let stream = connect(place).map_err(Unreached::Connect)?;
    if !facts.server.is_https() {
        return Ok(());
    }
    let limit = |stream: &TcpStream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))
    };
    let tls = UpstreamTls::believing(facts.ca.as_deref(), facts.server_name.clone());
    let tls = match shown {
        Some(CertificateFacts { cert, key, .. }) => tls.and_then(|tls| tls.showing(cert, key)),
        None => tls,
    };
    let judged = limit(&stream).and_then(|()| verify(&tls?, &place.host, stream));
    judged.map_err(Unreached::Tls)
}

fn connect(HostPort { host, port }: &HostPort) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (host.as_str(), *port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether the running gateway answers to clients on `addresses` and its unix sockets, and on its admin listener. An admin
/// listener that took a free port is not looked for.
pub(super) fn listeners(facts: &Facts, addresses: &[SocketAddr]) -> Vec<Check> {
    let clients = addresses.iter().map(|address| {
        let name = format!("listener {address}");
        if facts.speaks_http(*address) {
            judged(name, tcp(*address).and_then(|stream| status(stream, &facts.host, &facts.login_path)))
        } else {
            // Of one that speaks TLS, HTTP/2 or PROXY no more is asked than whether it is there.
            there(name, tcp(*address).map(drop))
        }
    });
    let sockets =
        facts.sockets.iter().map(|path| there(format!("listener unix:{}", path.display()), unix(path).map(drop)));
    let clients = clients.chain(sockets);
    let admin = facts.admin.as_deref().and_then(|listen| match (listen.strip_prefix("unix:"), listen.parse()) {
        (Some(path), _) => Some(unix(Path::new(path)).and_then(|stream| status(stream, "localhost", "/livez"))),
        (None, Ok(address)) if SocketAddr::port(&address) != 0 => {
            Some(tcp(address).and_then(|stream| status(stream, "localhost", "/livez")))
        }
        (None, _) => None,
    });
    clients.chain(admin.map(|came| judged("admin listener".to_owned(), came))).collect()
}

fn there(name: String, came: io::Result<()>) -> Check {
    match came {
        Ok(()) => Check::ok(name, "takes connections".to_owned()),
        Err(error) => judged(name, Err(error)),
    }
}

fn judged(name: String, came: io::Result<u16>) -> Check {
    let help = "look into the gateway's log, and whether something else holds the address";
    match came {
        Ok(status) if status < 500 => Check::ok(name, format!("answers with {status}")),
        Ok(status) => Check::fail(name, format!("answers with {status}"), help),
        Err(error) => Check::fail(name, format!("gives no answer: {error}"), help),
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let here = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let stream = TcpStream::connect_timeout(&SocketAddr::new(here, address.port()), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn unix(path: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The status of the answer to a GET.
fn status(mut stream: impl io::Read + Write, host: &str, path: &str) -> io::Result<u16> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut line = Vec::new();
    stream.take(STATUS_LINE).read_to_end(&mut line)?;
    let text = String::from_utf8_lossy(&line);
    let code = text.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|code| code.parse().ok());
    code.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "what answers does not speak HTTP/1.1"))
}

/// How long a connection, or an answer, may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes up to the end of the status.
const STATUS_LINE: u64 = 12;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const WHOLE: &[u8; 59] = b"GET /login HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";

    #[test]
    fn what_listens_and_speaks_no_http_is_not_taken_for_the_gateway() {
        for (answer, expected) in
            [("HTTP/1.1 401 Unauthorized\r\n\r\n", Some(401)), ("SSH-2.0-x\r\n", None), ("", None)]
        {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let other = thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                // All of it: what closes with something unread breaks off, and its answer may be lost.
                let mut asked = [0; WHOLE.len()];
                stream.read_exact(&mut asked).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                asked
            });
            let came = tcp(address).and_then(|stream| status(stream, "a.example", "/login"));
            assert_eq!(came.ok(), expected, "{answer}");
            assert_eq!(&other.join().unwrap(), WHOLE);
        }
    }
}
