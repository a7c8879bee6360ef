//! All users and all permissions.
//!
//! Knows nothing of vhosts and exchanges: whether those exist is for the caller to check, and the
//! caller says when one is gone.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::RwLock;

use super::grants::{Grants, Permissions, TopicPermissions, expand, permission};
use super::password::{HashAlgorithm, PasswordHash};
use super::user::{LoginRefused, TooManyTags, User, check_tags};
use super::verified::Verified;
use crate::broker::limits::UserLimits;
use crate::broker::pattern::PatternError;
use crate::broker::record::{Definition, DefinitionKey, Log, Record};

/// Settings of the registry.
#[derive(Clone, Debug)]
pub struct Options {
    /// Users who may connect from the same host only. Default: guest.
    pub loopback_users: Vec<String>,
    /// How new passwords are digested, and at their next login those that were digested less well.
    /// Default: argon2id.
    pub hash_algorithm: HashAlgorithm,
}

impl Default for Options {
    fn default() -> Self {
        Self { loopback_users: vec!["guest".into()], hash_algorithm: HashAlgorithm::Argon2id }
    }
}

/// Users and permissions.
#[derive(Debug, Default)]
pub struct Users {
    options: Options,
    log: Log,
    // Taken alone, nothing else is locked inside; no password is digested under it.
    inner: RwLock<Inner>,
    verified: Verified,
    /// Runs what keeps a thread busy for long. Set once.
    aside: OnceLock<Aside>,
    generation: AtomicU64,
}

/// Runs what it is given, once, before it returns, somewhere where it holds nobody up.
pub type Aside = fn(&mut dyn FnMut());

#[derive(Debug, Default)]
struct Inner {
    users: BTreeMap<String, Arc<User>>,
    /// By user and vhost.
    permissions: BTreeMap<(String, String), Entry>,
    /// By user, vhost and exchange; may exist without permissions on the vhost.
    topics: BTreeMap<(String, String, String), TopicPermissions>,
}

