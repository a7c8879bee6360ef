//! All users and all permissions.
//!
//! Knows nothing of vhosts and exchanges: whether those exist is for the caller to check, and the
//! caller says when one is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::grants::{Grants, Permissions, TopicPermissions, expand, permission};
use super::password::{HashAlgorithm, PasswordHash};
use super::user::{LoginRefused, TooManyTags, User, check_tags};
use crate::broker::limits::UserLimits;
use crate::broker::pattern::PatternError;

/// Settings of the registry.
#[derive(Clone, Debug)]
pub struct Options {
    /// Users who may connect from the same host only. Default: guest.
    pub loopback_users: Vec<String>,
    /// How new passwords are digested. Default: SHA-256.
    pub hash_algorithm: HashAlgorithm,
}

impl Default for Options {
    fn default() -> Self {
        Self { loopback_users: vec!["guest".into()], hash_algorithm: HashAlgorithm::default() }
    }
}

/// Users and permissions.
#[derive(Debug, Default)]
pub struct Users {
    options: Options,
    // Taken alone, nothing else is locked inside; no password is digested under it.
    inner: RwLock<Inner>,
    generation: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    users: BTreeMap<String, Arc<User>>,
    /// By user and vhost.
    permissions: BTreeMap<(String, String), Entry>,
    /// By user, vhost and exchange; may exist without permissions on the vhost.
    topics: BTreeMap<(String, String, String), TopicPermissions>,
}

#[derive(Debug)]
struct Entry {
    permissions: Permissions,
    grants: Arc<Grants>,
}

/// One line of a list of permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermissionEntry {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// What.
    pub permissions: Permissions,
}

/// One line of a list of topic permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPermissionEntry {
    /// Whose.
    pub user: String,
    /// Where.
    pub vhost: String,
    /// On which exchange.
    pub exchange: String,
    /// What.
    pub permissions: TopicPermissions,
}

/// Why a change of users or permissions was refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// The name is taken.
    #[error("User \"{name}\" already exists")]
    UserAlreadyExists {
        /// The name.
        name: String,
    },
    /// Nobody has that name.
    #[error("User \"{name}\" does not exist")]
    NoSuchUser {
        /// The name.
        name: String,
    },
    /// A permission is no regular expression.
    #[error("invalid_regexp, {pattern:?}, {reason}")]
    InvalidRegexp {
        /// The permission.
        pattern: String,
        /// What is wrong with it.
        reason: PatternError,
    },
    /// Too many tags.
    #[error(transparent)]
    TooManyTags(#[from] TooManyTags),
}

impl From<(String, PatternError)> for AccessError {
    fn from((pattern, reason): (String, PatternError)) -> Self {
        Self::InvalidRegexp { pattern, reason }
    }
}

