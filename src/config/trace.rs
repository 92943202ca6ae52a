//! `[trace]`: where spans go, and of how many requests.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::issuers::certificates;
use super::reader::{Context, Item, Table, Written};
use super::values::Fault;
use super::{HostPort, Trace, url};
use crate::diag::{Diagnostic, quoted};

/// `[trace]` as written.
pub(super) struct Raw {
    /// The collector, and whether it is reached over TLS.
    otlp: Option<Written<(HostPort, bool)>>,
    ca: Option<Written<PathBuf>>,
    sample: Option<Written<f64>>,
    service: Option<Written<String>>,
}

impl Raw {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        table.require("otlp", "add otlp = \"http://127.0.0.1:4318\", where the collector takes OTLP over HTTP");
        let raw = Self {
            otlp: table.take("otlp").and_then(|item| {
                item.mask_user();
                item.parsed("bad-url", collector)
            }),
            ca: table.take("ca").and_then(|item| certificates(&item)),
            sample: table.take("sample").and_then(|item| share(&item)),
            service: table.take("service").and_then(|item| item.text()),
        };
        table.finish();
        raw
    }

    pub(super) fn resolve(self, cx: &Context<'_>) -> Option<Trace> {
        let (collector, https) = self.otlp?.into_inner();
        if let Some(ca) = self.ca.as_ref().filter(|_| !https) {
            let finding = Diagnostic::error("bad-url", "`ca` is for a collector over https, and `otlp` is http");
            cx.report(finding.at(ca.span()).help("write https:// in `otlp`, or leave `ca` out"));
        }
        Some(Trace {
            collector,
            https,
            ca: self.ca.map(Spanned::into_inner),
            sample: self.sample.map_or(DEFAULT_SAMPLE, Spanned::into_inner),
            service: self.service.map_or_else(|| "portcullis".to_owned(), Spanned::into_inner),
        })
    }
}

/// `http://host:port` or `https://host:port`.
fn collector(text: &str) -> Result<(HostPort, bool), Fault> {
    let origin = url::origin(text)?;
    let (https, usual) = match origin.scheme.as_str() {
        "http" => (false, 80),
        "https" => (true, 443),
        other => {
            let message = format!("{} is not a scheme that spans are sent by", quoted(other));
            return Err(Fault::new(message, "neither http nor https", format!("write \"https://{}\"", origin.host)));
        }
    };
    let host = origin.host.trim_matches(['[', ']']).to_owned();
    Ok((HostPort { host, port: origin.port.unwrap_or(usual) }, https))
}

/// A number from 0 to 1.
fn share(item: &Item<'_>) -> Option<Written<f64>> {
    let number: Option<f64> = match item.value.get_ref() {
        DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
        DeValue::Integer(number) => number.as_str().parse().ok(),
        _ => return item.wrong_type("a number from 0 to 1", Some("write sample = 0.1 for one request in ten")),
    };
    match number.filter(|number| (0.0..=1.0).contains(number)) {
        Some(number) => Some(Spanned::new(item.span(), number)),
        None => {
            let finding = Diagnostic::error("out-of-range", format!("`{}` must be between 0 and 1", item.name));
            item.cx.report(finding.at(item.span()).help("write sample = 0.1 for one request in ten"));
            None
        }
    }
}

/// One trace in ten of those that begin here: enough to see what is slow, and little to keep.
const DEFAULT_SAMPLE: f64 = 0.1;