/// Whether it was the password.
enum Checked {
    Wrong,
    /// With another hash of it, where the stored one is worse than new ones.
    Right {
        better: Option<PasswordHash>,
    },
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
    /// A permission is no regular expression. The text is rabbitmqctl's.
    #[error("{{:invalid_regexp, '{pattern}', {}}}", Reason(.reason))]
    InvalidRegexp {
        /// The permission.
        pattern: String,
        /// What is wrong with it.
        reason: PatternError,
    },
    /// The same of a topic permission, which rabbitmqctl quotes differently.
    #[error("{{:invalid_regexp, \"{pattern}\", {}}}", Reason(.reason))]
    InvalidTopicRegexp {
        /// The permission.
        pattern: String,
        /// What is wrong with it.
        reason: PatternError,
    },
    /// Too many tags.
    #[error(transparent)]
    TooManyTags(#[from] TooManyTags),
}

/// A refused pattern as rabbitmqctl prints it: `{'missing )', 1}`.
struct Reason<'a>(&'a PatternError);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            PatternError::TooLong => f.write_str(":pattern_too_long"),
            PatternError::Invalid { message, at } => write!(f, "{{'{message}', {at}}}"),
        }
    }
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

    /// Has changes recorded in `log`.
    #[must_use]
    pub fn with_log(mut self, log: Log) -> Self {
        self.log = log;
        self
    }

    /// Has slow digests run by `aside` rather than in the caller's midst. The first call counts.
    pub fn digest_aside(&self, aside: Aside) {
        // A second one would be the same function.
        let _ = self.aside.set(aside);
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
            self.insert(inner, user);
            Ok(())
        })
    }

    /// Adds a user or replaces the one of that name, whose permissions stay. True when it is new.
    pub fn put(&self, user: User) -> Result<bool, AccessError> {
        let user = User { tags: check_tags(user.tags)?, ..user };
        self.change(|inner| Ok(self.insert(inner, user)))
    }

    /// Removes a user and their permissions.
    pub fn delete(&self, name: &str) -> Result<(), AccessError> {
        self.change(|inner| {
            inner.known(name)?;
            self.log.append(|| Record::Removed(DefinitionKey::User(name.to_owned())));
            inner.users.remove(name);
            self.verified.forget(name);
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

    /// The user, if that is their password. Takes as long for an unknown name as for a known one with a
    /// wrong password: some 20 ms of work, done by [`Users::digest_aside`]. So does the first right one;
    /// then it is remembered for as long as the process runs and the password stays. A password that was
    /// digested less well than new ones are is then digested anew, and the user's record written.
    ///
    /// Does not look at where the client comes from: see [`Users::is_loopback_only`].
    pub fn authenticate(&self, name: &str, password: &[u8]) -> Result<Arc<User>, LoginRefused> {
        if password.is_empty() {
            return Err(LoginRefused::BlankPassword { user: name.to_owned() });
        }
        let user = self.get(name);
        if let Some(user) = &user
            && self.verified.knows(name, &user.password, password)
        {
            return Ok(Arc::clone(user));
        }
        let checked = self.aside(|| self.check(user.as_deref(), password));
        let (Some(user), Checked::Right { better }) = (user, checked) else {
            return Err(LoginRefused::InvalidCredentials { user: name.to_owned() });
        };
        let user = better.and_then(|better| self.replace_password(&user, better)).unwrap_or(user);
        self.verified.remember(name, &user.password, password);
        Ok(user)
    }

    fn check(&self, user: Option<&User>, password: &[u8]) -> Checked {
        let wanted = self.options.hash_algorithm;
        let stored = user.map(|user| &user.password);
        if stored.is_some_and(|stored| stored.verify(password)) {
            let is_worse = stored.is_some_and(|stored| !stored.algorithm().is_slow()) && wanted.is_slow();
            return Checked::Right { better: is_worse.then(|| PasswordHash::random(wanted, password)) };
        }
        // Digested in vain, so that time tells neither who exists nor how long ago they logged in.
        if stored.is_none_or(|stored| stored.algorithm().is_slow() != wanted.is_slow()) {
            PasswordHash::digest_in_vain(wanted, password);
        }
        Checked::Wrong
    }

    /// Stores another hash of the same password, unless the password was changed in the meantime.
    fn replace_password(&self, user: &User, better: PasswordHash) -> Option<Arc<User>> {
        let mut inner = self.inner.write();
        let now = inner.users.get(&user.name).filter(|now| now.password == user.password)?;
        let renewed = User { password: better, ..User::clone(now) };
        self.insert(&mut inner, renewed);
        inner.users.get(&user.name).cloned()
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
            self.log.append(|| {
                let (user, vhost, permissions) = (user.to_owned(), vhost.to_owned(), permissions.clone());
                Record::Defined(Definition::Permissions(PermissionEntry { user, vhost, permissions }))
            });
            let entry = Entry { permissions, grants: Arc::new(grants) };
            inner.permissions.insert((user.to_owned(), vhost.to_owned()), entry);
            Ok(())
        })
    }

    /// Takes all permissions of a user on a vhost away, if there are any.
    pub fn clear_permissions(&self, user: &str, vhost: &str) -> Result<(), AccessError> {
        self.change(|inner| {
            inner.known(user)?;
            let key = (user.to_owned(), vhost.to_owned());
            if inner.permissions.contains_key(&key) {
                let (user, vhost) = key.clone();
                self.log.append(|| Record::Removed(DefinitionKey::Permissions { user, vhost }));
                inner.permissions.remove(&key);
            }
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
            let variables = [("username", Some(user)), ("vhost", Some(vhost)), ("client_id", Some("c"))];
            permission(source)
                .and_then(|_| permission(&expand(source, &variables)))
                .map_err(|(_, reason)| AccessError::InvalidTopicRegexp { pattern: source.clone(), reason })?;
        }
        self.change(|inner| {
            inner.known(user)?;
            let key = (user.to_owned(), vhost.to_owned(), exchange.to_owned());
            self.log.append(|| {
                let ((user, vhost, exchange), permissions) = (key.clone(), permissions.clone());
                let entry = TopicPermissionEntry { user, vhost, exchange, permissions };
                Record::Defined(Definition::TopicPermissions(entry))
            });
            inner.topics.insert(key, permissions);
            inner.renew(user, vhost)
        })
    }

    /// Takes topic permissions of a user on a vhost away: for one exchange, or for all.
    pub fn clear_topic_permissions(&self, user: &str, vhost: &str, exchange: Option<&str>) -> Result<(), AccessError> {
        self.change(|inner| {
            inner.known(user)?;
            self.log.append(|| {
                let exchange = exchange.map(ToOwned::to_owned);
                let (user, vhost) = (user.to_owned(), vhost.to_owned());
                Record::Removed(DefinitionKey::TopicPermissions { user, vhost, exchange })
            });
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
        self.aside(|| PasswordHash::random(self.options.hash_algorithm, password.as_bytes()))
    }

    /// Runs slow work where it holds nobody up. No lock is held meanwhile.
    fn aside<T>(&self, work: impl Fn() -> T) -> T {
        let Some(aside) = self.aside.get().filter(|_| self.options.hash_algorithm.is_slow()) else { return work() };
        let mut done = None;
        aside(&mut || done = Some(work()));
        done.expect("what is run aside was run")
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> Result<T, AccessError>) -> Result<T, AccessError> {
        let mut inner = self.inner.write();
        let done = change(&mut inner)?;
        self.generation.fetch_add(1, Ordering::Release);
        Ok(done)
    }

    fn change_user(&self, name: &str, change: impl FnOnce(&mut User)) -> Result<(), AccessError> {
        self.change(|inner| {
            let mut user = User::clone(inner.users.get(name).ok_or_else(|| no_such_user(name))?);
            change(&mut user);
            self.insert(inner, user);
            Ok(())
        })
    }

    /// Returns whether it is new.
    fn insert(&self, inner: &mut Inner, user: User) -> bool {
        let user = Arc::new(user);
        self.log.append(|| Record::Defined(Definition::User(user.clone())));
        inner.users.insert(user.name.clone(), user).is_none()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::access::Access;

    fn with(names: &[&str]) -> Users {
        let users = Users::default();
        for name in names {
            users.add(name, "secret").unwrap();
        }
        users
    }

    fn permissions(configure: &str, write: &str, read: &str) -> Permissions {
        Permissions { configure: configure.into(), write: write.into(), read: read.into() }
    }

    #[test]
    fn a_user_logs_in_with_the_password_only() {
        let users = with(&["u1"]);
        assert_eq!(users.authenticate("u1", b"secret").unwrap().name, "u1");
        let refusal = |name: &str, password: &[u8]| users.authenticate(name, password).unwrap_err().to_string();
        assert_eq!(refusal("u1", b"bad"), "user 'u1' - invalid credentials");
        assert_eq!(refusal("nope", b"secret"), "user 'nope' - invalid credentials");
        assert!(refusal("u1", b"").starts_with("user 'u1' attempted to log in with a blank password"));
        users.change_password("u1", "other").unwrap();
        assert!(users.authenticate("u1", b"secret").is_err() && users.authenticate("u1", b"other").is_ok());
        users.clear_password("u1").unwrap();
        assert!(users.authenticate("u1", b"other").is_err());
    }

    fn imported(users: &Users, algorithm: HashAlgorithm) {
        let password = PasswordHash::random(algorithm, b"secret");
        users
            .put(User { name: "old".into(), password, tags: vec!["t".into()], limits: UserLimits::default() })
            .unwrap();
    }

    #[test]
    fn a_hash_of_rabbitmq_becomes_argon2id_at_the_first_login() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha512, HashAlgorithm::Md5] {
            let users = Users::default();
            imported(&users, algorithm);
            assert!(users.authenticate("old", b"wrong").is_err());
            assert_eq!(users.get("old").unwrap().password.algorithm(), algorithm, "a wrong password changes nothing");
            let user = users.authenticate("old", b"secret").unwrap();
            assert_eq!(
                (user.password.algorithm(), user.tags.as_slice()),
                (HashAlgorithm::Argon2id, &["t".to_owned()][..])
            );
            assert_eq!(users.get("old").unwrap(), user);
            assert!(user.password.verify(b"secret"));
            assert!(users.authenticate("old", b"secret").is_ok() && users.authenticate("old", b"wrong").is_err());
            assert_eq!(users.get("old").unwrap(), user, "once is enough");
        }
    }

    #[test]
    fn a_password_that_changed_during_its_login_is_not_replaced() {
        let users = Users::default();
        imported(&users, HashAlgorithm::Sha256);
        let before = users.get("old").unwrap();
        users.change_password("old", "new").unwrap();
        assert_eq!(users.replace_password(&before, PasswordHash::none()), None);
        assert!(users.authenticate("old", b"new").is_ok() && users.authenticate("old", b"secret").is_err());
    }

    #[test]
    fn new_passwords_are_argon2id_unless_rabbitmq_is_to_read_them() {
        let users = with(&["u1"]);
        assert_eq!(users.get("u1").unwrap().password.algorithm(), HashAlgorithm::Argon2id);
        let users = Users::new(Options { hash_algorithm: HashAlgorithm::Sha256, ..Options::default() });
        users.add("u1", "secret").unwrap();
        imported(&users, HashAlgorithm::Sha512);
        assert!(users.authenticate("u1", b"secret").is_ok() && users.authenticate("old", b"secret").is_ok());
        assert_eq!(users.get("u1").unwrap().password.algorithm(), HashAlgorithm::Sha256);
        assert_eq!(users.get("old").unwrap().password.algorithm(), HashAlgorithm::Sha512);
    }

    #[test]
    fn only_the_first_login_with_a_password_is_slow() {
        use std::sync::atomic::AtomicUsize;
        static SLOW: AtomicUsize = AtomicUsize::new(0);
        let users = with(&["u1"]);
        users.digest_aside(|work| {
            SLOW.fetch_add(1, Ordering::Relaxed);
            work();
        });
        let slow = || SLOW.swap(0, Ordering::Relaxed);
        for (password, is_right, is_slow) in [
            ("secret", true, true),
            ("secret", true, false),
            ("wrong", false, true),
            ("wrong", false, true),
            ("secret", true, false),
        ] {
            assert_eq!(users.authenticate("u1", password.as_bytes()).is_ok(), is_right);
            assert_eq!(slow(), usize::from(is_slow), "{password}");
        }
        assert!(users.authenticate("nope", b"secret").is_err());
        assert_eq!(slow(), 1, "an unknown name takes as long");
        users.change_password("u1", "secret").unwrap();
        slow();
        assert!(users.authenticate("u1", b"secret").is_ok());
        assert_eq!(slow(), 1, "a password that was set anew is not remembered");
        users.delete("u1").unwrap();
        assert!(users.authenticate("u1", b"secret").is_err());
    }

    #[test]
    fn a_blank_password_never_fits() {
        let users = Users::default();
        users.add("a", "").unwrap();
        assert!(users.authenticate("a", b"").is_err());
    }

    #[test]
    fn names_are_taken_once_and_must_exist() {
        let users = with(&["guest"]);
        assert_eq!(users.add("guest", "x").unwrap_err().to_string(), "User \"guest\" already exists");
        let text = |done: Result<(), AccessError>| done.unwrap_err().to_string();
        assert_eq!(text(users.delete("nope")), "User \"nope\" does not exist");
        assert_eq!(text(users.set_tags("nope", vec![])), "User \"nope\" does not exist");
        assert_eq!(text(users.set_permissions("nope", "/", Permissions::all())), "User \"nope\" does not exist");
        assert_eq!(text(users.set_tags("guest", vec![String::new(); 33])), "a user may have at most 32 tags");
    }

    #[test]
    fn invalid_permissions_are_refused_and_change_nothing() {
        let users = with(&["u1"]);
        let error = users.set_permissions("u1", "/", permissions(".*", "[z-a", ".*")).unwrap_err();
        assert_eq!(error.to_string(), "{:invalid_regexp, '[z-a', {'range out of order in character class', 3}}");
        let topic = TopicPermissions { write: "(".into(), read: ".*".into() };
        let error = users.set_topic_permissions("u1", "/", "amq.topic", topic).unwrap_err();
        assert_eq!(error.to_string(), "{:invalid_regexp, \"(\", {'missing )', 1}}");
        assert_eq!(users.list_permissions(None, None), []);
        assert!(users.grants("u1", "/").is_none());
    }

    #[test]
    fn an_empty_permission_is_listed_as_it_was_given() {
        let users = with(&["u1"]);
        users.set_permissions("u1", "/", permissions("^(?!amq\\.).*", "", ".*")).unwrap();
        assert_eq!(users.permissions("u1", "/").unwrap().write, "");
        let grants = users.grants("u1", "/").unwrap();
        assert!(!grants.check("q", Access::Write) && grants.check("q", Access::Configure));
        assert!(!grants.check("amq.topic", Access::Configure));
    }

    #[test]
    fn a_user_takes_the_permissions_along() {
        let users = with(&["u1", "u2"]);
        let topic = TopicPermissions { write: ".*".into(), read: ".*".into() };
        for user in ["u1", "u2"] {
            users.set_permissions(user, "/", Permissions::all()).unwrap();
            users.set_topic_permissions(user, "/", "amq.topic", topic.clone()).unwrap();
        }
        users.delete("u1").unwrap();
        assert_eq!(users.list_permissions(None, Some("/")).len(), 1);
        assert_eq!(users.list_topic_permissions(None, None).len(), 1);
        users.delete_vhost("/");
        assert_eq!(users.list_permissions(None, None), []);
        assert_eq!(users.list_topic_permissions(None, None), []);
    }

    #[test]
    fn replacing_a_user_keeps_the_permissions() {
        let users = with(&["u1"]);
        users.set_permissions("u1", "/", Permissions::all()).unwrap();
        let user = User { tags: vec!["management".into()], ..User::clone(&users.get("u1").unwrap()) };
        assert_eq!(users.put(user), Ok(false));
        assert!(users.get("u1").unwrap().is_manager());
        assert!(users.grants("u1", "/").is_some());
        assert!(users.authenticate("u1", b"secret").is_ok());
    }

    #[test]
    fn guest_is_local_unless_told_otherwise() {
        assert!(Users::default().is_loopback_only("guest"));
        let users = Users::new(Options { loopback_users: vec![], ..Options::default() });
        assert!(!users.is_loopback_only("guest"));
    }

    #[test]
    fn limits_of_a_user_are_set_one_by_one() {
        let users = with(&["u1"]);
        users.set_limits("u1", UserLimits { max_channels: Some(5), ..UserLimits::default() }).unwrap();
        users.set_limits("u1", UserLimits { max_connections: Some(-1), ..UserLimits::default() }).unwrap();
        let limits = users.get("u1").unwrap().limits;
        assert_eq!((limits.channels(), limits.connections()), (Some(5), None));
        users.clear_limit("u1", "all").unwrap();
        assert!(users.get("u1").unwrap().limits.is_empty());
    }
}
