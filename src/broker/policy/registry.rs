//! The policies of all vhosts, and which of them hold for an object.
//!
//! Whoever declares an object asks [`Policies::effective`] once and asks again when
//! [`Policies::generation`] has moved; the message path never comes here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde_json::{Map, Value as Json};

use super::keys;
use super::rule::{Definition, Layer, ObjectKind, Policy};
use crate::broker::parameters::{NotFound, Parameter};
use crate::broker::record::{self, DefinitionKey, Log, Record};

/// All policies and operator policies.
#[derive(Debug, Default)]
pub struct Policies {
    // Taken alone, nothing else is locked inside.
    by_vhost: RwLock<HashMap<String, Vhost>>,
    generation: AtomicU64,
    log: Log,
}

/// The policies of one vhost, each list with the strongest first.
#[derive(Debug, Default)]
struct Vhost {
    user: Vec<Arc<Policy>>,
    operator: Vec<Arc<Policy>>,
}

impl Vhost {
    fn layer(&self, layer: Layer) -> &Vec<Arc<Policy>> {
        match layer {
            Layer::User => &self.user,
            Layer::Operator => &self.operator,
        }
    }

    fn layer_mut(&mut self, layer: Layer) -> &mut Vec<Arc<Policy>> {
        match layer {
            Layer::User => &mut self.user,
            Layer::Operator => &mut self.operator,
        }
    }
}

impl Policies {
    /// No policies yet; changes are recorded in `log`.
    pub fn new(log: Log) -> Self {
        Self { log, ..Self::default() }
    }

    /// Adds a policy or replaces the one of its name. Whether the vhost exists is for the caller
    /// to check.
    pub fn set(&self, layer: Layer, policy: Policy) -> Arc<Policy> {
        let policy = Arc::new(policy);
        let mut by_vhost = self.by_vhost.write();
        self.log.append(|| Record::Defined(record::Definition::Policy(layer, policy.clone())));
        let policies = by_vhost.entry(policy.vhost.clone()).or_default().layer_mut(layer);
        policies.retain(|old| old.name != policy.name);
        policies.push(Arc::clone(&policy));
        // RabbitMQ leaves open which of two equal priorities wins; here it is the first by name.
        policies.sort_by(|a, b| {
            let priority = |policy: &Policy| policy.priority.as_f64().unwrap_or(0.0);
            priority(b).total_cmp(&priority(a)).then_with(|| a.name.cmp(&b.name))
        });
        self.generation.fetch_add(1, Ordering::Release);
        policy
    }

