//! How secrets are written: `{ env = "NAME" }`, `{ file = "path" }`, or a plain string, which is warned of.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::DeValue;

use super::modes;
use super::reader::{Context, Item, Table, Written};
use crate::diag::{Diagnostic, Span, quoted};
use crate::secret::Secret;

/// The bytes of a secret.
pub(super) type SecretBytes = Secret<Vec<u8>>;

/// One secret, or a list of which the first signs and all verify.
pub(super) fn secrets(item: &Item<'_>) -> Option<Vec<Written<SecretBytes>>> {
    if !matches!(item.value.get_ref(), DeValue::Array(_)) {
        return secret(item).map(|secret| vec![secret]);
    }
    let list = item.list()?.into_inner();
    if list.is_empty() {
        let finding = Diagnostic::error("empty-list", format!("`{}` is empty", item.name)).at(item.span());
        item.cx.report(finding.help("add one, or leave the key out"));
    }
    // Those that can't be read have been reported; the others are judged all the same.
    Some(list.iter().filter_map(secret).collect())
}

/// One secret.
pub(super) fn secret(item: &Item<'_>) -> Option<Written<SecretBytes>> {
    let bytes = match item.value.get_ref() {
        DeValue::String(text) => {
            item.cx.mask(item.span());
            warn_plain(item.cx, &item.name, item.key.clone());
            text.as_bytes().to_vec()
        }
        DeValue::Table(table) if table.keys().any(|key| key.get_ref() == "file") => from_file(item)?,
        DeValue::Table(table) => {
            if let Some(default) = table.iter().find(|(key, _)| key.get_ref() == "default").map(|(_, default)| default)
            {
                item.cx.mask(item.cx.place(&default.span()));
                warn_plain(item.cx, &item.name, item.key.clone());
            }
            item.string()?.into_inner().into_bytes()
        }
        _ => return item.wrong_type("a secret", Some("write { env = \"NAME\" } or { file = \"path\" }")),
    };
    Some(Spanned::new(item.span(), Secret::new(bytes)))
}

fn from_file(item: &Item<'_>) -> Option<Vec<u8>> {
    let mut table: Table<'_> = item.table("secret.*")?;
    let file = table.take("file").and_then(|file| file.text());
    table.finish();
    secret_file(item.cx, &file?, read).map(|(_, bytes)| bytes)
}

/// The path of the file that `file` names and what `read` makes of it; why not, and who else can read it, is reported.
pub(super) fn secret_file<T>(
    cx: &Context<'_>,
    file: &Written<String>,
    read: impl Fn(&Path) -> Result<T, String>,
) -> Option<(PathBuf, T)> {
    let path = cx.directory.join(file.get_ref());
    cx.depends_on_secret(path.clone());
    let content = match read(&path) {
        Ok(content) => content,
        Err(reason) => {
            let message = format!("the file {} can't be read: {reason}", quoted(&path.to_string_lossy()));
            let finding = Diagnostic::error("unreadable-file", message).at(file.span());
            cx.report(finding.help("a relative path starts at the directory of this configuration"));
            return None;
        }
    };
    for finding in modes::of_secret(&path) {
        cx.report(finding.at(file.span()));
    }
    Some((path, content))
}

/// The bytes of a file that has at most `most` of them.
pub(super) fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    match bytes.len() as u64 > most {
        true => Err(format!("it is longer than {} KiB", most >> 10)),
        false => Ok(bytes),
    }
}

/// The file's bytes without one newline at the end.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = read_at_most(path, LONGEST)?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
    }
    Ok(bytes)
}

fn warn_plain(cx: &Context<'_>, name: &str, place: Span) {
    let finding = Diagnostic::warning("plain-secret", format!("`{name}` is written into the configuration"));
    let finding = finding.at(place).label("whoever reads this file has it");
    cx.report(finding.help("write { env = \"NAME\" } or { file = \"/run/secrets/x\" }"));
}

/// No secret is longer.
const LONGEST: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn cuts_one_newline_at_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for (written, read_as) in [("abc\n", "abc"), ("abc\r\n", "abc"), ("abc\n\n", "abc\n"), ("abc", "abc"), ("", "")]
        {
            fs::write(&path, written).unwrap();
            assert_eq!(read(&path).unwrap(), read_as.as_bytes());
        }
        fs::write(&path, vec![b'x'; 70_000]).unwrap();
        assert!(read(&path).is_err());
        assert!(read(directory.path()).is_err());
    }
}
