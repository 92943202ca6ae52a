//! The hash functions themselves, on memory that is used again. Blocks the thread for 15 ms and more.

use argon2::password_hash::phc::{Output, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use subtle::ConstantTimeEq;

use crate::secret::{Random, Secret};

/// The memory that argon2 works in. A fresh allocation each time would cost four times the hashing itself.
#[derive(Default)]
pub struct Workspace {
    blocks: Vec<Block>,
    random: Random,
}

/// Why a stored hash can't be verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashProblem {
    /// Not a scheme that is verified here.
    UnknownScheme,
    /// Of a known scheme, but not well-formed.
    Malformed,
    /// Its costs are beyond what a sign-in may take.
    TooCostly,
}

impl Workspace {
    /// A new argon2id hash of `password` as a PHC string.
    pub fn hash(&mut self, password: &Secret<String>) -> Secret<String> {
        let salt = self.random.bytes::<16>();
        let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
        self.argon2(&Params::DEFAULT, Version::V0x13, password.expose().as_bytes(), &salt, &mut output);
        let text = PasswordHash {
            algorithm: argon2::ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: params_string(&Params::DEFAULT),
            salt: Salt::new(&salt).ok(),
            hash: Output::new(&output).ok(),
        };
        Secret::new(text.to_string())
    }

    /// Whether `password` is the one behind `hash`.
    ///
    /// # Errors
    /// When `hash` can't be verified.
    pub(super) fn verify(&mut self, password: &Secret<String>, hash: &str) -> Result<bool, HashProblem> {
        let password = password.expose().as_bytes();
        match Stored::parse(hash)? {
            Stored::Bcrypt => {
                // bcrypt ends a password with NUL and sees 72 bytes: two that differ behind either would be one to it.
                if password.contains(&0) || password.len() > BCRYPT_MAX_BYTES {
                    self.work_on(password);
                    return Ok(false);
                }
                bcrypt::non_truncating_verify(password, hash).map_err(|_| HashProblem::Malformed)
            }
            Stored::Argon2id(stored) => {
                let Argon2id { params, version, salt, output } = *stored;
                let mut computed = vec![0; output.len()];
                if !self.argon2(&params, version, password, salt.as_ref(), &mut computed) {
                    return Err(HashProblem::Malformed);
                }
                Ok(computed.ct_eq(output.as_bytes()).into())
            }
        }
    }

    /// Does what verifying a hash of ours takes.
    pub(super) fn work_as_for_a_user(&mut self, password: &Secret<String>) {
        self.work_on(password.expose().as_bytes());
    }

    fn work_on(&mut self, password: &[u8]) {
        let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
        let done = self.argon2(&Params::DEFAULT, Version::V0x13, password, b"nobody's salt...", &mut output);
        // Keeps the optimiser from seeing that nobody wants the output.
        std::hint::black_box((done, output));
    }

    /// Whether `password` is the one behind `hash`, for tests of those who store one.
    #[cfg(test)]
    pub(crate) fn matches(&mut self, password: &str, hash: &str) -> bool {
        self.verify(&Secret::from(password), hash) == Ok(true)
    }

    #[cfg(test)]
    pub(super) fn is_untouched(&self) -> bool {
        self.blocks.is_empty()
    }

    fn argon2(&mut self, params: &Params, version: Version, password: &[u8], salt: &[u8], output: &mut [u8]) -> bool {
        let blocks = params.block_count();
        if self.blocks.len() < blocks {
            self.blocks.resize(blocks, Block::new());
        }
        let argon2 = Argon2::new(Algorithm::Argon2id, version, params.clone());
        let done = argon2.hash_password_into_with_memory(password, salt, output, &mut self.blocks[..blocks]);
        // One costly hash must not hold its memory for ever.
        self.blocks.truncate(Params::DEFAULT.block_count());
        self.blocks.shrink_to_fit();
        done.is_ok()
    }
}

impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Workspace").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

/// Whether a hash is as new ones are made.
pub(super) fn is_current(hash: &str) -> bool {
    let Ok(Stored::Argon2id(stored)) = Stored::parse(hash) else { return false };
    let costs = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
    matches!(stored.version, Version::V0x13)
        && stored.output.len() == Params::DEFAULT_OUTPUT_LEN
        && costs(&stored.params) == costs(&Params::DEFAULT)
}

/// Whether a hash can be verified here.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(hash: &str) -> Result<(), HashProblem> {
    Stored::parse(hash).map(drop)
}

enum Stored {
    Bcrypt,
    Argon2id(Box<Argon2id>),
}

struct Argon2id {
    params: Params,
    version: Version,
    salt: Salt,
    output: Output,
}

impl Stored {
    fn parse(hash: &str) -> Result<Self, HashProblem> {
        if ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| hash.starts_with(prefix)) {
            let parts: bcrypt::HashParts = hash.parse().map_err(|_| HashProblem::Malformed)?;
            return match parts.get_cost() {
                4..=BCRYPT_MAX_COST => Ok(Self::Bcrypt),
                0..4 => Err(HashProblem::Malformed),
                _ => Err(HashProblem::TooCostly),
            };
        }
        if !hash.starts_with("$argon2id$") {
            return Err(HashProblem::UnknownScheme);
        }
        let phc = PasswordHash::new(hash).map_err(|_| HashProblem::Malformed)?;
        let params = Params::try_from(&phc).map_err(|_| HashProblem::Malformed)?;
        let version = match phc.version {
            Some(version) => Version::try_from(version).map_err(|_| HashProblem::Malformed)?,
            // The first version wrote none.
            None => Version::V0x10,
        };
        let (Some(salt), Some(output)) = (phc.salt, phc.hash) else {
            return Err(HashProblem::Malformed);
        };
        if params.m_cost() > 256 * 1024 || params.t_cost() > 10 || params.p_cost() > 4 {
            return Err(HashProblem::TooCostly);
        }
        Ok(Self::Argon2id(Box::new(Argon2id { params, version, salt, output })))
    }
}

fn params_string(params: &Params) -> argon2::password_hash::phc::ParamsString {
    params.try_into().unwrap_or_default()
}

/// With its NUL a longer one does not fit into what bcrypt sees.
const BCRYPT_MAX_BYTES: usize = 71;

/// About a second.
const BCRYPT_MAX_COST: u32 = 14;