    /// Removes a policy.
    pub fn clear(&self, layer: Layer, vhost: &str, name: &str) -> Result<(), NotFound> {
        let mut by_vhost = self.by_vhost.write();
        let policies = by_vhost.get_mut(vhost).ok_or(NotFound)?.layer_mut(layer);
        let at = policies.iter().position(|policy| policy.name == name).ok_or(NotFound)?;
        self.log.append(|| {
            let (vhost, name) = (vhost.to_owned(), name.to_owned());
            Record::Removed(DefinitionKey::Policy { layer, vhost, name })
        });
        policies.remove(at);
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// The policy of that name.
    pub fn get(&self, layer: Layer, vhost: &str, name: &str) -> Option<Arc<Policy>> {
        let by_vhost = self.by_vhost.read();
        by_vhost.get(vhost)?.layer(layer).iter().find(|policy| policy.name == name).cloned()
    }

    /// The policies of a vhost, or of all, by vhost and name.
    pub fn list(&self, layer: Layer, vhost: Option<&str>) -> Vec<Arc<Policy>> {
        let by_vhost = self.by_vhost.read();
        let mut policies: Vec<_> = match vhost {
            Some(vhost) => by_vhost.get(vhost).map(|of| of.layer(layer).clone()).unwrap_or_default(),
            None => by_vhost.values().flat_map(|of| of.layer(layer).iter().cloned()).collect(),
        };
        policies.sort_by(|a, b| (&a.vhost, &a.name).cmp(&(&b.vhost, &b.name)));
        policies
    }

    /// The operator policies as runtime parameters, the form in which definitions carry them.
    pub fn operator_parameters(&self, vhost: Option<&str>) -> Vec<Parameter> {
        self.list(Layer::Operator, vhost).iter().map(|policy| policy.to_parameter()).collect()
    }

    /// What holds for an object.
    pub fn effective(&self, vhost: &str, kind: ObjectKind, name: &str) -> Effective {
        let by_vhost = self.by_vhost.read();
        let Some(of) = by_vhost.get(vhost) else { return Effective::default() };
        let find = |policies: &[Arc<Policy>]| policies.iter().find(|policy| policy.applies_to(kind, name)).cloned();
        Effective::new(find(&of.user), find(&of.operator))
    }

    /// Moves with every change, so that a cached [`Effective`] can be told from a fresh one. Read it
    /// before asking for what it guards.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Forgets a vhost.
    pub fn delete_vhost(&self, vhost: &str) {
        if self.by_vhost.write().remove(vhost).is_some() {
            self.generation.fetch_add(1, Ordering::Release);
        }
    }
}

/// The policies that hold for one object, and their settings as one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effective {
    /// The policy.
    pub policy: Option<Arc<Policy>>,
    /// The operator policy.
    pub operator: Option<Arc<Policy>>,
    definition: Option<Arc<Definition>>,
}

impl Effective {
    fn new(policy: Option<Arc<Policy>>, operator: Option<Arc<Policy>>) -> Self {
        let definition = match (&policy, &operator) {
            (None, None) => None,
            (Some(one), None) | (None, Some(one)) => Some(Arc::clone(&one.definition)),
            (Some(user), Some(operator)) => {
                let mut merged = Definition::clone(&user.definition);
                for (key, value) in operator.definition.iter() {
                    let value = match user.definition.get(key) {
                        Some(user) => keys::merge(key, user, value),
                        None => value.clone(),
                    };
                    merged.insert(key.clone(), value);
                }
                Some(Arc::new(merged))
            }
        };
        Self { policy, operator, definition }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.definition.as_ref()?.get(key)
    }

    /// Whether no policy holds.
    pub fn is_empty(&self) -> bool {
        self.definition.is_none()
    }

    /// All settings; `None` when no policy holds, which listings tell from an empty one.
    pub fn definition(&self) -> Option<&Definition> {
        self.definition.as_deref()
    }

