//! From when until when a certificate holds (RFC 5280, section 4.1.2.5), read out of its DER. Pure.
//!
//! rustls judges certificates when it meets them; this is only to say beforehand that it will refuse.

use time::{Date, Month, PrimitiveDateTime, Time};

use crate::clock::Timestamp;

/// From when until when a certificate holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

/// What `certificate` says; `None` where it is no certificate.
pub(super) fn validity(certificate: &[u8]) -> Option<Validity> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    // The version, which version 1 leaves out.
    if rest.first() == Some(&VERSION) {
        (_, rest) = element(rest, VERSION)?;
    }
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        // Serial number, signature, issuer.
        (_, rest) = element(rest, tag)?;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (from, rest) = moment(validity)?;
    let (until, _) = moment(rest)?;
    Some(Validity { from, until })
}

/// The content of the element with `tag` at the front of `der`, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    if first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// A `UTCTime` or `GeneralizedTime`, as certificates have them: to the second, in UTC.
fn moment(der: &[u8]) -> Option<(Timestamp, &[u8])> {
    let is_short = der.first() == Some(&UTC_TIME);
    let (text, rest) = element(der, if is_short { UTC_TIME } else { GENERALIZED_TIME })?;
    let digits = text.strip_suffix(b"Z")?;
    let (year, digits) = digits.split_at_checked(if is_short { 2 } else { 4 })?;
    let pair = |at: usize| number(digits.get(2 * at..2 * at + 2)?);
    let year = match (number(year)?, is_short) {
        (year, false) => year,
        (year @ 0..50, true) => 2000 + year,
        (year, true) => 1900 + year,
    };
    if digits.len() != 10 {
        return None;
    }
    let small = |at| u8::try_from(pair(at)?).ok();
    let month = Month::try_from(small(0)?).ok()?;
    let date = Date::from_calendar_date(i32::try_from(year).ok()?, month, small(1)?).ok()?;
    let time = Time::from_hms(small(2)?, small(3)?, small(4)?).ok()?;
    let seconds = PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
    Some((Timestamp::from_secs(u64::try_from(seconds).unwrap_or(0)), rest))
}

fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(from: i32, until: i32) -> Vec<u8> {
        let mut params = CertificateParams::new(["app".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(from, 2, 3), date_time_ymd(until, 12, 31));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn reads_both_forms_of_time() {
        for (from, until) in [(1999, 2049), (2024, 2050), (2051, 2999)] {
            let seconds = |moment: time::OffsetDateTime| u64::try_from(moment.unix_timestamp()).unwrap();
            let expected = Validity {
                from: Timestamp::from_secs(seconds(date_time_ymd(from, 2, 3))),
                until: Timestamp::from_secs(seconds(date_time_ymd(until, 12, 31))),
            };
            assert_eq!(validity(&certificate(from, until)), Some(expected));
        }
    }

    #[test]
    fn half_a_certificate_is_none() {
        let whole = certificate(2020, 2030);
        for end in 0..100 {
            assert_eq!(validity(&whole[..end]), None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..300, byte: u8) {
            let _ = validity(&bytes);
            let mut certificate = certificate(2020, 2030);
            if let Some(place) = certificate.get_mut(at) {
                *place = byte;
            }
            let _ = validity(&certificate);
        }
    }
}
