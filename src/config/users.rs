//! `store.users`: the file of accounts that stand beside the store's own, read as text.
//!
//! What a line of it says is judged where passwords are known.

use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::reader::{Item, Table};
use super::secrets::{read_at_most, secret_file};
use crate::diag::Span;
use crate::secret::Secret;

/// The file that `store.users` names, as it was read with the configuration.
#[derive(Clone, Debug)]
pub struct UserFile {
    /// Where it is.
    pub path: PathBuf,
    /// What stands in it.
    pub text: Secret<String>,
    /// Where the configuration names it.
    pub place: Span,
}

/// Two are the same that say the same, wherever the configuration names them.
impl PartialEq for UserFile {
    fn eq(&self, other: &Self) -> bool {
        let Self { path, text, place: _ } = self;
        *path == other.path && *text == other.text
    }
}

pub(super) fn user_file(item: &Item<'_>) -> Option<UserFile> {
    if !matches!(item.value.get_ref(), DeValue::Table(_)) {
        return item.wrong_type("a table that names a file", Some("write users = { file = \"users.htpasswd\" }"));
    }
    let mut table: Table<'_> = item.table("store.users")?;
    table.require("file", "write users = { file = \"users.htpasswd\" }");
    let file = table.take("file").and_then(|file| file.text());
    table.finish();
    let file = file?;
    let (path, text) = secret_file(item.cx, &file, read)?;
    Some(UserFile { path, text, place: file.span() })
}

fn read(path: &Path) -> Result<Secret<String>, String> {
    let bytes = read_at_most(path, LONGEST)?;
    String::from_utf8(bytes).map(Secret::new).map_err(|_| "it is not UTF-8".to_owned())
}

/// Some ten thousand accounts; more belong into the store.
const LONGEST: u64 = 2 << 20;