    /// All settings as a JSON object, empty when no policy holds.
    pub fn definition_json(&self) -> Map<String, Json> {
        self.definition.iter().flat_map(|of| of.iter()).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The name of the policy, for listings.
    pub fn policy_name(&self) -> Option<&str> {
        self.policy.as_deref().map(|policy| policy.name.as_str())
    }

    /// The name of the operator policy, for listings.
    pub fn operator_policy_name(&self) -> Option<&str> {
        self.operator.as_deref().map(|policy| policy.name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ExchangePolicy, QueuePolicy};
    use super::*;
    use crate::broker::queue::behaviour::Overflow;

    fn policy(layer: Layer, name: &str, pattern: &str, definition: &str, priority: i64) -> Policy {
        Policy::parse(layer, "/", name, pattern, definition, priority, "all").unwrap()
    }

    fn with(policies: &[(Layer, &str, &str, &str, i64)]) -> Policies {
        let all = Policies::default();
        for (layer, name, pattern, definition, priority) in policies {
            all.set(*layer, policy(*layer, name, pattern, definition, *priority));
        }
        all
    }

    fn name_for(policies: &Policies, queue: &str) -> Option<String> {
        policies.effective("/", ObjectKind::ClassicQueue, queue).policy_name().map(ToOwned::to_owned)
    }

    #[test]
    fn the_highest_priority_that_matches_wins() {
        let policies = with(&[
            (Layer::User, "low", ".*", r#"{"max-length":1}"#, 0),
            (Layer::User, "high", "^a", r#"{"max-length":2}"#, 5),
            (Layer::User, "stream", ".*", r#"{"max-age":"1h"}"#, 9),
        ]);
        assert_eq!(name_for(&policies, "abc").as_deref(), Some("high"));
        assert_eq!(name_for(&policies, "xyz").as_deref(), Some("low"));
        policies.clear(Layer::User, "/", "high").unwrap();
        assert_eq!(name_for(&policies, "abc").as_deref(), Some("low"));
    }

    #[test]
    fn equal_priorities_go_by_name() {
        let policies = with(&[
            (Layer::User, "b", ".*", r#"{"max-length":1}"#, 3),
            (Layer::User, "a", ".*", r#"{"max-length":2}"#, 3),
        ]);
        assert_eq!(name_for(&policies, "q").as_deref(), Some("a"));
    }

    #[test]
    fn an_operator_limits_what_users_set() {
        let policies = with(&[
            (
                Layer::User,
                "u",
                ".*",
                r#"{"max-length":10,"message-ttl":5,"overflow":"drop-head","dead-letter-exchange":""}"#,
                0,
            ),
            (
                Layer::Operator,
                "o",
                ".*",
                r#"{"max-length":7,"message-ttl":9,"overflow":"reject-publish","expires":60}"#,
                0,
            ),
        ]);
        let effective = policies.effective("/", ObjectKind::ClassicQueue, "q");
        assert_eq!(
            effective.queue(),
            QueuePolicy {
                max_length: Some(7),
                message_ttl_ms: Some(5),
                expires_ms: Some(60),
                overflow: Some(Overflow::RejectPublish),
                dead_letter_exchange: Some(String::new()),
                ..QueuePolicy::default()
            }
        );
        assert_eq!((effective.policy_name(), effective.operator_policy_name()), (Some("u"), Some("o")));
    }

    #[test]
    fn an_exchange_reads_its_alternate() {
        let policies = with(&[(Layer::User, "u", "^x", r#"{"alternate-exchange":"other","max-age":"1h"}"#, 0)]);
        let effective = policies.effective("/", ObjectKind::Exchange, "x1");
        assert_eq!(effective.exchange(), ExchangePolicy { alternate_exchange: Some("other".into()) });
        assert!(policies.effective("/", ObjectKind::Exchange, "y").is_empty());
        assert!(policies.effective("other", ObjectKind::Exchange, "x1").is_empty());
    }

    #[test]
    fn every_change_moves_the_generation() {
        let policies = Policies::default();
        let mut seen = policies.generation();
        let mut moved =
            |policies: &Policies| std::mem::replace(&mut seen, policies.generation()) != policies.generation();
        policies.set(Layer::User, policy(Layer::User, "p", ".*", r#"{"max-length":1}"#, 0));
        assert!(moved(&policies));
        policies.clear(Layer::User, "/", "p").unwrap();
        assert!(moved(&policies));
        assert_eq!(policies.clear(Layer::User, "/", "p").unwrap_err().to_string(), "Parameter does not exist");
        assert!(!moved(&policies));
        policies.delete_vhost("/");
        assert!(moved(&policies));
    }

    #[test]
    fn a_policy_replaces_the_one_of_its_name() {
        let policies = with(&[
            (Layer::User, "p", ".*", r#"{"max-length":1}"#, 0),
            (Layer::User, "p", "^a", r#"{"expires":1}"#, 0),
            (Layer::Operator, "p", ".*", r#"{"max-length":2}"#, 0),
        ]);
        assert_eq!(policies.list(Layer::User, None).len(), 1);
        assert_eq!(policies.get(Layer::User, "/", "p").unwrap().pattern.as_str(), "^a");
        assert_eq!(policies.operator_parameters(Some("/"))[0].component, "operator_policy");
    }
}
