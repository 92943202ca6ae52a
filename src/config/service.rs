//! `[admin]`, `[log]` and `[store]`: what stands around the gateway.

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use tracing_subscriber::EnvFilter;

use super::reader::{Context, Item, Table, Written, report_later};
use super::server::{listened_on_twice, positive};
use super::users::{UserFile, user_file};
use super::values::Fault;
use super::{
    AccessLog, Address, Admin, AdminListen, Log, LogFormat, Server, Store, StoreKind, later, modes, no_store, values,
};
use crate::diag::{Diagnostic, nearest, quoted};

/// `[admin]` as written.
#[derive(Default)]
pub(super) struct RawAdmin {
    listen: Option<Written<AdminListen>>,
    control: Option<Written<String>>,
}

impl RawAdmin {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let raw = Self {
            listen: table.take("listen").and_then(|item| item.parsed("bad-address", admin_listen)),
            control: table.take("control").and_then(|item| item.text()),
        };
        table.finish();
        raw
    }

    /// Reports where the admin listener would stand in the way of one that is for everybody.
    pub(super) fn judge(&self, cx: &Context<'_>, server: &Server) {
        let Some(listen) = &self.listen else { return };
        let address = match listen.get_ref() {
            AdminListen::Tcp(address) => Address::Tcp(*address),
            AdminListen::Unix(_) => return,
        };
        if let Some(other) = server.listen.iter().find(|other| other.address.overlaps(&address)) {
            cx.report(listened_on_twice(&address, &other.address, listen.span()));
        }
    }

    /// `store` is where the control socket stands unless it is named.
    pub(super) fn resolve(self, cx: &Context<'_>, store: &Store) -> Admin {
        let control = match (&self.control, &store.kind) {
            (Some(control), _) => Some(cx.directory.join(control.get_ref())),
            (None, StoreKind::Sqlite(file)) => Some(file.parent().unwrap_or(Path::new("")).join("portcullis.sock")),
            (None, StoreKind::None) => None,
        };
        let listen = self.listen.map(|listen| match listen.into_inner() {
            AdminListen::Unix(path) => AdminListen::Unix(cx.directory.join(path)),
            tcp @ AdminListen::Tcp(_) => tcp,
        });
        Admin { listen, control }
    }
}

fn admin_listen(text: &str) -> Result<AdminListen, Fault> {
    match text.strip_prefix("unix:") {
        Some("") => Err(Fault::new("no path behind `unix:`", "no path", "write \"unix:/run/portcullis-admin.sock\"")),
        Some(path) => Ok(AdminListen::Unix(PathBuf::from(path))),
        None => values::socket_address(text).map(AdminListen::Tcp),
    }
}

/// `[log]` as written.
#[derive(Default)]
pub(super) struct RawLog {
    level: Option<Written<String>>,
    format: Option<Written<LogFormat>>,
    access: Option<Written<AccessLog>>,
}

impl RawLog {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        let raw = Self {
            level: table.take("level").and_then(|item| item.parsed("bad-filter", filter)),
            format: table.take("format").and_then(|item| item.word("log.format", &formats)),
            access: table.take("access").and_then(|item| item.parsed("unknown-value", access)),
        };
        table.finish();
        raw
    }

    pub(super) fn resolve(self, cx: &Context<'_>) -> Log {
        let access = self.access.map_or(AccessLog::Stdout, Spanned::into_inner);
        Log {
            level: self.level.map_or_else(|| "info".to_owned(), Spanned::into_inner),
            format: self.format.map_or(LogFormat::Text, Spanned::into_inner),
            access: match access {
                AccessLog::File(path) => AccessLog::File(cx.directory.join(path)),
                other => other,
            },
        }
    }
}

/// What is wrong with `text` as `log.level`, and a way out, if anything is.
pub fn filter_fault(text: &str) -> Option<String> {
    let fault = filter(text).err()?;
    Some(format!("{}; {}", fault.message, fault.help))
}

