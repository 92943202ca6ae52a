//! The PROXY protocol, versions 1 and 2: what a load balancer of layer 4 says of a connection before its first byte.
//!
//! Exactly the header is read and nothing behind it. Whether a peer is believed, and how long it may take, is the caller's
//! to say (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use std::net::SocketAddr;
use std::{fmt, io};

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The client's end and the end that it connected to.
    Addresses {
        /// The client.
        source: SocketAddr,
        /// What it connected to.
        destination: SocketAddr,
    },
    /// Nothing of a client: the load balancer speaks for itself.
    Own,
    /// A client whose address the load balancer does not know, or that has none.
    Unknown,
}

/// Why a connection has no header that can be read.
#[derive(Debug)]
pub enum ProxyFault {
    /// It does not begin with one.
    Missing,
    /// It begins with one that is malformed.
    Malformed(String),
    /// It says more than is read: at most [`LONGEST`] bytes.
    TooLong(usize),
    /// The connection ended or broke.
    Io(io::Error),
}

impl fmt::Display for ProxyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("the connection does not begin with a PROXY header"),
            Self::Malformed(why) => write!(f, "the PROXY header is malformed: {why}"),
            Self::TooLong(length) => write!(f, "the PROXY header has {length} bytes, more than {LONGEST}"),
            Self::Io(error) => write!(f, "the connection ended within the PROXY header: {error}"),
        }
    }
}

impl std::error::Error for ProxyFault {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Missing | Self::Malformed(_) | Self::TooLong(_) => None,
        }
    }
}

/// Reads the header at the beginning of `stream`. It must be there: what is no header is not looked for elsewhere, so that
/// no client can do without the one that its load balancer sends.
///
/// # Errors
/// When there is none, or it is malformed or too long. What was read is lost then: close the connection.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Told, ProxyFault> {
    // Both versions have at least as many bytes as the signature of the second.
    let mut head = [0; SIGNATURE.len()];
    stream.read_exact(&mut head).await.map_err(ProxyFault::Io)?;
    if head == *SIGNATURE {
        return read_binary(stream).await;
    }
    if !head.starts_with(b"PROXY ") {
        return Err(ProxyFault::Missing);
    }
    let mut line = head.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() >= LONGEST_LINE {
            return Err(ProxyFault::Malformed("no end of line".to_owned()));
        }
        // One at a time: the next byte may be the client's.
        line.push(stream.read_u8().await.map_err(ProxyFault::Io)?);
    }
    // The parser would take a sign before a port.
    if line.contains(&b'+') {
        return Err(ProxyFault::Malformed("a sign before a number".to_owned()));
    }
    let header = v1::Header::try_from(line.as_slice()).map_err(malformed)?;
    somebodys(match header.addresses {
        v1::Addresses::Tcp4(ends) => Told::Addresses {
            source: (ends.source_address, ends.source_port).into(),
            destination: (ends.destination_address, ends.destination_port).into(),
        },
        v1::Addresses::Tcp6(ends) => Told::Addresses {
            source: (ends.source_address, ends.source_port).into(),
            destination: (ends.destination_address, ends.destination_port).into(),
        },
        v1::Addresses::Unknown => Told::Unknown,
    })
}

async fn read_binary<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Told, ProxyFault> {
    let mut fixed = [0; 4];
    stream.read_exact(&mut fixed).await.map_err(ProxyFault::Io)?;
    let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    let whole = SIGNATURE.len() + fixed.len() + length;
    if whole > LONGEST {
        return Err(ProxyFault::TooLong(whole));
    }
    let mut header = Vec::with_capacity(whole);
    header.extend_from_slice(SIGNATURE);
    header.extend_from_slice(&fixed);
    header.resize(whole, 0);
    stream.read_exact(&mut header[SIGNATURE.len() + fixed.len()..]).await.map_err(ProxyFault::Io)?;
    let header = v2::Header::try_from(header.as_slice()).map_err(malformed)?;
    if header.command == v2::Command::Local {
        return Ok(Told::Own);
    }
    // Who is connected by datagrams is no client of ours.
    if header.protocol == v2::Protocol::Datagram {
        return Err(ProxyFault::Malformed("not a stream".to_owned()));
    }
    somebodys(match header.addresses {
        v2::Addresses::IPv4(ends) => Told::Addresses {
            source: (ends.source_address, ends.source_port).into(),
            destination: (ends.destination_address, ends.destination_port).into(),
        },
        v2::Addresses::IPv6(ends) => Told::Addresses {
            source: (ends.source_address, ends.source_port).into(),
            destination: (ends.destination_address, ends.destination_port).into(),
        },
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => Told::Unknown,
    })
}

/// `told`, unless it names an address that is nobody's: `0.0.0.0` stands for who is on a unix socket.
fn somebodys(told: Told) -> Result<Told, ProxyFault> {
    match told {
        Told::Addresses { source, .. } if source.ip().to_canonical().is_unspecified() => {
            Err(malformed(format_args!("nobody has the address {}", source.ip())))
        }
        told => Ok(told),
    }
}

