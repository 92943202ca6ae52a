//! A page of metrics, as Prometheus's text (version 0.0.4) or as OpenMetrics 1.0.

use std::fmt::{self, Write as _};

use super::count::{BOUNDS, Reading, Words};
use super::family::{Family, GATEWAY_DURATION, Kind, REQUESTS, RESPONSES, UPSTREAM_DURATION};
use super::handles::{CLASSES, Named, Outcome, Route};

/// How a page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a client that says `accept` likes best; one that does not care gets Prometheus's text.
    pub fn wanted(accept: &str) -> Self {
        let (mut open, mut plain) = (0_u16, 0_u16);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1000, thousandths);
            match media.as_str() {
                "application/openmetrics-text" => open = open.max(quality),
                "text/plain" => plain = plain.max(quality),
                _ => {}
            }
        }
        if open > 0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The media type of a page.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A quality value (RFC 9110, section 12.4.2); what is none counts as not wanted.
fn thousandths(text: &str) -> u16 {
    let quality = text.parse::<f32>().ok().filter(|quality| (0.0..=1.0).contains(quality));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1000")]
    quality.map_or(0, |quality| (quality * 1000.0).round() as u16)
}

/// A page that is being written.
#[derive(Debug)]
pub struct Page {
    format: Format,
    text: String,
}

impl Page {
    /// Nothing yet.
    pub const fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// Begins a metric; its samples follow at once.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let name = match (self.format, family.kind) {
            // OpenMetrics names the family, and its samples end in `_total`.
            (Format::OpenMetrics, Kind::Counter) => family.name.strip_suffix("_total").unwrap_or(family.name),
            _ => family.name,
        };
        let kind = family.kind.name();
        let _infallible = match self.format {
            Format::Prometheus => write!(self.text, "# HELP {name} {}\n# TYPE {name} {kind}\n", family.help),
            Format::OpenMetrics => {
                let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit));
                let unit = unit.map(|unit| format!("# UNIT {name} {unit}\n")).unwrap_or_default();
                write!(self.text, "# TYPE {name} {kind}\n{unit}# HELP {name} {}\n", family.help)
            }
        };
        Samples { page: self, family }
    }

    /// The four metrics of every route that anyone has asked for.
    pub fn routes(&mut self, routes: &Named<Route>) {
        let asked: Vec<_> =
            routes.all().into_iter().filter_map(|(name, route)| Some((name, route.counts()?))).collect();
        let mut samples = self.family(&REQUESTS);
        for (name, counts) in &asked {
            for (outcome, count) in Outcome::ALL.iter().zip(counts.outcomes) {
                samples.value(&[name, outcome.name()], count);
            }
        }
        let mut samples = self.family(&RESPONSES);
        for (name, counts) in &asked {
            for (class, count) in CLASSES.iter().zip(counts.classes) {
                samples.value(&[name, class], count);
            }
        }
        let mut samples = self.family(&GATEWAY_DURATION);
        asked.iter().for_each(|(name, counts)| samples.histogram(&[name], &counts.own));
        let mut samples = self.family(&UPSTREAM_DURATION);
        asked.iter().for_each(|(name, counts)| samples.histogram(&[name], &counts.upstream));
    }

    /// The page.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// The samples of one metric.
#[derive(Debug)]
pub struct Samples<'a> {
    page: &'a mut Page,
    family: &'static Family,
}

impl Samples<'_> {
    /// One sample. `labels` are the values of the family's labels, in its order.
    pub fn value(&mut self, labels: &[&str], value: impl fmt::Display) {
        self.line("", labels, None, value);
    }

    /// One sample for each word, which is the last label's value.
    pub fn words(&mut self, labels: &[&str], words: &Words) {
        for (word, count) in words.values() {
            let mut all = labels.to_vec();
            all.push(word);
            self.value(&all, count);
        }
    }

    fn histogram(&mut self, labels: &[&str], reading: &Reading) {
        let mut count = 0;
        for (place, bucket) in reading.buckets.iter().enumerate() {
            count += bucket;
            let bound = BOUNDS.get(place).map_or_else(|| "+Inf".to_owned(), |micros| self.bound(*micros));
            self.line("_bucket", labels, Some(&bound), count);
        }
        self.line("_sum", labels, None, seconds(reading.micros));
        self.line("_count", labels, None, count);
    }

    /// A bucket's bound in seconds: OpenMetrics wants a point in every number.
    fn bound(&self, micros: u64) -> String {
        match self.page.format {
            Format::Prometheus => format!("{}", seconds(micros)),
            Format::OpenMetrics => format!("{:?}", seconds(micros)),
        }
    }

    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, value: impl fmt::Display) {
        debug_assert_eq!(labels.len(), self.family.labels.len(), "labels of {}", self.family.name);
        let text = &mut self.page.text;
        text.push_str(self.family.name);
        text.push_str(suffix);
        let named = self.family.labels.iter().copied().zip(labels.iter().copied());
        for (place, (name, label)) in named.chain(bound.map(|bound| ("le", bound))).enumerate() {
            text.push(if place == 0 { '{' } else { ',' });
            text.push_str(name);
            text.push_str("=\"");
            escape(label, text);
            text.push('"');
        }
        let close = if labels.is_empty() && bound.is_none() { "" } else { "}" };
        let _infallible = writeln!(text, "{close} {value}");
    }
}

