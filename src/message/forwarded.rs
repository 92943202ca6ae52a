//! What proxies in front of the gateway say of a client: believed from trusted peers only, and told anew to the
//! application. `X-Forwarded-*` by custom, `Forwarded` by RFC 7239.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::added::Added;
use super::headers::{fold_into, folded, initial, remove_where};
use super::host::{Host, HostError};
use super::rfc7239::elements;
use super::survey::Survey;

/// The address of the client: the rightmost that is not a trusted proxy's. An IPv4 address in IPv6 clothes is IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddr(pub IpAddr);

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether the client speaks to the foremost proxy over TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The scheme that `text` names: a WebSocket's is that of the request that opens it.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.eq_ignore_ascii_case(b"https") || text.eq_ignore_ascii_case(b"wss") {
            Some(Self::Https)
        } else if text.eq_ignore_ascii_case(b"http") || text.eq_ignore_ascii_case(b"ws") {
            Some(Self::Http)
        } else {
            None
        }
    }
}

/// Stands for the peer of a connection on a unix socket, which has no address. No peer of the network has this one.
pub const NO_ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// Whose forwarded headers are believed, and which of them.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Peers that are proxies of ours.
    pub proxies: Vec<IpNet>,
    /// Whether whoever connects to a unix socket is one too.
    pub unix: bool,
    /// Whether `X-Forwarded-For` is read.
    pub x_forwarded_for: bool,
    /// Whether `X-Forwarded-Proto` is read.
    pub x_forwarded_proto: bool,
    /// Whether `X-Forwarded-Host` is read.
    pub x_forwarded_host: bool,
    /// Whether `Forwarded` is read; where it is there, it counts before the others.
    pub forwarded: bool,
}

/// What is known of the way that a request came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client.
    pub client: ClientAddr,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Whether that is a proxy of ours.
    pub peer_is_trusted: bool,
    /// The scheme that a trusted peer names.
    pub scheme: Option<Scheme>,
    /// The host that a trusted peer names.
    pub host: Option<Host>,
    /// The peer as `X-Forwarded-For` names it, where that is there already.
    pub peer_value: Option<HeaderValue>,
    /// The host as `X-Forwarded-Host` names it, where that is there already and no trusted peer names another.
    pub host_value: Option<HeaderValue>,
}

impl Trust {
    /// What `headers` say of a request from `peer`.
    ///
    /// # Errors
    /// A host that a trusted peer names and that is none: a request has one host.
    pub fn read(&self, peer: IpAddr, headers: &HeaderMap) -> Result<Origin, HostError> {
        let peer = peer.to_canonical();
        let peer_is_trusted = self.trusts_peer(peer);
        let mut origin = Origin {
            client: ClientAddr(peer),
            peer,
            peer_is_trusted,
            scheme: None,
            host: None,
            peer_value: None,
            host_value: None,
        };
        if !peer_is_trusted {
            return Ok(origin);
        }
        if self.x_forwarded_for {
            let entries = list(headers, &X_FORWARDED_FOR).into_iter().map(parse_node);
            origin.client = self.client(peer, entries);
        }
        if self.x_forwarded_proto {
            origin.scheme = list(headers, &X_FORWARDED_PROTO).last().copied().and_then(Scheme::parse);
        }
        if self.x_forwarded_host
            && let Some(host) = list(headers, &X_FORWARDED_HOST).last()
        {
            origin.host = Some(Host::parse(host)?);
        }
        if self.forwarded && headers.contains_key(FORWARDED) {
            self.read_rfc_7239(&mut origin, headers)?;
        }
        Ok(origin)
    }

    fn read_rfc_7239(&self, origin: &mut Origin, headers: &HeaderMap) -> Result<(), HostError> {
        let elements = elements(headers);
        let nodes = elements.iter().map(|element| parse_node(element.node.as_ref()?.as_bytes()));
        origin.client = self.client(origin.peer, nodes);
        let Some(last) = elements.last() else {
            return Ok(());
        };
        if let Some(scheme) = last.proto.as_ref().and_then(|proto| Scheme::parse(proto.as_bytes())) {
            origin.scheme = Some(scheme);
        }
        if let Some(host) = &last.host {
            origin.host = Some(Host::parse(host.as_bytes())?);
        }
        Ok(())
    }