impl Users {
    /// Nobody yet.
    pub fn new(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// Moves with every change of users or permissions. Read it before asking for what it guards.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Adds a user without tags and permissions.
    pub fn add(&self, name: &str, password: &str) -> Result<(), AccessError> {
        let password = self.hash(password);
        self.change(|inner| {
            if inner.users.contains_key(name) {
                return Err(AccessError::UserAlreadyExists { name: name.to_owned() });
            }
            let user = User { name: name.to_owned(), password, tags: Vec::new(), limits: UserLimits::default() };
            inner.users.insert(user.name.clone(), Arc::new(user));
            Ok(())
        })
    }

    /// Adds a user or replaces the one of that name, whose permissions stay. True when it is new.
    pub fn put(&self, user: User) -> Result<bool, AccessError> {
        let user = User { tags: check_tags(user.tags)?, ..user };
        self.change(|inner| Ok(inner.users.insert(user.name.clone(), Arc::new(user)).is_none()))
    }

    /// Removes a user and their permissions.
    pub fn delete(&self, name: &str) -> Result<(), AccessError> {
        self.change(|inner| {
            inner.users.remove(name).ok_or_else(|| no_such_user(name))?;
            inner.permissions.retain(|(user, _), _| user != name);
            inner.topics.retain(|(user, _, _), _| user != name);
            Ok(())
        })
    }

    /// Sets a password.
    pub fn change_password(&self, name: &str, password: &str) -> Result<(), AccessError> {
        let password = self.hash(password);
        self.change_user(name, |user| user.password = password)
    }

    /// Sets a stored password.
    pub fn set_password_hash(&self, name: &str, password: PasswordHash) -> Result<(), AccessError> {
        self.change_user(name, |user| user.password = password)
    }

    /// Removes the password, so that nobody can log in by one.
    pub fn clear_password(&self, name: &str) -> Result<(), AccessError> {
        self.change_user(name, |user| user.password = PasswordHash::none())
    }

    /// Replaces the tags.
    pub fn set_tags(&self, name: &str, tags: Vec<String>) -> Result<(), AccessError> {
        let tags = check_tags(tags)?;
        self.change_user(name, |user| user.tags = tags)
    }

    /// Sets the limits that `limits` has; others stay.
    pub fn set_limits(&self, name: &str, limits: UserLimits) -> Result<(), AccessError> {
        self.change_user(name, |user| user.limits = user.limits.merged(limits))
    }

    /// Removes one limit by its name, or `all`.
    pub fn clear_limit(&self, name: &str, limit: &str) -> Result<(), AccessError> {
        self.change_user(name, |user| user.limits = user.limits.without(limit))
    }

    /// The user of that name.
    pub fn get(&self, name: &str) -> Option<Arc<User>> {
        self.inner.read().users.get(name).cloned()
    }

    /// All users, by name.
    pub fn list(&self) -> Vec<Arc<User>> {
        self.inner.read().users.values().cloned().collect()
    }

    /// The user, if that is their password. Takes as long for an unknown name as for a known one.
    ///
    /// Does not look at where the client comes from: see [`Users::is_loopback_only`].
    pub fn authenticate(&self, name: &str, password: &[u8]) -> Result<Arc<User>, LoginRefused> {
        if password.is_empty() {
            return Err(LoginRefused::BlankPassword { user: name.to_owned() });
        }
        let user = self.get(name);
        let is_right = match &user {
            Some(user) => user.password.verify(password),
            None => {
                // Digested in vain, so that time does not tell who exists.
                PasswordHash::new(self.options.hash_algorithm, [0; 4], password);
                false
            }
        };
        user.filter(|_| is_right).ok_or_else(|| LoginRefused::InvalidCredentials { user: name.to_owned() })
    }

    /// Whether the user may connect from the same host only.
    pub fn is_loopback_only(&self, name: &str) -> bool {
        self.options.loopback_users.iter().any(|user| user == name)
    }

    /// Sets what a user may do on a vhost.
    pub fn set_permissions(&self, user: &str, vhost: &str, permissions: Permissions) -> Result<(), AccessError> {
        // Compiled before the lock is taken; once more below, with the topics of then.
        for source in [&permissions.configure, &permissions.write, &permissions.read] {
            permission(source)?;
        }
        self.change(|inner| {
            inner.known(user)?;
            let grants = Grants::new(user, vhost, &permissions, inner.topics_of(user, vhost))?;
            let entry = Entry { permissions, grants: Arc::new(grants) };
            inner.permissions.insert((user.to_owned(), vhost.to_owned()), entry);
            Ok(())
        })
    }

    /// Takes all permissions of a user on a vhost away, if there are any.
    pub fn clear_permissions(&self, user: &str, vhost: &str) -> Result<(), AccessError> {
        self.change(|inner| {
            inner.known(user)?;
            inner.permissions.remove(&(user.to_owned(), vhost.to_owned()));
            Ok(())
        })
    }

    /// What a user may do on a vhost, as text.
    pub fn permissions(&self, user: &str, vhost: &str) -> Option<Permissions> {
        let inner = self.inner.read();
        inner.permissions.get(&(user.to_owned(), vhost.to_owned())).map(|entry| entry.permissions.clone())
    }

    /// The permissions of a user, or of all, on a vhost, or on all; by user and vhost.
    pub fn list_permissions(&self, user: Option<&str>, vhost: Option<&str>) -> Vec<PermissionEntry> {
        self.inner
            .read()
            .permissions
            .iter()
            .filter(|((of, on), _)| user.is_none_or(|user| user == of) && vhost.is_none_or(|vhost| vhost == on))
            .map(|((user, vhost), entry)| PermissionEntry {
                user: user.clone(),
                vhost: vhost.clone(),
                permissions: entry.permissions.clone(),
            })
            .collect()
    }

    /// Sets what a user may publish to and bind on a topic exchange.
    pub fn set_topic_permissions(
        &self,
        user: &str,
        vhost: &str,
        exchange: &str,
        permissions: TopicPermissions,
    ) -> Result<(), AccessError> {
        for source in [&permissions.write, &permissions.read] {
            // The text is checked as it is given and as it will be used.
            permission(source)?;
            let variables = [("username", Some(user)), ("vhost", Some(vhost)), ("client_id", Some("c"))];
            permission(&expand(source, &variables))?;
        }
        self.change(|inner| {
            inner.known(user)?;
            let key = (user.to_owned(), vhost.to_owned(), exchange.to_owned());
            inner.topics.insert(key, permissions);
            inner.renew(user, vhost)
        })
    }

    /// Takes topic permissions of a user on a vhost away: for one exchange, or for all.
    pub fn clear_topic_permissions(&self, user: &str, vhost: &str, exchange: Option<&str>) -> Result<(), AccessError> {
        self.change(|inner| {
            inner.known(user)?;
            inner.topics.retain(|(of, on, name), _| {
                of != user || on != vhost || exchange.is_some_and(|exchange| exchange != name)
            });
            inner.renew(user, vhost)
        })
    }

    /// The topic permissions of a user, or of all, on a vhost, or on all.
    pub fn list_topic_permissions(&self, user: Option<&str>, vhost: Option<&str>) -> Vec<TopicPermissionEntry> {
        self.inner
            .read()
            .topics
            .iter()
            .filter(|((of, on, _), _)| user.is_none_or(|user| user == of) && vhost.is_none_or(|vhost| vhost == on))
            .map(|((user, vhost, exchange), permissions)| TopicPermissionEntry {
                user: user.clone(),
                vhost: vhost.clone(),
                exchange: exchange.clone(),
                permissions: permissions.clone(),
            })
            .collect()
    }

    /// What a user may do on a vhost, compiled; `None` means that they may not even use it.
    pub fn grants(&self, user: &str, vhost: &str) -> Option<Arc<Grants>> {
        let inner = self.inner.read();
        inner.permissions.get(&(user.to_owned(), vhost.to_owned())).map(|entry| Arc::clone(&entry.grants))
    }

    /// Forgets the permissions on a vhost that is gone.
    pub fn delete_vhost(&self, vhost: &str) {
        let mut inner = self.inner.write();
        inner.permissions.retain(|(_, on), _| on != vhost);
        inner.topics.retain(|(_, on, _), _| on != vhost);
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn hash(&self, password: &str) -> PasswordHash {
        PasswordHash::random(self.options.hash_algorithm, password.as_bytes())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> Result<T, AccessError>) -> Result<T, AccessError> {
        let mut inner = self.inner.write();
        let done = change(&mut inner)?;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(done)
    }

    fn change_user(&self, name: &str, change: impl FnOnce(&mut User)) -> Result<(), AccessError> {
        self.change(|inner| {
            let user = inner.users.get_mut(name).ok_or_else(|| no_such_user(name))?;
            change(Arc::make_mut(user));
            Ok(())
        })
    }
}

impl Inner {
    fn known(&self, user: &str) -> Result<(), AccessError> {
        if self.users.contains_key(user) { Ok(()) } else { Err(no_such_user(user)) }
    }

    fn topics_of(&self, user: &str, vhost: &str) -> Vec<(String, TopicPermissions)> {
        self.topics
            .iter()
            .filter(|((of, on, _), _)| of == user && on == vhost)
            .map(|((_, _, exchange), permissions)| (exchange.clone(), permissions.clone()))
            .collect()
    }

    /// Builds the grants again after a change of topics.
    fn renew(&mut self, user: &str, vhost: &str) -> Result<(), AccessError> {
        let topics = self.topics_of(user, vhost);
        if let Some(entry) = self.permissions.get_mut(&(user.to_owned(), vhost.to_owned())) {
            entry.grants = Arc::new(Grants::new(user, vhost, &entry.permissions, topics)?);
        }
        Ok(())
    }
}

fn no_such_user(name: &str) -> AccessError {
    AccessError::NoSuchUser { name: name.to_owned() }
}
