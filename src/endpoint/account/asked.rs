//! What the account's page is asked for: its query and its forms, read before anything is looked up.

use super::super::form::{self, Malformed};
use super::super::page::account::{Done, NotDone};
use crate::identity::UserName;
use crate::identity::password::{self, Weakness};
use crate::secret::Secret;

/// The current password and the new one, of a form that has both and the new one twice.
pub(super) fn passwords(body: &[u8]) -> Result<Result<[Secret<String>; 2], NotDone>, Malformed> {
    let names = ["password", "new_password", "new_password_again"];
    let found = form::fields(body, names)?.map(|field| field.map(Secret::new));
    let [Some(current), Some(new), Some(again)] = found else {
        return Err(Malformed::Field("password, new_password and new_password_again"));
    };
    let is_same = new.is(again.expose().as_bytes());
    Ok(if is_same { Ok([current, new]) } else { Err(NotDone::Different) })
}

/// Why `new` is no password to change to; found without looking at any hash, and so never counted as an attempt.
pub(super) fn unfit(user: &UserName, current: &Secret<String>, new: &Secret<String>) -> Option<NotDone> {
    match password::weakness(user.as_str(), new.expose()) {
        Some(Weakness::Short) => Some(NotDone::Short),
        Some(Weakness::UserName) => Some(NotDone::UserName),
        None if !password::has_possible_length(new.expose()) => Some(NotDone::Long),
        None => new.is(current.expose().as_bytes()).then_some(NotDone::Same),
    }
}

/// The query of the page. What stands twice counts as it stands last.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// The session that is to be ended, or `others`.
    pub(super) end: Option<String>,
    /// The API key that is to be revoked.
    pub(super) revoke: Option<String>,
    /// Whether an API key is to be made.
    pub(super) add: bool,
    /// What was just done.
    pub(super) done: Option<Done>,
}

impl Query {
    pub(super) fn of(query: Option<&str>) -> Self {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or("").as_bytes()) {
            match &*name {
                "end" => read.end = Some(value.into_owned()),
                "revoke" => read.revoke = Some(value.into_owned()),
                "add" => read.add = value == "key",
                "done" => read.done = DONE.into_iter().find(|done| word(*done) == value),
                _ => {}
            }
        }
        read
    }
}

const DONE: [Done; 4] = [Done::PasswordChanged, Done::SessionEnded, Done::OthersEnded, Done::KeyRevoked];

/// The word for it in an address.
pub(super) const fn word(done: Done) -> &'static str {
    match done {
        Done::PasswordChanged => "password",
        Done::SessionEnded => "session",
        Done::OthersEnded => "others",
        Done::KeyRevoked => "key",
    }
}

/// What the access log says.
pub(super) const fn reason_done(done: Done) -> &'static str {
    match done {
        Done::PasswordChanged => "password changed",
        Done::SessionEnded => "session ended",
        Done::OthersEnded => "other sessions ended",
        Done::KeyRevoked => "API key revoked",
    }
}

/// What the access log says.
pub(super) const fn reason(error: NotDone) -> &'static str {
    match error {
        NotDone::WrongPassword => "wrong password",
        NotDone::TooMany(_) => "too many attempts",
        NotDone::Short => "the new password is short",
        NotDone::Long => "the new password is too long",
        NotDone::UserName => "the new password is the user's name",
        NotDone::Different => "the new passwords differ",
        NotDone::Same => "the new password is the old one",
        NotDone::InFile => "the account is in a file",
        NotDone::NoSuchSession => "no such session",
        NotDone::NoSuchKey => "no such API key",
        NotDone::KeyName => "no name for an API key",
        NotDone::KeyTaken => "an API key has this name",
        NotDone::KeysFull => "too many API keys",
        NotDone::Unavailable => "not available",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Result<(String, String), NotDone>, Malformed> {
        let both = |[current, new]: [Secret<String>; 2]| (current.expose().clone(), new.expose().clone());
        passwords(body.as_bytes()).map(|read| read.map(both))
    }

    #[test]
    fn reads_a_new_password_that_is_typed_twice_alike() {
        let good = read("username=alice&password=a+b&new_password=n%C3%A9w&new_password_again=n%C3%A9w");
        assert_eq!(good, Ok(Ok(("a b".to_owned(), "n\u{e9}w".to_owned()))));
        let differs = read("password=a&new_password=one&new_password_again=One");
        assert_eq!(differs, Ok(Err(NotDone::Different)));
    }

    #[test]
    fn refuses_forms_that_are_not_clear() {
        for body in [
            "",
            "password=a&new_password=b",
            "new_password=b&new_password_again=b",
            "password=a&password=c&new_password=b&new_password_again=b",
            "password=a&new_password=b&new_password=b&new_password_again=b",
            "password=a&new%5Fpassword=b&new_password=b&new_password_again=b",
        ] {
            assert!(matches!(read(body), Err(Malformed::Field(_))), "{body}");
        }
        assert_eq!(read("password=%ff&new_password=b&new_password_again=b"), Err(Malformed::Syntax));
    }

    #[test]
    fn says_why_a_password_is_not_fit() {
        let user = UserName::parse("alexandra").unwrap();
        let long = "x".repeat(1025);
        let cases = [
            ("seven77", Some(NotDone::Short)),
            ("Alexandra", Some(NotDone::UserName)),
            (long.as_str(), Some(NotDone::Long)),
            ("the old one", Some(NotDone::Same)),
            ("The old one", None),
        ];
        for (new, expected) in cases {
            assert_eq!(unfit(&user, &Secret::from("the old one"), &Secret::from(new)), expected, "{new}");
        }
    }

    #[test]
    fn reads_the_query_and_knows_only_its_own_words() {
        let query = Query::of(Some("end=a%20b&done=password&x=y"));
        assert_eq!((query.end.as_deref(), query.done), (Some("a b"), Some(Done::PasswordChanged)));
        for (text, done) in [("done=others", Some(Done::OthersEnded)), ("done=%3Cscript%3E", None), ("", None)] {
            assert_eq!(Query::of(Some(text)).done, done, "{text}");
        }
        assert!(Query::of(None).end.is_none());
    }
}
