//! `portcullis schema`: the form of `gateway.toml` as JSON Schema (draft 2020-12), for editors.
//!
//! `gateway.schema.json` is kept by hand beside the sources; `tests/schema.rs` holds it to what the reader reads and to
//! what the documentation says.

use std::io::{self, Write};

/// The schema.
pub const SCHEMA: &str = include_str!("../../gateway.schema.json");

/// Writes it.
pub(super) fn run(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(SCHEMA.as_bytes())
}
