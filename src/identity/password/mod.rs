//! Passwords: hashing, verifying and upgrading them, on threads of their own.
//!
//! A password is the bytes that were typed, 1 to 1024 of them; nothing is normalised, trimmed or cut. New hashes are
//! argon2id (19 MiB, two passes); bcrypt and other argon2id hashes are verified and come back as a new one to store.

pub mod account_file;
mod hash;
pub mod htpasswd;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use tokio::sync::oneshot;

pub use hash::{HashProblem, Workspace};

use crate::metrics::{Counter, Gauge};
use crate::secret::Secret;

/// The longest password, in bytes.
pub const MAX_BYTES: usize = 1024;

/// The shortest password that is set here, in characters. A shorter one from an imported file still signs in.
pub const MIN_NEW_CHARS: usize = 8;

/// Whether `password` is of a length that can be anyone's: 1 to 1024 bytes.
pub const fn has_possible_length(password: &str) -> bool {
    !password.is_empty() && password.len() <= MAX_BYTES
}

/// Why a new password is easily guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// It has fewer than [`MIN_NEW_CHARS`] characters.
    Short,
    /// It is the name of the account.
    UserName,
}

/// Why `password` would be easily guessed as the one of `user`.
pub fn weakness(user: &str, password: &str) -> Option<Weakness> {
    if password.chars().count() < MIN_NEW_CHARS {
        return Some(Weakness::Short);
    }
    (password.to_lowercase() == user).then_some(Weakness::UserName)
}

/// What came of a password.
#[derive(Debug)]
pub enum Verification {
    /// It is the one.
    Match {
        /// A new hash of the same password, where the stored one is not as strong as it should be.
        rehash: Option<Secret<String>>,
    },
    /// It is not, or there is no such user.
    NoMatch,
    /// Too many passwords are waiting; this one was not looked at.
    Busy,
    /// The stored hash is none that can be verified; the operator must set a new password.
    Unreadable,
}

/// Too many passwords are waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("too many passwords are waiting to be hashed")
    }
}

impl std::error::Error for Busy {}

/// Threads that hash passwords, each with memory of its own, at a low priority. Cheap to clone; they end with the last clone.
#[derive(Clone, Debug)]
pub struct Hasher {
    jobs: SyncSender<Job>,
    counts: Arc<Counts>,
}

/// What is counted of passwords.
#[derive(Debug, Default)]
pub struct Counts {
    /// Those that wait for a thread.
    pub waiting: Gauge,
    /// Those that were not looked at because too many waited.
    pub rejected: Counter,
}

impl Hasher {
    /// Starts `threads` threads, at least one. Memory is bounded by 19 MiB each, taken when the first password comes.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(threads: usize) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE);
        let jobs = Arc::new(Mutex::new(receiver));
        let counts = Arc::new(Counts::default());
        for number in 0..threads.max(1) {
            let (jobs, counts) = (jobs.clone(), counts.clone());
            thread::Builder::new().name(format!("password-{number}")).spawn(move || serve(&jobs, &counts))?;
        }
        Ok(Self { jobs: sender, counts })
    }

    /// What was counted so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether `password` is the one behind `hash`. Without a hash (no such user, or a disabled one) the work is the same
    /// and the answer is no. Work whose caller went away before it began is not done.
    pub async fn verify(&self, password: Secret<String>, hash: Option<Secret<String>>) -> Verification {
        if !has_possible_length(password.expose()) {
            return Verification::NoMatch;
        }
        let (reply, answer) = oneshot::channel();
        let job = Job::Verify { password, hash, reply };
        if self.submit(job).is_err() {
            return Verification::Busy;
        }
        answer.await.unwrap_or(Verification::Busy)
    }

    /// A new hash of `password`.
    ///
    /// # Errors
    /// When too many passwords are waiting.
    pub async fn hash(&self, password: Secret<String>) -> Result<Secret<String>, Busy> {
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Hash { password, reply })?;
        answer.await.map_err(|_| Busy)
    }

    fn submit(&self, job: Job) -> Result<(), Busy> {
        // Before a thread can take it, so that the number never falls below zero.
        self.counts.waiting.rise();
        self.jobs.try_send(job).map_err(|_| {
            self.counts.waiting.fall();
            self.counts.rejected.count();
            Busy
        })
    }
}

