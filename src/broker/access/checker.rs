//! A session's view of its own permissions.
//!
//! Remembers decisions by name, so a publish asks one small map and one atomic. When anything
//! about users has changed it forgets everything and reads its grants anew.

use std::collections::HashMap;
use std::sync::Arc;

use super::grants::{Access, Grants, TopicPermissions, expand};
use super::registry::Users;
use crate::broker::pattern::Pattern;

/// Answers whether one user may do something on one vhost.
#[derive(Debug)]
pub struct Checker {
    user: String,
    vhost: String,
    client_id: Option<String>,
    generation: u64,
    grants: Option<Arc<Grants>>,
    /// Configure, write, read.
    decisions: [Decisions; 3],
    topics: Vec<(String, Option<Topic>)>,
}

/// Compiled permissions for the topics of one exchange.
#[derive(Debug)]
struct Topic {
    write: Option<Pattern>,
    read: Option<Pattern>,
}

impl Checker {
    /// A view for a user who is logged in on a vhost. `client_id` fills in for the variable of
    /// that name in topic permissions, where a protocol has such a thing.
    pub fn new(users: &Users, user: &str, vhost: &str, client_id: Option<&str>) -> Self {
        // Read before the grants: a change in between shows as a difference later.
        let generation = users.generation();
        Self {
            user: user.to_owned(),
            vhost: vhost.to_owned(),
            client_id: client_id.map(ToOwned::to_owned),
            generation,
            grants: users.grants(user, vhost),
            decisions: Default::default(),
            topics: Vec::new(),
        }
    }

    /// Whether the user may use the vhost at all.
    pub fn has_access(&mut self, users: &Users) -> bool {
        self.refresh(users);
        self.grants.is_some()
    }

    /// Whether access to the queue or exchange of that name is granted.
    pub fn check(&mut self, users: &Users, name: &str, access: Access) -> bool {
        self.refresh(users);
        let decisions = &mut self.decisions[access as usize];
        if let Some(decision) = decisions.get(name) {
            return decision;
        }
        let decision = self.grants.as_ref().is_some_and(|grants| grants.check(name, access));
        decisions.remember(name, decision);
        decision
    }

    /// Whether a topic of a topic exchange is granted, for writing or reading. The exchange itself
    /// is asked for apart.
    pub fn check_topic(&mut self, users: &Users, exchange: &str, routing_key: &str, access: Access) -> bool {
        self.refresh(users);
        let Some(grants) = &self.grants else { return false };
        if !grants.has_topics() {
            return true;
        }
        let at = match self.topics.iter().position(|(of, _)| of == exchange) {
            Some(at) => at,
            None => {
                let compiled = grants.topic(exchange).map(|permissions| self.compile(permissions));
                if self.topics.len() >= DECISIONS_COUNT_MAX {
                    self.topics.clear();
                }
                self.topics.push((exchange.to_owned(), compiled));
                self.topics.len() - 1
            }
        };
        let Some(topic) = &self.topics[at].1 else { return true };
        let pattern = match access {
            Access::Write => &topic.write,
            Access::Read => &topic.read,
            Access::Configure => return true,
        };
        pattern.as_ref().is_some_and(|pattern| pattern.is_match(routing_key))
    }

    fn refresh(&mut self, users: &Users) {
        let generation = users.generation();
        if generation != self.generation {
            self.generation = generation;
            self.grants = users.grants(&self.user, &self.vhost);
            self.decisions = Default::default();
            self.topics.clear();
        }
    }

    /// A permission that fails to compile once its variables are known grants nothing.
    fn compile(&self, permissions: &TopicPermissions) -> Topic {
        let variables = [
            ("username", Some(self.user.as_str())),
            ("vhost", Some(self.vhost.as_str())),
            ("client_id", self.client_id.as_deref()),
        ];
        let compile = |source: &str| super::grants::permission(&expand(source, &variables)).ok();
        Topic { write: compile(&permissions.write), read: compile(&permissions.read) }
    }
}

/// Names remembered per kind of access, and exchanges remembered for topics. Full: forget all.
const DECISIONS_COUNT_MAX: usize = 64;

