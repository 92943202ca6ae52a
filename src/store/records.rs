//! What the store keeps: plain records, without a trace of SQL.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::Algorithm;
use crate::identity::UserName;
use crate::secret::Secret;

/// The place of an event in the order of all changes. Never used twice, not even after a clean-up.
pub type Seq = u64;

/// A SHA-256 digest: how the store knows keys that it must not be able to say.
pub type Digest = [u8; 32];

/// An account.
#[derive(Clone, Debug)]
pub struct UserRecord {
    /// Its name.
    pub name: UserName,
    /// The password's hash (argon2id as a PHC string, or bcrypt); `None`: no password signs in.
    pub hash: Option<Secret<String>>,
    /// Changes with each new password, and never comes back, not even when the account is deleted and made again.
    /// [`create_session`](super::Store::create_session) wants the one that was verified.
    pub password_version: u64,
    /// Its groups, sorted, without repetition.
    pub groups: Vec<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// The full name.
    pub full_name: Option<String>,
    /// Whether nobody may sign in to it.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When the password was last set.
    pub password_changed_at: Timestamp,
    /// When someone last signed in to it.
    pub last_sign_in: Option<Timestamp>,
    /// Who says what it is.
    pub origin: Origin,
}

/// Where an account comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It was made in the store.
    Store,
    /// It stands in the file of accounts, and is changed there.
    File,
}

/// What came of taking in a file of accounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// Accounts that were made.
    pub added: usize,
    /// Accounts that have another password, other groups, another e-mail address or full name.
    pub changed: usize,
    /// Accounts that were removed, as the file has them no more.
    pub removed: usize,
    /// Names that the store's own accounts have, which stay as they are.
    pub taken: Vec<UserName>,
}

/// An account to be made.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// Its name.
    pub name: UserName,
    /// The password's hash.
    pub hash: Option<Secret<String>>,
    /// Its groups.
    pub groups: Vec<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// The full name.
    pub full_name: Option<String>,
}

/// A sign-in that goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its public name: the `sid` of tokens, the ID in lists.
    pub id: String,
    /// SHA-256 of the cookie's key; `None`: there is no cookie.
    pub key_hash: Option<Digest>,
    /// SHA-256 of the current refresh token; `None`: there is none.
    pub refresh_hash: Option<Digest>,
    /// How many refresh tokens there have been before.
    pub refresh_generation: u32,
    /// Whose it is.
    pub user: UserName,
    /// When it began.
    pub created_at: Timestamp,
    /// When the password was given.
    pub auth_time: Timestamp,
    /// When it was last used, to the minute.
    pub last_seen: Timestamp,
    /// Whether `remember` was ticked.
    pub remember: bool,
    /// How the person signed in (`amr`).
    pub methods: Vec<String>,
    /// The client's address at sign-in.
    pub client: String,
    /// The client's `User-Agent` at sign-in; the store keeps at most 256 bytes of it.
    pub agent: String,
    /// When it ends whatever happens.
    pub expires_at: Timestamp,
}

/// A key for a machine, which acts as a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeyRecord {
    /// Its public name: part of the key, and the ID in lists.
    pub id: String,
    /// SHA-256 of the whole key.
    pub key_hash: Digest,
    /// What its owner calls it; each user has one of a name.
    pub name: String,
    /// Whom it acts as.
    pub user: UserName,
    /// The groups of the user that it may use; `None`: all of them.
    pub groups: Option<Vec<String>>,
    /// Its scopes.
    pub scopes: Vec<String>,
    /// The names of the routes that it counts on; `None`: all that accept API keys.
    pub routes: Option<Vec<String>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends; `None`: when it is revoked.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute.
    pub last_used: Option<Timestamp>,
}

impl SessionRecord {
    /// Whether it has passed its end, or was unused for `idle`; someone who asked to be remembered has no idle time.
    pub fn is_over(&self, now: Timestamp, idle: Duration) -> bool {
        now >= self.expires_at || (!self.remember && now.since(self.last_seen) >= idle)
    }
}

/// A refresh token that was presented, read and found to be made by this server.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// The session that it names.
    pub session: String,
    /// Which of the session's refresh tokens it is, counted from 0.
    pub generation: u32,
    /// SHA-256 of it.
    pub hash: Digest,
    /// SHA-256 of the one that follows it.
    pub successor: Digest,
    /// For how long after its first use it may be used again.
    pub grace: Duration,
    /// How long a session may lie unused.
    pub idle: Duration,
}

