//! Accounts that a file says.

use super::*;
use crate::identity::password::account_file::FileAccount;

fn account(name: &str, hash: &str, groups: &[&str]) -> FileAccount {
    FileAccount {
        name: user(name),
        hash: Secret::from(hash),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        email: None,
        full_name: None,
    }
}

impl Fixture {
    /// How many were added, changed and removed, and the names that were taken.
    async fn sync(&self, accounts: &[FileAccount]) -> ([usize; 3], Vec<String>) {
        let Synced { added, changed, removed, taken } = self.store.sync_file(accounts.to_vec()).await.unwrap();
        ([added, changed, removed], taken.iter().map(ToString::to_string).collect())
    }

    async fn found(&self, name: &str) -> Option<UserRecord> {
        self.store.user(&user(name)).await.unwrap()
    }

    /// The accounts that have changed after `seq`, and the sessions that ended then.
    async fn told_after(&self, seq: Seq) -> (Vec<String>, Vec<String>) {
        let (events, _) = self.store.events_after(seq, 100).await.unwrap();
        let (mut changed, mut ended) = (Vec::new(), Vec::new());
        for event in events {
            match event.kind {
                EventKind::UserChanged { user } => changed.push(user.to_string()),
                EventKind::SessionEnded { session } => ended.push(session),
                _ => {}
            }
        }
        (changed, ended)
    }
}

#[tokio::test]
async fn the_same_file_twice_changes_nothing() {
    let here = Fixture::new();
    let file = [account("ada", "one", &["staff", "staff"]), account("bob", "two", &[])];
    assert_eq!(here.sync(&file).await, ([2, 0, 0], vec![]));
    let seq = here.store.latest_seq().await.unwrap();
    assert_eq!(here.sync(&file).await, ([0, 0, 0], vec![]));
    assert_eq!(here.store.latest_seq().await.unwrap(), seq);
    let ada = here.found("ada").await.unwrap();
    assert_eq!((ada.origin, &*ada.groups), (Origin::File, &["staff".to_owned()][..]));
}

#[tokio::test]
async fn another_hash_ends_sessions_and_other_words_do_not() {
    let here = Fixture::new();
    here.sync(&[account("ada", "one", &["staff"]), account("bob", "two", &[])]).await;
    for name in ["ada", "bob"] {
        here.sign_in(&here.found(name).await.unwrap(), name).await;
    }
    let seq = here.store.latest_seq().await.unwrap();
    let bob = FileAccount { email: Some("bob@example.com".to_owned()), ..account("bob", "two", &["admin"]) };
    assert_eq!(here.sync(&[account("ada", "another", &["staff"]), bob]).await, ([0, 2, 0], vec![]));
    let (changed, ended) = here.told_after(seq).await;
    assert_eq!(ended, ["ada"]);
    assert!(changed.contains(&"ada".to_owned()) && changed.contains(&"bob".to_owned()), "{changed:?}");
    assert!(here.store.session("ada").await.unwrap().is_none());
    assert!(here.store.session("bob").await.unwrap().is_some());
    let bob = here.found("bob").await.unwrap();
    assert_eq!((&*bob.groups, bob.email.as_deref()), (&["admin".to_owned()][..], Some("bob@example.com")));
    assert_eq!(here.found("ada").await.unwrap().hash.unwrap().expose(), "another");
}

#[tokio::test]
async fn whoever_is_gone_from_the_file_is_deleted_and_comes_back_as_someone_else() {
    let here = Fixture::new();
    here.add("carol").await;
    let file = [account("ada", "one", &[]), account("bob", "two", &[])];
    here.sync(&file).await;
    let before = here.found("ada").await.unwrap();
    here.sign_in(&before, "ada").await;
    let seq = here.store.latest_seq().await.unwrap();
    assert_eq!(here.sync(&file[1..]).await, ([0, 0, 1], vec![]));
    assert_eq!(here.told_after(seq).await.1, ["ada"]);
    assert!(here.found("ada").await.is_none() && here.store.session("ada").await.unwrap().is_none());
    assert_eq!(here.sync(&file).await, ([1, 0, 0], vec![]));
    assert_ne!(here.found("ada").await.unwrap().password_version, before.password_version);
    assert_eq!(here.sync(&[]).await, ([0, 0, 2], vec![]));
    let left: Vec<_> = here.store.users().await.unwrap().into_iter().map(|user| user.name).collect();
    assert_eq!(left, [user("carol")], "the store's own stay");
}

#[tokio::test]
async fn an_upgraded_hash_stays_while_the_file_says_the_same() {
    let here = Fixture::new();
    let file = [account("ada", "bcrypt", &[])];
    here.sync(&file).await;
    let (name, old, new) = (user("ada"), Secret::from("bcrypt"), Secret::from("argon2id"));
    assert!(here.store.upgrade_hash(&name, old, new).await.unwrap());
    assert_eq!(here.sync(&file).await, ([0, 0, 0], vec![]));
    assert_eq!(here.found("ada").await.unwrap().hash.unwrap().expose(), "argon2id");
    assert_eq!(here.sync(&[account("ada", "other", &[])]).await, ([0, 1, 0], vec![]));
    assert_eq!(here.found("ada").await.unwrap().hash.unwrap().expose(), "other");
}

#[tokio::test]
async fn the_store_s_own_account_counts_and_no_page_changes_the_file_s_password() {
    let here = Fixture::new();
    here.add("carol").await;
    let file = [account("carol", "of the file", &["admin"]), account("ada", "one", &[])];
    for added in [1, 0] {
        assert_eq!(here.sync(&file).await, ([added, 0, 0], vec!["carol".to_owned()]));
    }
    let carol = here.found("carol").await.unwrap();
    assert_eq!((carol.origin, carol.hash.unwrap().expose().as_str()), (Origin::Store, "hash"));
    let ada = here.found("ada").await.unwrap();
    let changed = here.store.change_password(&ada.name, ada.password_version, Secret::from("new")).await.unwrap();
    assert_eq!(changed, None);
    here.store.delete_user(&carol.name).await.unwrap();
    assert_eq!(here.sync(&file).await, ([1, 0, 0], vec![]));
    assert_eq!(here.found("carol").await.unwrap().origin, Origin::File);
}