    /// Walks from the peer towards the client for as long as addresses are trusted; what is no address ends the walk.
    fn client(&self, peer: IpAddr, entries: impl DoubleEndedIterator<Item = Option<IpAddr>>) -> ClientAddr {
        let mut client = peer;
        for entry in entries.rev() {
            let Some(address) = entry else { break };
            client = address;
            if !self.trusts(address) {
                break;
            }
        }
        ClientAddr(client)
    }

    /// Whether the peer of a connection is a proxy of ours; [`NO_ADDRESS`] is one on a unix socket.
    pub fn trusts_peer(&self, peer: IpAddr) -> bool {
        if peer == NO_ADDRESS { self.unix } else { self.trusts(peer) }
    }

    /// Whether `address` is that of a proxy of ours.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.proxies.iter().any(|network| network.contains(&address))
    }

    /// Replaces what a client or a proxy said of itself by what the gateway knows: `X-Forwarded-For` is extended
    /// behind a trusted peer and replaced otherwise, `X-Forwarded-Proto` and `-Host` are set, and every header of this
    /// kind that is not read goes, in whatever spelling. `host` is the one that the request was judged for.
    pub fn apply(&self, headers: &mut HeaderMap, origin: &Origin, scheme: Scheme, host: &Host) {
        let (survey, mut added) = (Survey::of(headers), Added::default());
        self.apply_noted(headers, &mut added, &survey, origin, scheme, host);
        added.settle(headers);
    }

    /// The same for a head with this `survey`. What the gateway knows goes to `added`.
    pub fn apply_noted(
        &self,
        headers: &mut HeaderMap,
        added: &mut Added,
        survey: &Survey,
        origin: &Origin,
        scheme: Scheme,
        host: &Host,
    ) {
        let chain = self.chain(headers, origin);
        if survey.may_oddly_begin(TELLING) {
            remove_where(headers, |name| is_forwarded_name(name.as_str()));
        }
        if let Some(chain) = chain {
            added.set(&X_FORWARDED_FOR, chain);
        }
        added.set(&X_FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
        let written = || headers.get(HOST).filter(|written| host.is_written(written.as_bytes())).cloned();
        if let Some(host) =
            origin.host_value.clone().or_else(written).or_else(|| HeaderValue::try_from(host.to_string()).ok())
        {
            added.set(&X_FORWARDED_HOST, host);
        }
    }

    /// `None`: nothing is known of anyone.
    fn chain(&self, headers: &HeaderMap, origin: &Origin) -> Option<HeaderValue> {
        if let Some(peer) = origin.peer_value.as_ref().filter(|_| !origin.peer_is_trusted) {
            return Some(peer.clone());
        }
        let mut chain = Vec::new();
        if origin.peer_is_trusted {
            if self.x_forwarded_for {
                for value in list(headers, &X_FORWARDED_FOR) {
                    chain.extend_from_slice(value);
                    chain.extend_from_slice(b", ");
                }
            }
            // Known from `Forwarded` alone, or after junk: the chain must not end without the client.
            if chain.is_empty() && origin.client.0 != origin.peer {
                chain.extend_from_slice(format!("{}, ", origin.client).as_bytes());
            }
        }
        if origin.peer == NO_ADDRESS {
            // What a proxy on a unix socket says ends with the client.
            let without_comma = chain.len().saturating_sub(2);
            chain.truncate(without_comma);
        } else {
            chain.extend_from_slice(origin.peer.to_string().as_bytes());
        }
        let chain = HeaderValue::from_bytes(&chain).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        (!chain.is_empty()).then_some(chain)
    }
}

/// The members of a list over all fields of a name, as bytes: what a client writes into a field must not hide what a
/// proxy has added to it.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a [u8]> {
    let fields = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let members = fields.flat_map(|field| field.split(|&byte| byte == b',')).map(<[u8]>::trim_ascii);
    members.filter(|member| !member.is_empty()).collect()
}

/// An address with or without port, an IPv6 address with or without brackets.
fn parse_node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let is_port = |port: &str| !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']')?;
        let port_fits = rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port);
        let address = address.parse::<Ipv6Addr>().ok()?;
        return port_fits.then(|| IpAddr::V6(address).to_canonical());
    }
    let (address, port) = text.split_once(':')?;
    if is_port(port) { address.parse::<std::net::Ipv4Addr>().ok().map(IpAddr::V4) } else { None }
}

