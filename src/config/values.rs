//! What strings of the configuration mean: durations, sizes, addresses. Pure.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use crate::diag::quoted;

/// Why a string can't be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// What is wrong.
    pub(super) message: String,
    /// What is said beside the carets.
    pub(super) label: &'static str,
    /// What to do.
    pub(super) help: String,
}

impl Fault {
    pub(super) fn new(message: impl Into<String>, label: &'static str, help: impl Into<String>) -> Self {
        Self { message: message.into(), label, help: help.into() }
    }
}

/// A duration as the configuration writes it, for the command line.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|fault| format!("{}; {}", fault.message, fault.help))
}

/// `"15m"`, `"1h30m"`, `"250ms"`: whole numbers with ms, s, m, h or d, the larger unit first.
pub(super) fn duration(text: &str) -> Result<Duration, Fault> {
    let fault = || {
        let help = "write a number with ms, s, m, h or d, such as \"30s\", \"15m\" or \"1h30m\"";
        Fault::new(format!("{} is not a duration", quoted(text)), "not a duration", help)
    };
    let (mut rest, mut total, mut larger) = (text, 0u64, u64::MAX);
    while !rest.is_empty() {
        let (number, after) = number(rest).ok_or_else(fault)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let millis = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(fault()),
        };
        if millis >= larger {
            return Err(fault());
        }
        let part = number.checked_mul(millis).filter(|part| *part <= LONGEST).ok_or_else(too_long)?;
        total = total.checked_add(part).filter(|total| *total <= LONGEST).ok_or_else(too_long)?;
        (rest, larger) = (after, millis);
    }
    if text.is_empty() { Err(fault()) } else { Ok(Duration::from_millis(total)) }
}

fn too_long() -> Fault {
    Fault::new("longer than 100 years", "too long", "write a shorter duration")
}

/// `"10MiB"`, `"512KB"`, `"100B"`; `None` is `"unlimited"`.
pub(super) fn size(text: &str) -> Result<Option<u64>, Fault> {
    if text == "unlimited" {
        return Ok(None);
    }
    let fault = || {
        let help = "write a number with B, KB, KiB, MB, MiB, GB or GiB, such as \"10MiB\"";
        Fault::new(format!("{} is not a size", quoted(text)), "not a size", help)
    };
    let (number, unit) = number(text).ok_or_else(fault)?;
    let factor: u64 = match unit {
        "B" => 1,
        "KB" => 1000,
        "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" => 1 << 30,
        _ => return Err(fault()),
    };
    number.checked_mul(factor).map(Some).ok_or_else(fault)
}

/// The digits at the front of `text`, and what follows them.
fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

/// `"127.0.0.1:8080"`, `"[::1]:8080"`; `localhost` is understood as the IPv4 loopback.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, Fault> {
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        let help = match text.parse::<u16>().or_else(|_| text.trim_start_matches(':').parse::<u16>()) {
            Ok(port) => {
                format!("write \"127.0.0.1:{port}\" for this machine only, \"0.0.0.0:{port}\" for every network")
            }
            Err(_) => "write an address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned(),
        };
        Fault::new(format!("{} is not an address to listen on", quoted(text)), "not an address with a port", help)
    })
}

/// `"10.0.0.0/8"`, or an address alone.
pub(super) fn network(text: &str) -> Result<IpNet, Fault> {
    let fault = |_| {
        let help = "write a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an address alone";
        Fault::new(format!("{} is not a network", quoted(text)), "not a network", help)
    };
    let net = match text.parse::<std::net::IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse::<IpNet>().map_err(fault)?,
    };
    if net.trunc() == net {
        return Ok(net);
    }
    let help = format!("write \"{}\" for the network, or \"{}\" for the address alone", net.trunc(), net.addr());
    Err(Fault::new(format!("{} has bits set behind its prefix", quoted(text)), "not the start of a network", help))
}

/// A header name that the gateway may set or remove.
pub(super) fn header_name(text: &str) -> Result<HeaderName, Fault> {
    let fault = |message: String, help: &str| Err(Fault::new(message, "can't be used here", help));
    if text.contains('_') {
        let help = format!("write `{}`: applications read both alike", text.replace('_', "-"));
        return fault(format!("the header name {} contains `_`, which many servers drop", quoted(text)), &help);
    }
    let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
        return fault(
            format!("{} is not a header name", quoted(text)),
            "use letters, digits and `-`, such as \"X-Forwarded-User\"",
        );
    };
    if NOT_OURS.contains(&name.as_str()) || name.as_str().starts_with("sec-") || name.as_str().starts_with("proxy-") {
        return fault(
            format!("the header {} carries the request itself", quoted(text)),
            "choose a name of its own, such as \"X-Forwarded-User\"",
        );
    }
    Ok(name)
}

/// Headers on which framing, routing or the credential hang.
const NOT_OURS: &[&str] = &[
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "content-type",
    "content-encoding",
    "upgrade",
    "http2-settings",
    "expect",
    "cookie",
    "set-cookie",
    "authorization",
    "www-authenticate",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-prefix",
    "origin",
    "date",
    "range",
    "location",
];

/// 100 years in milliseconds: what is longer is a mistake, and would overflow deadlines.
const LONGEST: u64 = 100 * 366 * 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_durations() {
        for (text, millis) in [
            ("0s", 0),
            ("250ms", 250),
            ("15m", 900_000),
            ("1h30m", 5_400_000),
            ("30d", 2_592_000_000),
            ("1m1s1ms", 61_001),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "15", "m", "1.5h", "-1s", "15 m", "1m1h", "1m1m", "1w", "١s", "99999999999999999999s", "40000d"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [("0B", 0), ("1KB", 1000), ("32KiB", 32768), ("10MiB", 10 << 20), ("2GB", 2_000_000_000)] {
            assert_eq!(size(text), Ok(Some(bytes)), "{text}");
        }
        assert_eq!(size("unlimited"), Ok(None));
        for bad in ["", "10", "MiB", "1.5MiB", "10mib", "10 MiB", "-1B", "99999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reads_addresses_and_networks() {
        assert!(socket_address("127.0.0.1:0").is_ok());
        assert!(socket_address("[::1]:80").is_ok());
        assert!(socket_address("localhost:80").is_ok());
        for bad in ["", "8080", ":8080", "127.0.0.1", "::1:80x", "example.com:80", "127.0.0.1:70000"] {
            assert!(socket_address(bad).is_err(), "{bad}");
        }
        assert_eq!(network("10.1.2.3").unwrap().to_string(), "10.1.2.3/32");
        assert!(network("10.0.0.0/8").is_ok());
        for bad in ["", "10.0.0.0/33", "10.0.0.1/8", "10.0.0/8", "unix"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refuses_header_names_that_carry_the_request() {
        assert!(header_name("X-Forwarded-User").is_ok());
        let bad =
            ["Host", "Connection", "Cookie", "AUTHORIZATION", "Content-Length", "Transfer-Encoding", "Set-Cookie"];
        let more = ["Te", "Upgrade", "Proxy-Authorization", "X_User", "X User", "", "X-Üser", "X:Y"];
        for name in bad.iter().chain(&more) {
            assert!(header_name(name).is_err(), "{name}");
        }
    }
}