enum Job {
    Verify { password: Secret<String>, hash: Option<Secret<String>>, reply: oneshot::Sender<Verification> },
    Hash { password: Secret<String>, reply: oneshot::Sender<Secret<String>> },
}

fn serve(jobs: &Mutex<Receiver<Job>>, counts: &Counts) {
    // Linux gives a priority to each thread: `None` is this one, not the process. Without the right to change it the
    // thread works on at the ordinary one.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "password hashing keeps the ordinary priority");
    }
    let mut workspace = Workspace::default();
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        counts.waiting.fall();
        if catch_unwind(AssertUnwindSafe(|| work(&mut workspace, job))).is_err() {
            workspace = Workspace::default();
            tracing::error!("hashing a password panicked");
        }
    }
}

fn work(workspace: &mut Workspace, job: Job) {
    match job {
        Job::Verify { password, hash, reply } => {
            if !reply.is_closed() {
                let _ = reply.send(verify(workspace, &password, hash.as_ref()));
            }
        }
        Job::Hash { password, reply } => {
            if !reply.is_closed() {
                let _ = reply.send(workspace.hash(&password));
            }
        }
    }
}

/// The same work is done for a user and for none as long as the stored hash is one of ours. While hashes are still
/// bcrypt (imported, and nobody has signed in to them yet), or argon2id with other costs, time tells which names have such a
/// hash. Each successful sign-in ends that for its account.
fn verify(workspace: &mut Workspace, password: &Secret<String>, hash: Option<&Secret<String>>) -> Verification {
    let Some(hash) = hash else {
        workspace.work_as_for_a_user(password);
        return Verification::NoMatch;
    };
    match workspace.verify(password, hash.expose()) {
        Ok(true) if hash::is_current(hash.expose()) => Verification::Match { rehash: None },
        Ok(true) => Verification::Match { rehash: Some(workspace.hash(password)) },
        Ok(false) => Verification::NoMatch,
        Err(_) => {
            workspace.work_as_for_a_user(password);
            Verification::Unreadable
        }
    }
}

/// Passwords that may wait. At 25 ms each on one core the last waits less than two seconds.
const QUEUE: usize = 64;