/// Whether `name` folds to one by which proxies tell of clients. Identity headers, and those that tell an application
/// another path, are in [`super::headers::IdentityNames`].
pub(super) fn is_forwarded_name(name: &str) -> bool {
    if folded(name).next().is_none_or(|first| TELLING & initial(first) == 0) {
        return false;
    }
    // What does not fit is longer than any of them.
    let mut buffer = [0; LONGEST];
    fold_into(&mut buffer, name).is_some_and(|name| FORWARDED_NAMES.iter().any(|listed| listed.as_bytes() == name))
}

static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED: HeaderName = http::header::FORWARDED;

/// What the names begin with by which proxies tell of clients.
const TELLING: u64 = initial(b'x') | initial(b'f') | initial(b't') | initial(b'c');

/// The length of the longest of them.
const LONGEST: usize = 21;

/// Folded.
const FORWARDED_NAMES: [&str; 25] = [
    "forwarded",
    "forwardedfor",
    "forwardedproto",
    "forwardedhost",
    "xforwarded",
    "xforwardedfor",
    "xforwardedproto",
    "xforwardedprotocol",
    "xforwardedscheme",
    "xforwardedssl",
    "xforwardedhttps",
    "xforwardedhost",
    "xforwardedport",
    "xforwardedserver",
    "xforwardedby",
    "xforwardedclientcert",
    "xoriginalhost",
    "xoriginalforwardedfor",
    "xrealip",
    "xclientip",
    "xclusterclientip",
    "xurlscheme",
    "trueclientip",
    "clientip",
    "cfconnectingip",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trust() -> Trust {
        Trust {
            proxies: ["10.0.0.0/8", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec(),
            x_forwarded_for: true,
            x_forwarded_proto: true,
            ..Trust::default()
        }
    }

    fn everything() -> Trust {
        Trust { x_forwarded_host: true, forwarded: true, ..trust() }
    }

    fn map(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let name = HeaderName::try_from(*name).unwrap();
            headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    fn read(trust: &Trust, peer: &str, fields: &[(&str, &str)]) -> Origin {
        trust.read(peer.parse().unwrap(), &map(fields)).unwrap()
    }

    #[test]
    fn the_client_is_the_rightmost_that_is_not_trusted() {
        let cases: [(&str, &[&str], &str); 18] = [
            ("192.0.2.1", &["1.1.1.1"], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("::ffff:10.0.0.1", &["1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6, 1.1.1.1,10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["6.6.6.6", "1.1.1.1", "10.0.0.2"], "1.1.1.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["1.1.1.1:4711"], "1.1.1.1"),
            ("10.0.0.1", &["[2001:db9::1]:4711"], "2001:db9::1"),
            ("10.0.0.1", &["[2001:db9::1]"], "2001:db9::1"),
            ("10.0.0.1", &["2001:db9::1, 2001:db8::7"], "2001:db9::1"),
            ("10.0.0.1", &["::ffff:1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["1.1.1.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["1.1.1.1, é, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["é, 1.1.1.1"], "1.1.1.1"),
            ("10.0.0.1", &["1.1.1.1, 10.0.0.256, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["1.1.1.1,, ,"], "1.1.1.1"),
        ];
        for (peer, values, client) in cases {
            let fields: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
            let origin = read(&trust(), peer, &fields);
            assert_eq!(origin.client.to_string(), client, "{peer} {values:?}");
        }
    }

    #[test]
    fn junk_is_no_address() {
        for junk in [
            "",
            "unknown",
            "_hidden",
            "1.1.1",
            "1.1.1.1:",
            "1.1.1.1:x",
            "1.1.1.1:+80",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[1.1.1.1]",
            "fe80::1%eth0",
            "localhost",
            "\"1.1.1.1\"",
            "1.1.1.1 2.2.2.2",
            "127.1",
            "0x7f.0.0.1",
        ] {
            assert_eq!(parse_node(junk.as_bytes()), None, "{junk}");
        }
    }

    #[test]
    fn scheme_and_host_come_from_trusted_peers_only() {
        let fields = [("x-forwarded-proto", "http, HTTPS"), ("x-forwarded-host", "evil, App.Example.:443")];
        let stranger = read(&everything(), "192.0.2.1", &fields);
        assert_eq!((stranger.scheme, stranger.host), (None, None));
        let proxy = read(&everything(), "10.0.0.1", &fields);
        assert_eq!(proxy.scheme, Some(Scheme::Https));
        assert_eq!(proxy.host.unwrap().to_string(), "app.example:443");
        let not_read = read(&trust(), "10.0.0.1", &fields);
        assert_eq!(not_read.host, None);
        assert_eq!(read(&trust(), "10.0.0.1", &[("x-forwarded-proto", "ftp")]).scheme, None);
        for host in ["a/b", "é"] {
            let broken = map(&[("x-forwarded-host", host)]);
            assert_eq!(everything().read("10.0.0.1".parse().unwrap(), &broken), Err(HostError::Invalid), "{host}");
        }
    }

    #[test]
    fn reads_rfc_7239() {
        let cases: [(&[&str], &str); 13] = [
            (&["for=1.1.1.1"], "1.1.1.1"),
            (&["For=\"[2001:db9::1]:4711\";proto=https"], "2001:db9::1"),
            (&["for=6.6.6.6, for=1.1.1.1;by=10.0.0.9", "for=10.0.0.2"], "1.1.1.1"),
            (&["for=1.1.1.1, for=unknown"], "10.0.0.1"),
            (&["for=1.1.1.1, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["for=1.1.1.1;for=2.2.2.2"], "10.0.0.1"),
            (&["for=6.6.6.6, junk"], "10.0.0.1"),
            (&["for=\"1.1.1.1"], "10.0.0.1"),
            (&["for=6.6.6.6;host=\"a,for=2.2.2.2\\\"\", for=\"1.1\\.1.1\""], "1.1.1.1"),
            (&["proto=https"], "10.0.0.1"),
            (&["for=\"6.6.6.6, for=1.1.1.1"], "1.1.1.1"),
            (&["for=\"\\, for=\"1.1.1.1\""], "1.1.1.1"),
            (&["for=é, for=1.1.1.1"], "1.1.1.1"),
        ];
        for (values, client) in cases {
            let headers: HeaderMap =
                values.iter().map(|value| (FORWARDED, HeaderValue::from_bytes(value.as_bytes()).unwrap())).collect();
            let origin = everything().read("10.0.0.1".parse().unwrap(), &headers).unwrap();
            assert_eq!(origin.client.to_string(), client, "{values:?}");
            let ignored = trust().read("10.0.0.1".parse().unwrap(), &headers).unwrap();
            assert_eq!(ignored.client.to_string(), "10.0.0.1", "{values:?}");
        }
        let origin =
            read(&everything(), "10.0.0.1", &[("forwarded", "for=1.1.1.1;proto=https;host=\"a.example:8443\"")]);
        assert_eq!(origin.scheme, Some(Scheme::Https));
        assert_eq!(origin.host.unwrap().to_string(), "a.example:8443");
    }

    #[test]
    fn tells_the_application_what_the_gateway_knows() {
        let lies = [
            ("x-forwarded-for", "6.6.6.6, 1.1.1.1"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-server", "evil"),
            ("x-forwarded-ssl", "on"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
            ("true-client-ip", "6.6.6.6"),
            ("accept", "*/*"),
        ];
        for (peer, chain) in [("192.0.2.1", "192.0.2.1"), ("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.1")] {
            let mut headers = map(&lies);
            let origin = trust().read(peer.parse().unwrap(), &headers).unwrap();
            trust().apply(&mut headers, &origin, Scheme::Http, &Host::parse(b"app.example:80").unwrap());
            let expected = map(&[
                ("accept", "*/*"),
                ("x-forwarded-for", chain),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "app.example:80"),
            ]);
            assert_eq!(headers, expected, "{peer}");
        }
    }

    #[test]
    fn the_chain_names_a_client_known_from_forwarded() {
        let by_forwarded = Trust { x_forwarded_for: false, ..everything() };
        let mut headers = map(&[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "6.6.6.6")]);
        let origin = by_forwarded.read("10.0.0.1".parse().unwrap(), &headers).unwrap();
        by_forwarded.apply(&mut headers, &origin, Scheme::Http, &Host::parse(b"h").unwrap());
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 10.0.0.1");
        assert!(!headers.contains_key("forwarded"));
    }

    proptest! {
        #[test]
        fn never_panics(value in "[a-z0-9=\",;:.\\[\\] \\\\é]{0,60}", peer in "10\\.0\\.0\\.[1-9]") {
            let mut headers = map(&[("forwarded", &value), ("x-forwarded-for", &value), ("x-forwarded-proto", &value)]);
            if let Ok(origin) = everything().read(peer.parse().unwrap(), &headers) {
                everything().apply(&mut headers, &origin, Scheme::Https, &Host::parse(b"h").unwrap());
                prop_assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
            }
        }
    }
}