fn escape(label: &str, into: &mut String) {
    for c in label.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '"' => into.push_str("\\\""),
            '\n' => into.push_str("\\n"),
            c => into.push(c),
        }
    }
}

/// Microseconds in seconds.
fn seconds(micros: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for centuries")]
    let micros = micros as f64;
    micros / 1e6
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::family::{CONNECTIONS, LOGINS, STORE_STALENESS};

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        let mut samples = page.family(&LOGINS);
        samples.words(&[], &Words::new(&["success"]));
        page.family(&CONNECTIONS).value(&["a\"b\\c\nd"], 3);
        page.family(&STORE_STALENESS).value(&[], 0.25);
        page.finish()
    }

    #[test]
    fn is_written_in_both_formats() {
        assert_eq!(
            page(Format::Prometheus),
            "# HELP portcullis_logins_total Names and passwords that were judged, by what came of them.\n\
             # TYPE portcullis_logins_total counter\n\
             portcullis_logins_total{result=\"success\"} 0\n\
             # HELP portcullis_connections_open Open client connections.\n\
             # TYPE portcullis_connections_open gauge\n\
             portcullis_connections_open{listener=\"a\\\"b\\\\c\\nd\"} 3\n\
             # HELP portcullis_store_staleness_seconds \
             Time since what is known of revocations was last brought up to date.\n\
             # TYPE portcullis_store_staleness_seconds gauge\n\
             portcullis_store_staleness_seconds 0.25\n"
        );
        let open = page(Format::OpenMetrics);
        assert!(open.starts_with("# TYPE portcullis_logins counter\n# HELP portcullis_logins Names"), "{open}");
        assert!(open.contains("\nportcullis_logins_total{result=\"success\"} 0\n"), "{open}");
        assert!(open.contains("\n# UNIT portcullis_store_staleness_seconds seconds\n"), "{open}");
        assert!(open.ends_with("\n# EOF\n"), "{open}");
    }

    #[test]
    fn buckets_are_cumulative_and_routes_that_nobody_asked_for_are_left_out() {
        let routes: Named<Route> = Named::default();
        let (asked, _other) = (routes.find("asked"), routes.find("other"));
        for micros in [50, 300, 70_000_000] {
            asked.count(Outcome::Permit, 200, Duration::from_micros(micros), None);
        }
        let mut page = Page::new(Format::Prometheus);
        page.routes(&routes);
        let text = page.finish();
        for line in [
            "portcullis_requests_total{route=\"asked\",outcome=\"permit\"} 3",
            "portcullis_requests_total{route=\"asked\",outcome=\"deny\"} 0",
            "portcullis_responses_total{route=\"asked\",code=\"2xx\"} 3",
            "portcullis_gateway_duration_seconds_bucket{route=\"asked\",le=\"0.0001\"} 1",
            "portcullis_gateway_duration_seconds_bucket{route=\"asked\",le=\"1\"} 2",
            "portcullis_gateway_duration_seconds_bucket{route=\"asked\",le=\"+Inf\"} 3",
            "portcullis_gateway_duration_seconds_sum{route=\"asked\"} 70.00035",
            "portcullis_gateway_duration_seconds_count{route=\"asked\"} 3",
            "portcullis_upstream_duration_seconds_count{route=\"asked\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("other"), "{text}");
        let mut page = Page::new(Format::OpenMetrics);
        page.routes(&routes);
        assert!(page.finish().contains("le=\"1.0\"} 2\n"));
    }

    #[test]
    fn gives_what_the_client_likes_best() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, wanted) in [
            (prometheus, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            ("text/plain;q=0.9, application/openmetrics-text;q=0.5", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=nan", Format::Prometheus),
            ("text/html,application/xhtml+xml", Format::Prometheus),
        ] {
            assert_eq!(Format::wanted(accept), wanted, "{accept}");
        }
    }
}
