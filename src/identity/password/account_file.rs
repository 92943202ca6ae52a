//! Reads files of whole accounts: `name:hash[:groups[:email[:full name]]]`, one account a line.
//!
//! They are what `[store] users` names. Hashes are those that [`htpasswd`] takes.

use super::htpasswd::{self, Entry, LineProblem};
use crate::identity::{UserName, is_group_name, is_line};
use crate::secret::Secret;

/// One account of a file.
#[derive(Clone, Debug)]
pub struct FileAccount {
    /// Its name, in lower case.
    pub name: UserName,
    /// Its password's hash.
    pub hash: Secret<String>,
    /// Its groups.
    pub groups: Vec<String>,
    /// The e-mail address.
    pub email: Option<String>,
    /// The full name.
    pub full_name: Option<String>,
}

/// All accounts of a file; empty lines and those that begin with `#` are passed over.
///
/// # Errors
/// Every line that can't be taken.
pub fn parse(text: &str) -> Result<Vec<FileAccount>, Vec<LineProblem>> {
    htpasswd::each_line(text, parse_line, |account| &account.name)
}

fn parse_line(content: &str) -> Result<FileAccount, String> {
    let (name, rest) = content.split_once(':').ok_or(htpasswd::NO_COLON)?;
    let mut fields = rest.splitn(4, ':');
    let mut next = || fields.next().unwrap_or_default();
    let Entry { name, hash } = htpasswd::entry(name, next())?;
    let groups: Vec<String> = match next() {
        "" => Vec::new(),
        list => list.split(',').map(str::to_owned).collect(),
    };
    if let Some(bad) = groups.iter().find(|group| !is_group_name(group)) {
        return Err(format!(
            "{bad:?} can't be the name of a group: groups are separated by commas, without a space around them"
        ));
    }
    let mut line = |what: &str| match next() {
        "" => Ok(None),
        text if is_line(text) => Ok(Some(text.to_owned())),
        text => Err(format!("{text:?} can't be the {what}: at most 256 bytes without control or outer space")),
    };
    let email = line("e-mail address")?;
    Ok(FileAccount { name, hash, groups, email, full_name: line("full name")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCRYPT: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";
    const ARGON2: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2E$\
                          1dxfB8uTzRk0CJt5h8nxbpQ5mBFUVVmVCjsS6wXMyZc";

    #[test]
    fn reads_as_many_fields_as_a_line_has() {
        type Case = (&'static str, &'static [&'static str], Option<&'static str>, Option<&'static str>);
        let cases: [Case; 7] = [
            ("", &[], None, None),
            (":", &[], None, None),
            (":staff,site admins", &["staff", "site admins"], None, None),
            (":staff:a@example.com", &["staff"], Some("a@example.com"), None),
            (":::Ada Lovelace", &[], None, Some("Ada Lovelace")),
            (":staff:a@example.com:Ada: Countess", &["staff"], Some("a@example.com"), Some("Ada: Countess")),
            ("::a@example.com:", &[], Some("a@example.com"), None),
        ];
        for hash in [BCRYPT, ARGON2] {
            for (rest, groups, email, full_name) in cases {
                let text = format!("# accounts\n\nAda:{hash}{rest}\r\n");
                let [ada] = &*parse(&text).unwrap_or_else(|problems| panic!("{rest}: {problems:?}")) else {
                    panic!("{rest}: one account")
                };
                assert_eq!((ada.name.as_str(), ada.hash.expose().as_str()), ("ada", hash), "{rest}");
                assert_eq!(
                    (&*ada.groups, ada.email.as_deref(), ada.full_name.as_deref()),
                    (&*groups.iter().map(|&group| group.to_owned()).collect::<Vec<_>>(), email, full_name)
                );
            }
        }
    }

    #[test]
    fn names_every_line_that_can_not_be_taken() {
        let cases = [
            ("hunter2", "no colon"),
            ("a b:x", "can't be a name"),
            ("md5:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/:staff", "an MD5 hash"),
            ("none::staff", "an empty hash"),
            (&format!("ada:{BCRYPT}:staff, ops"), "\" ops\" can't be the name of a group"),
            (&format!("ada:{BCRYPT}:staff,"), "\"\" can't be the name of a group"),
            (&format!("ada:{BCRYPT}:: a@example.com"), "can't be the e-mail address"),
            (&format!("ada:{BCRYPT}:::{}", "x".repeat(257)), "can't be the full name"),
            (&format!("dup:{BCRYPT}\nDup:{BCRYPT}:staff"), "stands on line 9 already"),
        ];
        let text = cases.iter().map(|(line, _)| *line).collect::<Vec<_>>().join("\n");
        let problems = parse(&text).unwrap_err();
        assert_eq!(problems.len(), cases.len());
        for (problem, (_, expected)) in problems.iter().zip(cases) {
            assert!(problem.message.contains(expected), "{problem}");
        }
        assert_eq!((problems[0].line, problems[8].line), (1, 10));
    }
}
