//! What an X.509 certificate says of itself (RFC 5280): its names and until when it holds; and until when a list of revoked
//! ones counts.
//!
//! Nothing is verified here: that is rustls's, of our own certificates and of clients'. What is not of the form that
//! it should be has no facts.

use serde::{Deserialize, Serialize};
use time::{Date, Month, PrimitiveDateTime, Time};

use crate::clock::Timestamp;

/// From when until when something counts that was signed, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// The first moment.
    pub from: i64,
    /// The last moment.
    pub until: i64,
}

/// Where a moment lies in a [`Term`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Before it.
    NotYet,
    /// Within it.
    Holds,
    /// So near to its end that it is time for a new one.
    EndsSoon,
    /// After it.
    Over,
}

impl Term {
    /// The time in which the certificate `der` holds.
    pub fn of_certificate(der: &[u8]) -> Option<Self> {
        fields(der).and_then(|mut fields| Self::read(fields.expect(SEQUENCE)?))
    }

    /// The time from a list of revoked certificates to the next one (RFC 5280, sections 5.1.2.4 and 5.1.2.5), which it has
    /// to name.
    pub fn of_revocation_list(der: &[u8]) -> Option<Self> {
        let mut list = Reader(Reader(der).expect(SEQUENCE)?);
        let mut fields = Reader(list.expect(SEQUENCE)?);
        if fields.0.first() == Some(&INTEGER) {
            fields.next()?;
        }
        // Algorithm, issuer.
        for _ in 0..2 {
            fields.expect(SEQUENCE)?;
        }
        Self::read(fields.0)
    }

    /// The time in which both count.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }

    /// Where `now` lies in it. What counts for days only is renewed when a third of its time is left.
    pub fn standing(self, now: Timestamp) -> Standing {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now > self.until {
            Standing::Over
        } else if now < self.from {
            Standing::NotYet
        } else if self.until - now < SOON.min((self.until - self.from) / 3) {
            Standing::EndsSoon
        } else {
            Standing::Holds
        }
    }

    fn read(moments: &[u8]) -> Option<Self> {
        let mut moments = Reader(moments);
        Some(Self { from: moment(moments.next()?)?, until: moment(moments.next()?)? })
    }
}

/// What a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// When it holds.
    pub term: Term,
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
        let mut fields = fields(der)?;
        let term = Term::read(fields.expect(SEQUENCE)?)?;
        let common_name = common_name(fields.expect(SEQUENCE)?);
        // The public key.
        fields.next()?;
        let mut names = Vec::new();
        while let Some((tag, content)) = fields.next() {
            if tag == EXTENSIONS {
                names = alternative_names(Reader(content).expect(SEQUENCE)?)?;
            }
        }
        Some(Self { term, names, common_name })
    }

    /// Whether it is for the server `host`, which is in lower case, an IPv6 address in brackets (RFC 6125, section 6.4).
    pub fn covers(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.names.iter().any(|name| name_covers(name, host))
    }
}

/// What a certificate has from its validity on.
fn fields(der: &[u8]) -> Option<Reader<'_>> {
    let mut certificate = Reader(Reader(der).expect(SEQUENCE)?);
    let mut fields = Reader(certificate.expect(SEQUENCE)?);
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        // Serial number, algorithm, issuer.
        fields.expect(tag)?;
    }
    Some(fields)
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

/// When it is time to renew what counts for months.
const SOON: i64 = 14 * 86_400;

const BOOLEAN: u8 = 0x01;
const INTEGER: u8 = 0x02;
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
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
        KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
    };

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
        let term = Term { from: 1_767_312_000, until: 2_561_500_800 };
        assert_eq!((facts.term, Term::of_certificate(&certificate())), (term, Some(term)));
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
    fn a_term_ends_soon_and_then_is_over() {
        let (begins, ends) = (1_767_225_600, 1_775_001_600);
        let term = Term { from: begins, until: ends };
        let at = |seconds: i64| term.standing(Timestamp::from_secs(u64::try_from(seconds).unwrap()));
        assert_eq!(at(begins - 1), Standing::NotYet);
        assert_eq!([at(begins), at(ends - SOON)], [Standing::Holds; 2]);
        assert_eq!([at(ends - SOON + 1), at(ends)], [Standing::EndsSoon; 2]);
        assert_eq!(at(ends + 1), Standing::Over);
        let day = Term { from: 0, until: 86_400 };
        let short = |left: u64| day.standing(Timestamp::from_secs(86_400 - left));
        assert_eq!((short(28_800), short(28_799)), (Standing::Holds, Standing::EndsSoon));
        let other = Term { from: begins + 1, until: ends + 1 };
        assert_eq!(term.both(other), Term { from: begins + 1, until: ends });
    }

    /// Lists of revoked certificates with and without a certificate in them.
    fn lists() -> Vec<Vec<u8>> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        let issuer = Issuer::new(params, KeyPair::generate().unwrap());
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(7),
            revocation_time: date_time_ymd(2025, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let lists = [vec![], vec![revoked]].map(|revoked_certs| CertificateRevocationListParams {
            this_update: date_time_ymd(2026, 1, 2),
            next_update: date_time_ymd(2051, 3, 4),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs,
            key_identifier_method: KeyIdMethod::Sha256,
        });
        lists.iter().map(|list| list.signed_by(&issuer).unwrap().der().to_vec()).collect()
    }

    #[test]
    fn a_list_of_revoked_certificates_says_when_the_next_one_comes() {
        for list in lists() {
            let term = Term { from: 1_767_312_000, until: 2_561_500_800 };
            assert_eq!(Term::of_revocation_list(&list), Some(term));
            assert_eq!(Term::of_certificate(&list), None);
            for cut in 0..list.len() {
                assert_eq!(Term::of_revocation_list(&list[..cut]), None, "{cut}");
            }
        }
        assert_eq!(Term::of_revocation_list(&certificate()), None);
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
                let _none_or_another = Term::of_revocation_list(&changed);
            }
        }
        assert!(read > 0, "a changed signature is not looked at");
    }
}
