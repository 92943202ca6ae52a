//! What an X.509 certificate says of itself (RFC 5280): its names and until when it holds.
//!
//! Nothing is verified here: that is rustls's, of our own certificates and of clients'. What is not of the form that
//! it should be has no facts.

use time::{Date, Month, PrimitiveDateTime, Time};

/// What a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// From when on it holds, in seconds since 1970.
    pub not_before: i64,
    /// Until when.
    pub not_after: i64,
    /// The names of servers that it is for, in lower case: DNS names, `*.` before some, and addresses.
    pub names: Vec<String>,
    /// The last common name of its subject.
    pub common_name: Option<String>,
}

/// A certificate that a client has shown, and that was verified in the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The common name of its subject.
    pub name: Option<String>,
    /// Until when it holds, in seconds since 1970.
    pub not_after: i64,
    /// By which authorities and lists of revoked ones it was verified: their fingerprint.
    pub trust: Trust,
}

/// The fingerprint of what clients are believed by.
pub type Trust = [u8; 32];

impl Facts {
    /// Reads the certificate `der`.
    pub fn read(der: &[u8]) -> Option<Self> {
        let mut certificate = Reader(Reader(der).expect(SEQUENCE)?);
        let mut fields = Reader(certificate.expect(SEQUENCE)?);
        if fields.0.first() == Some(&VERSION) {
            fields.next()?;
        }
        // Serial number, algorithm, issuer.
        for _ in 0..3 {
            fields.next()?;
        }
        let mut validity = Reader(fields.expect(SEQUENCE)?);
        let (not_before, not_after) = (moment(validity.next()?)?, moment(validity.next()?)?);
        let common_name = common_name(fields.expect(SEQUENCE)?);
        // The public key.
        fields.next()?;
        let mut names = Vec::new();
        while let Some((tag, content)) = fields.next() {
            if tag == EXTENSIONS {
                names = alternative_names(Reader(content).expect(SEQUENCE)?)?;
            }
        }
        Some(Self { not_before, not_after, names, common_name })
    }

    /// Whether it is for the server `host`, which is in lower case, an IPv6 address in brackets (RFC 6125, section 6.4).
    pub fn covers(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.names.iter().any(|name| name_covers(name, host))
    }
}

/// Whether `name` of a certificate is `host` or, with `*`, a pattern of its first label.
fn name_covers(name: &str, host: &str) -> bool {
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(first, rest)| !first.is_empty() && rest == parent),
        None => name == host,
    }
}

/// The common name in a subject: a list of sets of attributes.
fn common_name(subject: &[u8]) -> Option<String> {
    let (mut sets, mut found) = (Reader(subject), None);
    while let Some((_, set)) = sets.next() {
        let mut attribute = Reader(Reader(set).expect(SEQUENCE)?);
        if attribute.expect(OBJECT)? == COMMON_NAME {
            let (tag, text) = attribute.next()?;
            let is_text = matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING);
            found = is_text.then(|| String::from_utf8(text.to_vec()).ok()).flatten();
        }
    }
    found
}

fn alternative_names(extensions: &[u8]) -> Option<Vec<String>> {
    let (mut extensions, mut names) = (Reader(extensions), Vec::new());
    while let Some((_, extension)) = extensions.next() {
        let mut extension = Reader(extension);
        if extension.expect(OBJECT)? != ALTERNATIVE_NAMES {
            continue;
        }
        let (mut tag, mut value) = extension.next()?;
        if tag == BOOLEAN {
            (tag, value) = extension.next()?;
        }
        if tag != OCTETS {
            return None;
        }
        let mut general = Reader(Reader(value).expect(SEQUENCE)?);
        while let Some((tag, name)) = general.next() {
            match tag {
                DNS_NAME => names.push(std::str::from_utf8(name).ok()?.to_ascii_lowercase()),
                ADDRESS => names.extend(address(name)),
                _ => {}
            }
        }
    }
    Some(names)
}

fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(four).to_string());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| std::net::Ipv6Addr::from(sixteen).to_string())
}

/// A time as RFC 5280 section 4.1.2.5 has it, in seconds since 1970.
fn moment((tag, text): (u8, &[u8])) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        UTC_TIME => {
            let year: i32 = text.get(..2)?.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?)
        }
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, text.get(4..)?),
        _ => return None,
    };
    if rest.len() != 10 || !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let two = |at: usize| rest.get(at..at + 2)?.parse::<u8>().ok();
    let date = Date::from_calendar_date(year, Month::try_from(two(0)?).ok()?, two(2)?).ok()?;
    let time = Time::from_hms(two(4)?, two(6)?, two(8)?).ok()?;
    Some(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp())
}

/// Values of DER, one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (length.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// The content of the next value, which has this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const OBJECT: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const ADDRESS: u8 = 0x87;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};

    use super::*;

    fn certificate() -> Vec<u8> {
        let names = ["App.Example.com", "*.apps.example.com", "10.0.0.1", "::1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, "büro");
        params.not_before = date_time_ymd(2026, 1, 2);
        params.not_after = date_time_ymd(2051, 3, 4);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn reads_names_and_both_forms_of_time() {
        let facts = Facts::read(&certificate()).unwrap();
        assert_eq!(facts.names, ["app.example.com", "*.apps.example.com", "10.0.0.1", "::1"]);
        assert_eq!(facts.common_name.as_deref(), Some("büro"));
        assert_eq!((facts.not_before, facts.not_after), (1_767_312_000, 2_561_500_800));
    }

    #[test]
    fn a_star_stands_for_one_label() {
        let facts = Facts::read(&certificate()).unwrap();
        for host in ["app.example.com", "a.apps.example.com", "10.0.0.1", "[::1]"] {
            assert!(facts.covers(host), "{host}");
        }
        for host in ["apps.example.com", "a.b.apps.example.com", ".apps.example.com", "example.com", "10.0.0.2", ""] {
            assert!(!facts.covers(host), "{host}");
        }
    }

    #[test]
    fn a_certificate_that_is_cut_or_changed_anywhere_is_no_panic() {
        let whole = certificate();
        for cut in 0..whole.len() {
            assert_eq!(Facts::read(&whole[..cut]), None, "{cut}");
        }
        let mut read = 0;
        for at in 0..whole.len() {
            for bits in [0x01, 0x80, 0xff] {
                let mut changed = whole.clone();
                changed[at] ^= bits;
                read += usize::from(Facts::read(&changed).is_some());
            }
        }
        assert!(read > 0, "a changed signature is not looked at");
    }
}