/// How far below everything else hashing stands, so that a storm of sign-ins does not slow down requests.
const NICENESS: i32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::from(text)
    }

    #[tokio::test]
    async fn verifies_what_it_has_hashed_byte_for_byte() {
        let hasher = Hasher::start(1).unwrap();
        for password in ["correct horse", " outer spaces ", "nul\0inside", "пароль", "e\u{301}", &"x".repeat(MAX_BYTES)]
        {
            let hash = hasher.hash(secret(password)).await.unwrap();
            assert!(hash.expose().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.expose());
            let same = hasher.verify(secret(password), Some(hash.clone())).await;
            assert!(matches!(same, Verification::Match { rehash: None }), "{password:?}: {same:?}");
            for other in [format!("{password} "), password.to_uppercase(), password.replace('\0', ""), "é".to_owned()]
            {
                if other != password {
                    let other = hasher.verify(secret(&other), Some(hash.clone())).await;
                    assert!(matches!(other, Verification::NoMatch), "{password:?}: {other:?}");
                }
            }
        }
    }

    #[test]
    fn weak_are_the_short_ones_and_the_name_itself() {
        let cases = [
            ("", Some(Weakness::Short)),
            ("sevenXX", Some(Weakness::Short)),
            ("пароль", Some(Weakness::Short)),
            ("eight888", None),
            ("пароль12", None),
            ("alexandra", Some(Weakness::UserName)),
            ("AlexAndra", Some(Weakness::UserName)),
            ("alexandra ", None),
        ];
        for (password, expected) in cases {
            assert_eq!(weakness("alexandra", password), expected, "{password:?}");
        }
    }

    #[tokio::test]
    async fn nobody_signs_in_without_a_hash_or_with_an_impossible_password() {
        let hasher = Hasher::start(1).unwrap();
        assert!(matches!(hasher.verify(secret("anything"), None).await, Verification::NoMatch));
        let hash = hasher.hash(secret("x")).await.unwrap();
        for impossible in [String::new(), "x".repeat(MAX_BYTES + 1)] {
            let answer = hasher.verify(Secret::new(impossible), Some(hash.clone())).await;
            assert!(matches!(answer, Verification::NoMatch));
        }
    }

    #[tokio::test]
    async fn a_hash_that_is_none_lets_nobody_in() {
        let hasher = Hasher::start(1).unwrap();
        let unreadable = [
            "",
            "hunter2",
            "$argon2id$",
            "$argon2i$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
            "$argon2id$v=19$m=4194304,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
            "$argon2id$v=19$m=19456,t=4000000,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo",
            "$2y$31$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZabcde",
            "$2x$04$abcdefghijklmnopqrstuuABCDEFGHIJKLMNOPQRSTUVWXYZabcde",
            "$2y$10$ålice",
            "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=",
        ];
        for hash in unreadable {
            let answer = hasher.verify(secret("hunter2"), Some(secret(hash))).await;
            assert!(matches!(answer, Verification::Unreadable), "{hash}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn bcrypt_comes_back_as_argon2id() {
        let hasher = Hasher::start(1).unwrap();
        let stored = bcrypt::non_truncating_hash("hunter2", 4).unwrap();
        for version in ["$2a$", "$2b$", "$2y$"] {
            let stored = Secret::new(stored.replacen("$2b$", version, 1));
            let Verification::Match { rehash: Some(new) } =
                hasher.verify(secret("hunter2"), Some(stored.clone())).await
            else {
                panic!("{version} does not verify");
            };
            let again = hasher.verify(secret("hunter2"), Some(new)).await;
            assert!(matches!(again, Verification::Match { rehash: None }));
            assert!(matches!(hasher.verify(secret("hunter3"), Some(stored)).await, Verification::NoMatch));
        }
    }

    #[tokio::test]
    async fn bcrypt_never_takes_one_password_for_another() {
        let hasher = Hasher::start(1).unwrap();
        let first = "a".repeat(72);
        let cut = Secret::new(bcrypt::hash(&first, 4).unwrap());
        for long in [first.clone(), format!("{first}b"), format!("{first}c")] {
            assert!(matches!(hasher.verify(Secret::new(long), Some(cut.clone())).await, Verification::NoMatch));
        }
        // bcrypt repeats the password with its NUL, so that these two are one to it.
        let short = Secret::new(bcrypt::hash("ab", 4).unwrap());
        assert!(bcrypt::verify("ab\0ab", short.expose()).unwrap());
        assert!(matches!(hasher.verify(secret("ab\0ab"), Some(short)).await, Verification::NoMatch));
    }

    #[tokio::test]
    async fn other_costs_of_argon2id_are_verified_and_upgraded() {
        let hasher = Hasher::start(1).unwrap();
        for (memory, passes, lanes) in [(8, 1, 1), (32, 3, 4), (32 * 1024, 1, 1)] {
            let params = argon2::Params::new(memory, passes, lanes, Some(32)).unwrap();
            let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
            use argon2::PasswordHasher as _;
            let stored =
                Secret::new(argon2.hash_password_with_salt(b"hunter2", b"saltsaltsaltsalt").unwrap().to_string());
            let answer = hasher.verify(secret("hunter2"), Some(stored.clone())).await;
            assert!(matches!(answer, Verification::Match { rehash: Some(_) }), "{memory} {passes} {lanes}: {answer:?}");
            assert!(matches!(hasher.verify(secret("hunter3"), Some(stored)).await, Verification::NoMatch));
        }
    }

    #[tokio::test]
    async fn one_too_many_is_told_so_at_once() {
        let (sender, _nobody_works) = sync_channel(1);
        let hasher = Hasher { jobs: sender, counts: Arc::default() };
        let waiting = tokio::spawn({
            let hasher = hasher.clone();
            async move { hasher.verify(secret("first"), None).await }
        });
        tokio::task::yield_now().await;
        assert!(matches!(hasher.verify(secret("second"), None).await, Verification::Busy));
        assert_eq!(hasher.hash(secret("third")).await.unwrap_err(), Busy);
        assert_eq!((hasher.counts().waiting.value(), hasher.counts().rejected.value()), (1, 2));
        waiting.abort();
    }

    #[test]
    fn work_whose_caller_went_away_is_not_done() {
        let (reply, answer) = oneshot::channel();
        drop(answer);
        let mut workspace = Workspace::default();
        work(&mut workspace, Job::Verify { password: secret("x"), hash: None, reply });
        assert!(workspace.is_untouched());
    }
}
