//! What a user may do on one vhost: three patterns over names, and patterns over topics.

use std::borrow::Cow;

use crate::broker::pattern::{Pattern, PatternError};

/// What somebody wants to do with a queue, an exchange or a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Create, change, delete.
    Configure,
    /// Put messages in.
    Write,
    /// Take messages out.
    Read,
}

impl Access {
    /// The word for texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// Permissions as they are given and listed: patterns as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// For [`Access::Configure`].
    pub configure: String,
    /// For [`Access::Write`].
    pub write: String,
    /// For [`Access::Read`].
    pub read: String,
}

impl Permissions {
    /// Everything.
    pub fn all() -> Self {
        let any = || ".*".to_owned();
        Self { configure: any(), write: any(), read: any() }
    }
}

/// Permissions for the topics of one exchange: patterns over routing keys, as text.
///
/// `{username}`, `{vhost}` and `{client_id}` stand for what the session knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPermissions {
    /// For publishing.
    pub write: String,
    /// For binding.
    pub read: String,
}

/// The compiled permissions of one user on one vhost.
#[derive(Debug)]
pub struct Grants {
    user: String,
    vhost: String,
    configure: Pattern,
    write: Pattern,
    read: Pattern,
    topics: Vec<(String, TopicPermissions)>,
}

impl Grants {
    pub(super) fn new(
        user: &str,
        vhost: &str,
        permissions: &Permissions,
        topics: Vec<(String, TopicPermissions)>,
    ) -> Result<Self, (String, PatternError)> {
        Ok(Self {
            user: user.to_owned(),
            vhost: vhost.to_owned(),
            configure: permission(&permissions.configure)?,
            write: permission(&permissions.write)?,
            read: permission(&permissions.read)?,
            topics,
        })
    }

    /// Whose grants.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Where they hold.
    pub fn vhost(&self) -> &str {
        &self.vhost
    }

    /// Whether access to the queue or exchange of that name is granted. The default exchange is
    /// asked for by its empty name or as `amq.default`.
    pub fn check(&self, name: &str, access: Access) -> bool {
        let name = if name.is_empty() { DEFAULT_EXCHANGE } else { name };
        match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        }
        .is_match(name)
    }

    /// Whether any exchange has permissions for topics.
    pub fn has_topics(&self) -> bool {
        !self.topics.is_empty()
    }

    /// The permissions for the topics of an exchange; without any, every topic is granted.
    pub fn topic(&self, exchange: &str) -> Option<&TopicPermissions> {
        self.topics.iter().find(|(of, _)| of == exchange).map(|(_, permissions)| permissions)
    }
}

/// The name under which the default exchange is known to permissions.
pub(super) const DEFAULT_EXCHANGE: &str = "amq.default";

/// Compiles a permission: the empty one grants nothing, as `^$`.
pub(super) fn permission(source: &str) -> Result<Pattern, (String, PatternError)> {
    let compiled = Pattern::compile(if source.is_empty() { "^$" } else { source });
    compiled.map_err(|error| (source.to_owned(), error))
}

/// A topic permission with its variables replaced by text that matches only itself. A variable
/// without a value stays as it is.
pub(super) fn expand<'a>(source: &'a str, variables: &[(&str, Option<&str>)]) -> Cow<'a, str> {
    let mut out = Cow::Borrowed(source);
    for (name, value) in variables {
        let placeholder = format!("{{{name}}}");
        if let Some(value) = value
            && out.contains(&placeholder)
        {
            out = Cow::Owned(out.replace(&placeholder, &escape(value)));
        }
    }
    out
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(configure: &str, write: &str, read: &str) -> Grants {
        let permissions = Permissions { configure: configure.into(), write: write.into(), read: read.into() };
        Grants::new("u", "/", &permissions, Vec::new()).unwrap()
    }

    #[test]
    fn each_access_has_its_own_pattern() {
        let grants = grants("^c", "^w", ".*");
        assert!(grants.check("cx", Access::Configure) && !grants.check("cx", Access::Write));
        assert!(grants.check("wx", Access::Write) && grants.check("anything", Access::Read));
    }

    #[test]
    fn an_empty_permission_grants_nothing() {
        let grants = grants("", "", "");
        for name in ["", "q", "amq.default"] {
            assert!(!grants.check(name, Access::Read), "{name}");
        }
    }

    #[test]
    fn the_default_exchange_is_known_by_name() {
        let grants = grants("^$", "^amq\\.default$", "^$");
        assert!(grants.check("", Access::Write));
        assert!(grants.check("amq.default", Access::Write));
        assert!(!grants.check("", Access::Read));
    }

    #[test]
    fn variables_match_only_themselves() {
        let variables = [("username", Some("a.b|c")), ("vhost", Some("/")), ("client_id", None)];
        assert_eq!(expand("^{username}\\.{vhost}\\.{client_id}", &variables), "^a\\.b\\|c\\.\\/\\.{client_id}");
        assert!(matches!(expand(".*", &variables), Cow::Borrowed(_)));
    }
}