fn malformed(error: impl fmt::Display) -> ProxyFault {
    ProxyFault::Malformed(error.to_string())
}

/// What version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1 (section 2.1).
const LONGEST_LINE: usize = 107;

/// The longest header that is read, in bytes. Addresses take 52; the rest is for extensions, which are not looked at.
pub const LONGEST: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read of `bytes`, and what is left behind it.
    async fn parse(bytes: &[u8]) -> (Result<Told, String>, Vec<u8>) {
        let mut rest = bytes;
        let told = read(&mut rest).await.map_err(|fault| fault.to_string());
        (told, rest.to_vec())
    }

    fn addresses(source: &str, destination: &str) -> Result<Told, String> {
        Ok(Told::Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
    }

    fn binary(version_command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[version_command, family], &length, body].concat()
    }

    const FOUR: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0xdb, 0x2e, 0x01, 0xbb];

    #[tokio::test]
    async fn a_line_is_read_and_nothing_behind_it() {
        let (told, rest) = parse(b"PROXY TCP4 192.0.2.7 198.51.100.1 56110 443\r\nGET / HTTP/1.1\r\n").await;
        assert_eq!(told, addresses("192.0.2.7:56110", "198.51.100.1:443"));
        assert_eq!(rest, b"GET / HTTP/1.1\r\n");
        let (told, rest) = parse(b"PROXY TCP6 2001:db8::7 2001:db8::1 56110 443\r\nx").await;
        assert_eq!((told, rest), (addresses("[2001:db8::7]:56110", "[2001:db8::1]:443"), b"x".to_vec()));
        assert_eq!(parse(b"PROXY UNKNOWN\r\nx").await, (Ok(Told::Unknown), b"x".to_vec()));
    }

    #[tokio::test]
    async fn a_binary_header_is_read_with_its_extensions_and_nothing_behind_it() {
        let extended = [FOUR, &[0x04, 0, 3, 1, 2, 3]].concat();
        for body in [FOUR, &extended] {
            let (told, rest) = parse(&[&binary(0x21, 0x11, body)[..], b"GET"].concat()).await;
            assert_eq!(told, addresses("192.0.2.7:56110", "198.51.100.1:443"));
            assert_eq!(rest, b"GET");
        }
        let six = [[0x20; 32].as_slice(), &[0, 80, 1, 187]].concat();
        let (told, _) = parse(&binary(0x21, 0x21, &six)).await;
        let address = "[2020:2020:2020:2020:2020:2020:2020:2020]";
        assert_eq!(told, addresses(&format!("{address}:80"), &format!("{address}:443")));
    }

    #[tokio::test]
    async fn a_balancer_that_speaks_for_itself_names_nobody() {
        assert_eq!(parse(&binary(0x20, 0x00, b"")).await.0, Ok(Told::Own));
        assert_eq!(parse(&binary(0x20, 0x11, FOUR)).await.0, Ok(Told::Own), "LOCAL, whatever addresses it has");
        assert_eq!(parse(&binary(0x21, 0x00, b"")).await.0, Ok(Told::Unknown));
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let missing = "the connection does not begin with a PROXY header";
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00",
            b"proxy TCP4 1.2.3.4 ",
        ] {
            assert_eq!(parse(bytes).await.0, Err(missing.to_owned()));
        }
        for bytes in [
            &b"PROXY TCP4 192.0.2.7 198.51.100.1 56110\r\n"[..],
            b"PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            b"PROXY TCP6 192.0.2.7 192.0.2.8 1 2\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 +1 443\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 443 x\r\n",
            b"PROXY UDP4 192.0.2.7 198.51.100.1 1 443\r\n",
            b"PROXY  TCP4 192.0.2.7 198.51.100.1 1 443\r\n",
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
            &binary(0x11, 0x11, FOUR),
            &binary(0x22, 0x11, FOUR),
            &binary(0x21, 0x12, FOUR),
            &binary(0x21, 0x11, &FOUR[..8]),
            &binary(0x21, 0x71, FOUR),
        ] {
            let (told, _) = parse(bytes).await;
            assert!(told.as_ref().is_err_and(|fault| fault.contains("malformed")), "{told:?}: {bytes:?}");
        }
    }

    #[tokio::test]
    async fn a_header_without_end_is_refused_early_and_a_cut_one_is_an_end() {
        let (told, rest) = parse(&binary(0x21, 0x11, &[0; 60_000])).await;
        assert_eq!(told.unwrap_err(), "the PROXY header has 60016 bytes, more than 4096");
        assert_eq!(rest.len(), 60_000, "none of it is read");
        for cut in [3, 14, 20] {
            let (told, _) = parse(&binary(0x21, 0x11, FOUR)[..cut]).await;
            assert!(told.unwrap_err().starts_with("the connection ended"), "{cut}");
        }
    }
}
