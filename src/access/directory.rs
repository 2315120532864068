//! Who there is and what they may see, as the users file and the grants file say it; exchanged whole when they change.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use secrecy::SecretString;

use crate::access::{Access, Grants, Principal, token};
use crate::config::{AccessFiles, GrantList, User, UserToken};

/// Who there is and what they may see, at one moment.
#[derive(Debug)]
pub struct Directory {
    files: AccessFiles,
    grants: Arc<Grants>,
    /// Whether people have to prove who they are.
    closed: bool,
    /// By a token's id whose it is, and the how manieth.
    tokens: HashMap<String, (String, usize)>,
}

impl Directory {
    /// What the files say. `closed`: people have to prove who they are.
    pub fn new(files: AccessFiles, closed: bool) -> Self {
        let grants = Arc::new(files.grants.as_ref().map(Grants::from).unwrap_or_default());
        let mut tokens = HashMap::new();
        for (name, user) in files.users.iter().flat_map(|list| &list.users) {
            for (number, token) in user.tokens.iter().enumerate() {
                tokens.insert(token.id.clone(), (name.clone(), number));
            }
        }
        Self { files, grants, closed, tokens }
    }

    /// Whether people have to prove who they are. Otherwise everybody is anonymous.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// The files it was made from.
    pub fn files(&self) -> &AccessFiles {
        &self.files
    }

    /// A user of the users file.
    pub fn user(&self, name: &str) -> Option<&User> {
        self.files.users.as_ref()?.users.get(name)
    }

    /// Whose a personal token is, where it counts at this moment.
    pub fn token_owner(&self, text: &SecretString, now: DateTime<Utc>) -> Option<(&str, &UserToken)> {
        let (name, token) = self.token(token::token_id(text)?, now)?;
        token::token_has_hash(text, &token.hash).then_some((name, token))
    }

    /// A personal token by its id, with whose it is, where it counts at this moment.
    pub fn token(&self, id: &str, now: DateTime<Utc>) -> Option<(&str, &UserToken)> {
        let (name, number) = self.tokens.get(id)?;
        let token = self.user(name)?.tokens.get(*number)?;
        let valid = token.expires_at.is_none_or(|expires_at| now < expires_at);
        valid.then_some((name.as_str(), token))
    }

    /// Somebody with the roles they have: by the users file, by membership, and by claims (`claim:value`).
    pub fn principal(&self, name: &str, claims: &[String]) -> Principal {
        let mut roles = self.user(name).map(|user| user.roles.clone()).unwrap_or_default();
        roles.extend(self.files.grants.iter().flat_map(|grants| roles_by_grants(grants, name, claims)));
        Principal { name: name.to_owned(), roles }
    }

    /// Those claims that give a role: the token of a session has to be short, and people may be in hundreds of groups.
    pub fn claims_that_count(&self, claims: Vec<String>) -> Vec<String> {
        let roles = || self.files.grants.iter().flat_map(|grants| grants.roles.values());
        claims.into_iter().filter(|claim| roles().any(|role| role.claims.contains(claim))).collect()
    }

    /// What somebody with these claims may see and do.
    pub fn access(&self, name: &str, claims: &[String]) -> Access {
        Access::granted(self.principal(name, claims), Arc::clone(&self.grants))
    }

    /// What everybody may see and do where nobody proves who they are: what is granted to everyone, and where there
    /// is no grants file, everything.
    pub fn anonymous(&self) -> Access {
        let principal = Principal::anonymous();
        match &self.files.grants {
            None => Access::unrestricted(principal),
            Some(_) => self.access(&principal.name, &[]),
        }
    }
}

fn roles_by_grants(grants: &GrantList, name: &str, claims: &[String]) -> BTreeSet<String> {
    let has = grants
        .roles
        .iter()
        .filter(|(_, role)| role.members.contains(name) || claims.iter().any(|claim| role.claims.contains(claim)));
    has.map(|(role, _)| role.clone()).collect()
}

/// The directory as it is now. Clones are one.
#[derive(Clone, Debug)]
pub struct LiveDirectory(Arc<RwLock<Arc<Directory>>>);

impl LiveDirectory {
    /// Begins with a directory.
    pub fn new(directory: Directory) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(directory))))
    }

    /// The directory of this moment.
    pub fn current(&self) -> Arc<Directory> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another directory in its place.
    pub fn replace(&self, directory: Directory) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(directory);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::access::NewToken;
    use crate::config::{RoleDefinition, Spot, UserList};

    fn directory(token: UserToken) -> Directory {
        let ann = User { password: None, roles: BTreeSet::from(["sales".to_owned()]), tokens: vec![token], spot: None };
        let spot = Spot { file: "grants.toml".into(), line: 1 };
        let role = |members: &[&str], claims: &[&str]| RoleDefinition {
            members: members.iter().map(|name| (*name).to_owned()).collect(),
            claims: claims.iter().map(|name| (*name).to_owned()).collect(),
            spot: spot.clone(),
        };
        let roles = BTreeMap::from([
            ("analysts".to_owned(), role(&["ann"], &[])),
            ("admin".to_owned(), role(&[], &["groups:lake-admins"])),
        ]);
        let users = Some(UserList { users: BTreeMap::from([("ann".to_owned(), ann)]) });
        Directory::new(AccessFiles { users, grants: Some(GrantList { roles, ..GrantList::default() }) }, true)
    }

    #[test]
    fn roles_come_from_the_user_from_membership_and_from_claims() {
        let token = NewToken::make().unwrap();
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let expires_at = Some(now + chrono::Duration::days(1));
        let kept = UserToken { id: token.id.clone(), hash: token.hash, label: None, created_at: now, expires_at };
        let directory = directory(kept);
        let roles = |name: &str, claims: &[&str]| {
            let claims: Vec<_> = claims.iter().map(|claim| (*claim).to_owned()).collect();
            directory.principal(name, &claims).roles.into_iter().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(roles("ann", &[]), "analysts sales");
        assert_eq!(roles("bob", &["groups:other"]), "");
        assert_eq!(roles("bob", &["groups:lake-admins"]), "admin");
        assert!(directory.access("bob", &["groups:lake-admins".to_owned()]).is_unrestricted());
        let claims = ["groups:other", "groups:lake-admins"].map(str::to_owned).to_vec();
        assert_eq!(directory.claims_that_count(claims), ["groups:lake-admins"]);
        assert!(!directory.anonymous().is_unrestricted(), "with a grants file nobody sees all");

        assert_eq!(directory.token_owner(&token.text, now).map(|(name, _)| name), Some("ann"));
        assert!(directory.token_owner(&token.text, now + chrono::Duration::days(1)).is_none(), "it has expired");
        let other: SecretString = format!("lgp_{}_{}", token.id, "0".repeat(64)).into();
        assert!(directory.token_owner(&other, now).is_none());
    }
}
