//! How a request comes out, in a word: for `[[tests]]`, `explain` and `why`.

/// How a request comes out, as `[[tests]]` expect it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on.
    Allow,
    /// It could, after a sign-in, a new or a stronger one, or with a better credential.
    SignIn,
    /// It may not.
    Deny,
    /// No route matches, as written or under a reading.
    NotFound,
    /// It is one that no application should see.
    BadRequest,
    /// The gateway answers it itself.
    Own,
    /// The credential can't be judged, or there was no answer.
    Error,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 7] =
        [Self::Allow, Self::SignIn, Self::Deny, Self::NotFound, Self::BadRequest, Self::Own, Self::Error];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::SignIn => "sign-in",
            Self::Deny => "deny",
            Self::NotFound => "not-found",
            Self::BadRequest => "bad-request",
            Self::Own => "own",
            Self::Error => "error",
        }
    }

    /// The outcome that is called `word`.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::Allow, Self::SignIn, Self::Deny, Self::NotFound, Self::BadRequest, Self::Own, Self::Error];
        all.into_iter().find(|outcome| outcome.word() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_comes_back() {
        assert!(Outcome::ALL.into_iter().all(|outcome| Outcome::parse(outcome.word()) == Some(outcome)));
        assert_eq!(Outcome::parse("allowed"), None);
    }
}
