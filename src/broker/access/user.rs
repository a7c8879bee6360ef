//! One user, and the texts of a refused login.

use super::password::PasswordHash;
use crate::broker::limits::UserLimits;

/// A user: immutable, a change makes a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name to log in with.
    pub name: String,
    /// The stored password.
    pub password: PasswordHash,
    /// Roles in administration: administrator, monitoring, policymaker, management, impersonator;
    /// others have no meaning here and are kept.
    pub tags: Vec<String>,
    /// How much the user may open.
    pub limits: UserLimits,
}

impl User {
    /// Whether the user has a tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }

    /// May do everything in administration.
    pub fn is_administrator(&self) -> bool {
        self.has_tag("administrator")
    }

    /// May see connections and nodes of everybody.
    pub fn is_monitor(&self) -> bool {
        self.is_administrator() || self.has_tag("monitoring")
    }

    /// May set policies and parameters on vhosts with access.
    pub fn is_policymaker(&self) -> bool {
        self.is_administrator() || self.has_tag("policymaker")
    }

    /// May use administration at all.
    pub fn is_manager(&self) -> bool {
        self.is_monitor() || self.is_policymaker() || self.has_tag("management")
    }

    /// May publish under another user's name.
    pub fn is_impersonator(&self) -> bool {
        self.has_tag("impersonator")
    }
}

/// Most tags of a user.
pub const TAGS_COUNT_MAX: usize = 32;

/// Splits tags as older definitions write them: by commas.
pub fn parse_tags(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|tag| !tag.is_empty()).map(ToOwned::to_owned).collect()
}

/// Refuses too many tags.
pub fn check_tags(tags: Vec<String>) -> Result<Vec<String>, TooManyTags> {
    if tags.len() > TAGS_COUNT_MAX { Err(TooManyTags) } else { Ok(tags) }
}

/// More than [`TAGS_COUNT_MAX`] tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a user may have at most {TAGS_COUNT_MAX} tags")]
pub struct TooManyTags;

/// Why somebody may not log in. The text is for the log and for operators, never for the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoginRefused {
    /// No such user, no password set, or the wrong one: which, nobody is told.
    #[error("user '{user}' - invalid credentials")]
    InvalidCredentials {
        /// The name that was given.
        user: String,
    },
    /// An empty password, refused whatever is stored.
    #[error(
        "user '{user}' attempted to log in with a blank password, which is prohibited by the internal authN backend. To use TLS/x509 certificate-based authentication, see the rabbitmq_auth_mechanism_ssl plugin and configure the client to use the EXTERNAL authentication mechanism. Alternatively change the password for the user to be non-blank."
    )]
    BlankPassword {
        /// The name that was given.
        user: String,
    },
    /// A user for local connections only, from elsewhere.
    #[error("user '{user}' can only connect via localhost")]
    LoopbackOnly {
        /// The name that was given.
        user: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_split_at_commas() {
        assert_eq!(parse_tags("a, administrator"), ["a", "administrator"]);
        assert_eq!(parse_tags(" ,"), Vec::<String>::new());
        assert!(check_tags(vec![String::new(); TAGS_COUNT_MAX + 1]).is_err());
    }

    #[test]
    fn a_tag_includes_the_lesser_ones() {
        let user = |tag: &str| User {
            name: "u".into(),
            password: PasswordHash::none(),
            tags: vec![tag.into()],
            limits: UserLimits::default(),
        };
        assert!(user("administrator").is_monitor() && user("administrator").is_policymaker());
        assert!(user("monitoring").is_manager() && !user("monitoring").is_policymaker());
        assert!(user("policymaker").is_manager() && !user("policymaker").is_monitor());
        assert!(user("management").is_manager() && !user("other").is_manager());
        assert!(!user("administrator").is_impersonator());
    }
}
