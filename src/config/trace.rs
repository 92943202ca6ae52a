//! `[trace]`: where spans go, and of how many requests.

use toml::Spanned;
use toml::de::DeValue;

use super::reader::{Item, Table, Written};
use super::{ServerAddr, Trace, upstreams};
use crate::diag::Diagnostic;

/// `[trace]` as written.
pub(super) struct Raw {
    otlp: Option<Written<ServerAddr>>,
    sample: Option<Written<f64>>,
    service: Option<Written<String>>,
}

impl Raw {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        table.require("otlp", "add otlp = \"http://127.0.0.1:4318\", where the collector takes OTLP over HTTP");
        let raw = Self {
            otlp: table.take("otlp").and_then(|item| {
                item.mask_user();
                item.parsed("bad-url", upstreams::server_address)
            }),
            sample: table.take("sample").and_then(|item| share(&item)),
            service: table.take("service").and_then(|item| item.text()),
        };
        table.finish();
        raw
    }

    pub(super) fn resolve(self) -> Option<Trace> {
        Some(Trace {
            collector: self.otlp?.into_inner(),
            sample: self.sample.map_or(DEFAULT_SAMPLE, Spanned::into_inner),
            service: self.service.map_or_else(|| "portcullis".to_owned(), Spanned::into_inner),
        })
    }
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
