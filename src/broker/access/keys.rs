//! Access keys: which user of the broker signs with which secret.
//!
//! Those of the settings are there as long as the process; those that administration makes are global parameters of the
//! broker, so they are durable and part of its definitions. A secret has to be kept as it is: a signature cannot be
//! checked by its digest.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use crate::broker::Broker;

/// An access key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessKey {
    /// Its public half.
    pub id: String,
    /// Its secret half.
    pub secret: String,
    /// Whose permissions hold for what it signs.
    pub user: String,
}

impl AccessKey {
    /// Reads `ID:SECRET:USER` of the settings.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, rest) = text.split_once(':')?;
        // Names of users may have colons, secrets have none.
        let (secret, user) = rest.split_once(':')?;
        let is_whole = is_id(id) && !secret.is_empty() && !user.is_empty();
        is_whole.then(|| Self { id: id.to_owned(), secret: secret.to_owned(), user: user.to_owned() })
    }
}

/// What global parameters of access keys begin with.
pub const PARAMETER_PREFIX: &str = "access-key:";
/// Keys that administration may make. Full: a further one is refused.
pub const KEYS_COUNT_MAX: usize = 10_000;

/// Whether that may be the public half of a key: 1 to 128 letters, digits, `-`, `_` and `.`.
pub fn is_id(id: &str) -> bool {
    (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The keys of the settings.
#[derive(Debug, Default)]
pub struct SettledKeys {
    known: BTreeMap<String, Arc<AccessKey>>,
}

impl SettledKeys {
    /// These.
    pub fn new(keys: &[AccessKey]) -> Self {
        Self { known: keys.iter().map(|key| (key.id.clone(), Arc::new(key.clone()))).collect() }
    }

    /// The key of that id, here or among the broker's, as long as its user is there.
    pub fn find(&self, broker: &Broker, id: &str) -> Option<Arc<AccessKey>> {
        let found = match self.known.get(id) {
            Some(key) => key.clone(),
            None => Arc::new(of_parameter(id, &*broker.parameters.get_global(&parameter(id))?)?),
        };
        broker.access.get(&found.user).is_some().then_some(found)
    }
}

fn parameter(id: &str) -> String {
    format!("{PARAMETER_PREFIX}{id}")
}

fn of_parameter(id: &str, value: &Value) -> Option<AccessKey> {
    let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
    Some(AccessKey { id: id.to_owned(), secret: text("secret")?, user: text("user")? })
}

/// Why a key was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Nobody has that name.
    #[error("User does not exist")]
    NoSuchUser,
    /// There is one already.
    #[error("Access key already exists")]
    Exists,
    /// An id has other characters.
    #[error("an access key is 1 to 128 letters, digits, -, _ and .")]
    Id,
    /// There are [`KEYS_COUNT_MAX`].
    #[error("there are {KEYS_COUNT_MAX} access keys, and no more are kept")]
    TooMany,
    /// There is none.
    #[error("Access key does not exist")]
    NotFound,
}

/// Makes a key durable.
pub fn add(broker: &Broker, key: &AccessKey) -> Result<(), KeyError> {
    if !is_id(&key.id) {
        return Err(KeyError::Id);
    }
    if broker.access.get(&key.user).is_none() {
        return Err(KeyError::NoSuchUser);
    }
    let name = parameter(&key.id);
    if broker.parameters.get_global(&name).is_some() {
        return Err(KeyError::Exists);
    }
    if list(broker).len() >= KEYS_COUNT_MAX {
        return Err(KeyError::TooMany);
    }
    broker.parameters.set_global(&name, json!({ "user": key.user, "secret": key.secret }));
    Ok(())
}

/// Deletes a key.
pub fn delete(broker: &Broker, id: &str) -> Result<(), KeyError> {
    broker.parameters.clear_global(&parameter(id)).map_err(|_| KeyError::NotFound)
}

/// Deletes the keys of a user who is gone.
pub fn delete_of_user(broker: &Broker, user: &str) {
    for key in list(broker).iter().filter(|key| key.user == user) {
        // Somebody else may have been faster.
        let _ = delete(broker, &key.id);
    }
}

/// The keys that administration made, by id.
pub fn list(broker: &Broker) -> Vec<AccessKey> {
    let all = broker.parameters.list_global().into_iter();
    all.filter_map(|(name, value)| of_parameter(name.strip_prefix(PARAMETER_PREFIX)?, &value)).collect()
}

/// A new id and secret, of 20 and 40 characters, from random octets.
pub fn generate(random: &[u8; 60]) -> (String, String) {
    const LETTERS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const ALL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let id = random[..16].iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)]));
    let secret = random[20..].iter().map(|byte| char::from(ALL[usize::from(byte % 64)]));
    (format!("AKIA{}", id.collect::<String>()), secret.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{self, time::Time};

    fn broker() -> Broker {
        Broker::new(broker::Options::default(), Time::default()).unwrap()
    }

    fn key(id: &str, user: &str) -> AccessKey {
        AccessKey { id: id.into(), secret: "s".into(), user: user.into() }
    }

    #[test]
    fn key_is_found_while_its_user_is_there() {
        let (broker, settled) = (broker(), SettledKeys::new(&[key("S", "guest"), key("T", "nobody")]));
        add(&broker, &key("A", "guest")).unwrap();
        assert_eq!(settled.find(&broker, "A").unwrap().user, "guest");
        assert_eq!(settled.find(&broker, "S").unwrap().user, "guest");
        assert!(settled.find(&broker, "T").is_none());
        assert!(settled.find(&broker, "B").is_none());
        assert_eq!(add(&broker, &key("A", "guest")), Err(KeyError::Exists));
        assert_eq!(add(&broker, &key("C", "nobody")), Err(KeyError::NoSuchUser));
        assert_eq!(add(&broker, &key("a b", "guest")), Err(KeyError::Id));
        delete_of_user(&broker, "guest");
        assert!(list(&broker).is_empty());
        assert_eq!(delete(&broker, "A"), Err(KeyError::NotFound));
    }

    #[test]
    fn key_of_the_settings_has_three_parts() {
        assert_eq!(AccessKey::parse("A:s:u:v").unwrap(), AccessKey { user: "u:v".into(), ..key("A", "") });
        for text in ["A:s", "A::u", ":s:u", "A:s:", "a b:s:u"] {
            assert_eq!(AccessKey::parse(text), None, "{text}");
        }
        let (id, secret) = generate(&[7; 60]);
        assert!(is_id(&id) && id.len() == 20 && secret.len() == 40);
    }
}