/// What a refresh token came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// It was the current one; now its successor is. The session as it was before.
    Renewed(SessionRecord),
    /// It was used a moment ago: its successor is the current one and stays it.
    Repeated(SessionRecord),
    /// It was used before, and not just now: the session is over from now on. The session as it was before.
    Reused(SessionRecord),
    /// The session has passed its end, or was unused for too long.
    Over,
    /// There is no such session, or it has no refresh tokens.
    Unknown,
}

/// What a key signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyUse {
    /// Own tokens.
    Tokens,
    /// What applications are told of who is there.
    Assertions,
}

/// A signing key.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// What it signs.
    pub purpose: KeyUse,
    /// Its `kid`.
    pub kid: String,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// The private key (PKCS #8 DER), or the shared secret of HS*.
    pub private: Secret<Vec<u8>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Published before, signs from then on.
    pub not_before: Timestamp,
    /// When another took its place: it signs nothing from then on, and verifies what it has signed. Not after
    /// `not_before`: it was replaced before its time came.
    pub retired_at: Option<Timestamp>,
    /// How long the longest of what it has signed lives; `None`: not known, as of keys of an older version.
    pub lifetime: Option<Duration>,
}

impl KeyRecord {
    /// Whether it ever signs, or has signed.
    pub fn ever_signs(&self) -> bool {
        self.retired_at.is_none_or(|retired| self.not_before < retired)
    }

    /// When the last of its tokens has expired; `None`: it is not retired.
    pub fn until(&self, lives: Lives) -> Option<Timestamp> {
        let span = self.lifetime.unwrap_or(lives.at_most) + lives.leeway + HAND_OVER;
        self.retired_at.map(|retired| retired + span)
    }
}

/// How long what keys of one purpose have signed is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lives {
    /// The longest that anything is believed to live: what counts where a key does not say.
    pub at_most: Duration,
    /// How long it is still believed after that.
    pub leeway: Duration,
}

/// What became of a key that was to be retired at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// It is gone.
    Gone(Seq),
    /// No other one signs in its place: nothing was done.
    Signing,
    /// There is no key of this name.
    Unknown,
}

/// How long another gateway on this store may take to learn of a new key, and signs with the former one.
pub const HAND_OVER: Duration = Duration::from_secs(1);

/// Something that every gateway on this store must learn of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the order of all changes.
    pub seq: Seq,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: EventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say what they are")]
pub enum EventKind {
    /// A session is over: its cookie and all its tokens.
    SessionEnded { session: String },
    /// One token is refused from now on.
    TokenRevoked { jti: String },
    /// Groups, e-mail, name or state of an account have changed, or it was made or deleted: what is known of it is to be read anew.
    UserChanged { user: UserName },
    /// Tokens of a user without a session are refused when their `iat` is not after the second of `at`. Where all of the
    /// user's sessions are over too, each has an event of its own.
    UserSignedOut { user: UserName, at: Timestamp },
    /// An API key is over.
    ApiKeyRevoked { id: String },
    /// A signing key came or went.
    KeysChanged,
    /// Failed sign-ins of this account up to the event's time are forgiven.
    Unlocked { user: UserName },
}

/// What a counter of failed sign-ins counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ThrottleScope {
    /// The attempts on one account, from wherever.
    Account,
    /// The attempts of one network, on whichever account.
    Network,
}

/// A counter of failed sign-ins, as it survives a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThrottleRecord {
    /// What is counted.
    pub scope: ThrottleScope,
    /// Whose: a keyed digest, since what was typed as a name may be a password.
    pub key: [u8; 16],
    /// The latest failures, oldest first, each with the key of its counter of the other scope.
    /// Saving a record without any, and without a level, deletes it.
    pub failures: Vec<(Timestamp, [u8; 16])>,
    /// How many failures have cost a wait.
    pub level: u32,
    /// When the next attempt is allowed.
    pub blocked_until: Option<Timestamp>,
}

/// Tells whether anything was written since; see [`data_version`](super::Store::data_version).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataVersion(pub(super) u64);

impl DataVersion {
    /// Whether the same opening of the file gave both answers. If not, another file may stand in its place.
    pub const fn is_of_one_opening(self, other: Self) -> bool {
        self.0 >> 32 == other.0 >> 32
    }
}