/// Decisions by name.
#[derive(Debug, Default)]
struct Decisions(HashMap<Box<str>, bool, foldhash::fast::RandomState>);

impl Decisions {
    fn get(&self, name: &str) -> Option<bool> {
        self.0.get(name).copied()
    }

    fn remember(&mut self, name: &str, decision: bool) {
        if self.0.len() >= DECISIONS_COUNT_MAX {
            self.0.clear();
        }
        self.0.insert(name.into(), decision);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::access::Permissions;

    fn users() -> Users {
        let users = Users::default();
        users.add("u1", "secret").unwrap();
        users.set_permissions("u1", "/", permissions("^q")).unwrap();
        users
    }

    fn permissions(pattern: &str) -> Permissions {
        Permissions { configure: pattern.into(), write: pattern.into(), read: pattern.into() }
    }

    #[test]
    fn a_decision_holds_until_permissions_change() {
        let users = users();
        let mut checker = Checker::new(&users, "u1", "/", None);
        for _ in 0..2 {
            assert!(checker.check(&users, "q1", Access::Write));
            assert!(!checker.check(&users, "x", Access::Write));
        }
        users.set_permissions("u1", "/", permissions("^x")).unwrap();
        assert!(!checker.check(&users, "q1", Access::Write));
        assert!(checker.check(&users, "x", Access::Write));
        users.clear_permissions("u1", "/").unwrap();
        assert!(!checker.has_access(&users));
        assert!(!checker.check(&users, "x", Access::Write));
    }

    #[test]
    fn accesses_are_remembered_apart() {
        let users = users();
        let read_only = Permissions { configure: String::new(), write: String::new(), read: ".*".into() };
        users.set_permissions("u1", "/", read_only).unwrap();
        let mut checker = Checker::new(&users, "u1", "/", None);
        assert!(checker.check(&users, "q", Access::Read));
        assert!(!checker.check(&users, "q", Access::Write));
        assert!(!checker.check(&users, "q", Access::Configure));
    }

    #[test]
    fn remembered_names_are_bounded() {
        let users = users();
        let mut checker = Checker::new(&users, "u1", "/", None);
        for i in 0..10 * DECISIONS_COUNT_MAX {
            assert!(checker.check(&users, &format!("q{i}"), Access::Read));
            assert!(checker.check_topic(&users, &format!("x{i}"), "k", Access::Read));
        }
        assert!(checker.decisions.iter().all(|of| of.0.len() <= DECISIONS_COUNT_MAX));
    }

    #[test]
    fn a_topic_is_granted_unless_its_exchange_has_permissions() {
        let users = users();
        let mut checker = Checker::new(&users, "u1", "/", Some("c.1"));
        assert!(checker.check_topic(&users, "amq.topic", "anything", Access::Write));
        let topic = TopicPermissions { write: "^{username}\\.{client_id}$".into(), read: String::new() };
        users.set_topic_permissions("u1", "/", "amq.topic", topic).unwrap();
        assert!(checker.check_topic(&users, "amq.topic", "u1.c.1", Access::Write));
        assert!(!checker.check_topic(&users, "amq.topic", "u1.cx1", Access::Write));
        assert!(!checker.check_topic(&users, "amq.topic", "u1.c.1", Access::Read));
        assert!(checker.check_topic(&users, "other", "anything", Access::Write));
        users.clear_topic_permissions("u1", "/", Some("amq.topic")).unwrap();
        assert!(checker.check_topic(&users, "amq.topic", "anything", Access::Read));
    }

    #[test]
    fn a_variable_without_a_value_stays_text() {
        let users = users();
        let topic = TopicPermissions { write: "^{client_id}$".into(), read: ".*".into() };
        users.set_topic_permissions("u1", "/", "amq.topic", topic).unwrap();
        let mut checker = Checker::new(&users, "u1", "/", None);
        assert!(checker.check_topic(&users, "amq.topic", "{client_id}", Access::Write));
        assert!(!checker.check_topic(&users, "amq.topic", "c", Access::Write));
    }
}