/// A `tracing` filter. A word alone is a level: as a module's name it would silence everything else.
fn filter(text: &str) -> Result<String, Fault> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for part in text.split(',').map(str::trim) {
        let level = part.rsplit_once('=').map_or(part, |(_, level)| level);
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            let help = match nearest(level, LEVELS) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => {
                    "levels are off, error, warn, info, debug and trace; a filter is \"info,portcullis::token=debug\""
                        .to_owned()
                }
            };
            return Err(Fault::new(format!("{} is not a level", quoted(level)), "not a level", help));
        }
    }
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            let message = format!("{} is not a filter", quoted(text));
            Err(Fault::new(message, "not a filter", "write a level, or such as \"info,portcullis::token=debug\""))
        }
    }
}

fn access(text: &str) -> Result<AccessLog, Fault> {
    match text {
        "stdout" => Ok(AccessLog::Stdout),
        "stderr" => Ok(AccessLog::Stderr),
        "off" => Ok(AccessLog::Off),
        file if file.contains(['/', '.']) => Ok(AccessLog::File(PathBuf::from(file))),
        other => {
            let help = match nearest(other, ["stdout", "stderr", "off"]) {
                Some(near) => format!("did you mean \"{near}\"? A file is written with its directory, \"./{other}\""),
                None => format!("write \"stdout\", \"stderr\", \"off\", or a file such as \"./{other}\""),
            };
            Err(Fault::new(format!("access lines can't go to {}", quoted(other)), "not a place for access lines", help))
        }
    }
}

/// `[store]` as written.
#[derive(Default)]
pub(super) struct RawStore {
    url: Option<Written<Option<PathBuf>>>,
    users: Option<UserFile>,
    max_staleness: Option<Written<Duration>>,
}

impl RawStore {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let raw = Self {
            url: table.take("url").and_then(|item| store_url(&item)),
            users: table.take("users").and_then(|item| user_file(&item)),
            max_staleness: table.duration("max_staleness"),
        };
        table.finish();
        raw
    }

    pub(super) fn resolve(self, cx: &Context<'_>) -> Store {
        let place = self.url.as_ref().map(Spanned::span);
        let kind = match self.url.map_or_else(|| Some(PathBuf::from("portcullis.db")), Spanned::into_inner) {
            Some(file) => StoreKind::Sqlite(cx.directory.join(file)),
            None => StoreKind::None,
        };
        if let StoreKind::Sqlite(path) = &kind {
            for finding in modes::of_secret(path) {
                cx.report(match &place {
                    Some(place) => finding.at(place.clone()),
                    None => finding,
                });
            }
        }
        if let (StoreKind::None, Some(users)) = (&kind, &self.users) {
            let finding =
                Diagnostic::error(no_store::CODE, "accounts of a file are kept in the store, and there is none");
            cx.report(finding.at(users.place.clone()).help("leave `users` out, or name a store in `url`"));
        }
        Store {
            kind,
            users: self.users,
            max_staleness: positive(cx, "max_staleness", self.max_staleness, Duration::from_secs(30)),
        }
    }
}

fn store_url(item: &Item<'_>) -> Option<Written<Option<PathBuf>>> {
    let text = item.string()?;
    if let Some(later) = later::word("store.url", text.get_ref()) {
        // Only the scheme is repeated: the rest may hold a password.
        let scheme = text.get_ref().split_inclusive("://").next().unwrap_or_default();
        if text.get_ref().contains('@') {
            item.cx.mask(item.span());
        }
        report_later(item.cx, scheme, later, item.span());
        return None;
    }
    item.parsed("bad-store", |text| {
        let fault = |message: &str, help: &str| Err(Fault::new(message, "not a store", help));
        if text == "none" {
            return Ok(None);
        }
        let Some(path) = text.strip_prefix("sqlite:") else {
            return fault("the store has no known scheme", "write \"sqlite:portcullis.db\", or \"none\"");
        };
        if path.is_empty() {
            return fault("the store has no file", "write \"sqlite:portcullis.db\"");
        }
        if path.starts_with(':') {
            return fault("a store in memory forgets its users", "write \"sqlite:portcullis.db\"");
        }
        if path.starts_with("//") && !path.starts_with("///") {
            let help = format!("write \"sqlite:{}\"", path.trim_start_matches('/'));
            return fault("what stands behind `sqlite://` is a host", &help);
        }
        Ok(Some(PathBuf::from(path)))
    })
}
