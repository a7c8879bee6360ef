//! Runtime parameters: JSON values that components keep by vhost and name, and global ones.
//!
//! Policies, operator policies and vhost limits look like parameters to an operator but live in
//! registries of their own: [`Component::of`] tells the caller which one is meant. Everything else
//! must name a component that was registered at the start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::record::{Definition, DefinitionKey, Log, Record};
use super::validation::Failed;

/// One parameter. Serialises with its keys in the order of a definitions file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parameter {
    /// The value.
    pub value: Json,
    /// Where it holds.
    pub vhost: String,
    /// Whose parameter it is.
    pub component: String,
    /// Its name among those of the component.
    pub name: String,
}

/// The registry that keeps the parameters of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Component {
    /// Policies, which may not be set or cleared as parameters at all.
    Policy,
    /// Operator policies.
    OperatorPolicy,
    /// Limits of a vhost.
    VhostLimits,
    /// [`Parameters`].
    Other,
}

impl Component {
    /// Where parameters of that component belong.
    pub fn of(name: &str) -> Self {
        match name {
            POLICY => Self::Policy,
            OPERATOR_POLICY => Self::OperatorPolicy,
            VHOST_LIMITS => Self::VhostLimits,
            _ => Self::Other,
        }
    }
}

/// The component name of policies.
pub const POLICY: &str = "policy";
/// The component name of operator policies.
pub const OPERATOR_POLICY: &str = "operator_policy";
/// The component name of vhost limits.
pub const VHOST_LIMITS: &str = "vhost-limits";

/// Most parameters that are kept, global ones apart; more are refused.
pub const PARAMETERS_COUNT_MAX: usize = 200_000;

/// Why a parameter was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// Policies have verbs of their own.
    #[error("policies may not be set using this method")]
    PolicySet,
    /// Policies have verbs of their own.
    #[error("policies may not be cleared using this method")]
    PolicyCleared,
    /// The caller must ask [`Component::of`] first.
    #[error("parameters of this component are kept elsewhere")]
    Elsewhere,
    /// No such component, or a fault in the value.
    #[error(transparent)]
    Invalid(#[from] Failed),
    /// Nothing to clear.
    #[error(transparent)]
    NotFound(#[from] NotFound),
}

/// There is nothing of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Parameter does not exist")]
pub struct NotFound;

/// All runtime parameters and global parameters.
#[derive(Debug, Default)]
pub struct Parameters {
    components: RwLock<Vec<String>>,
    log: Log,
    /// Moves with each change of an entry.
    edition: AtomicU64,
    // Each taken alone, nothing else is locked inside.
    entries: RwLock<Entries>,
    global: RwLock<BTreeMap<String, Arc<Json>>>,
}

/// Vhost, component and name.
type Key = (String, String, String);

/// What the value of a parameter is looked for by, if it is.
pub type IndexBy = fn(&Json) -> Option<String>;

#[derive(Debug, Default)]
struct Entries {
    all: BTreeMap<Key, Arc<Json>>,
    /// By component.
    indexes: Vec<(String, Index)>,
}

/// The parameters of a component by what their values say.
#[derive(Debug)]
struct Index {
    by: IndexBy,
    /// Vhost, what the value says, name.
    names: BTreeSet<Key>,
}

impl Entries {
    fn insert(&mut self, key: Key, value: Arc<Json>) {
        let before = self.all.get(&key).cloned();
        if let Some(index) = self.index_mut(&key.1) {
            if let Some(before) = before {
                index.remove(&key, &before);
            }
            index.add(&key, &value);
        }
        self.all.insert(key, value);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(value) = self.all.remove(key)
            && let Some(index) = self.index_mut(&key.1)
        {
            index.remove(key, &value);
        }
    }

    fn index_mut(&mut self, component: &str) -> Option<&mut Index> {
        self.indexes.iter_mut().find(|(of, _)| of == component).map(|(_, index)| index)
    }
}

impl Index {
    fn add(&mut self, key: &Key, value: &Json) {
        if let Some(said) = (self.by)(value) {
            self.names.insert((key.0.clone(), said, key.2.clone()));
        }
    }

    fn remove(&mut self, key: &Key, value: &Json) {
        if let Some(said) = (self.by)(value) {
            self.names.remove(&(key.0.clone(), said, key.2.clone()));
        }
    }
}

impl Parameters {
    /// No parameters yet; those of `components` will be accepted.
    pub fn new<C: Into<String>>(components: impl IntoIterator<Item = C>) -> Self {
        let components: Vec<String> = components.into_iter().map(Into::into).collect();
        Self { components: RwLock::new(components), ..Self::default() }
    }

    /// Has parameters of one more component accepted, too.
    pub fn register(&self, component: &str) {
        let mut components = self.components.write();
        if !components.iter().any(|known| known == component) {
            components.push(component.to_owned());
        }
    }

    /// Has the parameters of a component found by what `by` finds in their values, too: see [`Self::list_by`].
    pub fn index(&self, component: &str, by: IndexBy) {
        let mut entries = self.entries.write();
        let mut index = Index { by, names: BTreeSet::new() };
        entries.all.iter().filter(|(key, _)| key.1 == component).for_each(|(key, value)| index.add(key, value));
        entries.indexes.retain(|(of, _)| of != component);
        entries.indexes.push((component.to_owned(), index));
    }

    /// Has changes recorded in `log`.
    #[must_use]
    pub fn with_log(mut self, log: Log) -> Self {
        self.log = log;
        self
    }

    /// Puts back what a log says was set. The component is not looked at: it was known then.
    pub(in crate::broker) fn restore(&self, parameter: Parameter) {
        let Parameter { value, vhost, component, name } = parameter;
        self.entries.write().insert((vhost, component, name), Arc::new(value));
        self.changed();
    }

    /// Sets a parameter of the broker's own, which nobody has to register.
    pub(in crate::broker) fn keep(&self, parameter: Parameter) {
        let mut entries = self.entries.write();
        self.log.append(|| Record::Defined(Definition::Parameter(parameter.clone())));
        let Parameter { value, vhost, component, name } = parameter;
        entries.insert((vhost, component, name), Arc::new(value));
    }

    /// Sets a parameter of a registered component.
    pub fn set(&self, parameter: Parameter) -> Result<(), ParameterError> {
        let Parameter { value, vhost, component, name } = parameter;
        match Component::of(&component) {
            Component::Policy => return Err(ParameterError::PolicySet),
            Component::OperatorPolicy | Component::VhostLimits => return Err(ParameterError::Elsewhere),
            Component::Other => {}
        }
        if !self.components.read().contains(&component) {
            return Err(Failed(vec![format!("component {component} not found")]).into());
        }
        let mut entries = self.entries.write();
        let key = (vhost, component, name);
        if entries.all.len() >= PARAMETERS_COUNT_MAX && !entries.all.contains_key(&key) {
            return Err(Failed(vec![format!("component {} is limited to {PARAMETERS_COUNT_MAX}", key.1)]).into());
        }
        self.log.append(|| {
            let ((vhost, component, name), value) = (key.clone(), value.clone());
            Record::Defined(Definition::Parameter(Parameter { value, vhost, component, name }))
        });
        entries.insert(key, Arc::new(value));
        drop(entries);
        self.changed();
        Ok(())
    }

    /// Removes a parameter.
    pub fn clear(&self, vhost: &str, component: &str, name: &str) -> Result<(), ParameterError> {
        match Component::of(component) {
            Component::Policy => return Err(ParameterError::PolicyCleared),
            Component::OperatorPolicy | Component::VhostLimits => return Err(ParameterError::Elsewhere),
            Component::Other => {}
        }
        let key = (vhost.to_owned(), component.to_owned(), name.to_owned());
        let mut entries = self.entries.write();
        if !entries.all.contains_key(&key) {
            return Err(ParameterError::NotFound(NotFound));
        }
        self.log.append(|| {
            let (vhost, component, name) = key.clone();
            Record::Removed(DefinitionKey::Parameter { vhost, component, name })
        });
        entries.remove(&key);
        drop(entries);
        self.changed();
        Ok(())
    }

    /// The value of a parameter.
    pub fn get(&self, vhost: &str, component: &str, name: &str) -> Option<Arc<Json>> {
        self.entries.read().all.get(&(vhost.to_owned(), component.to_owned(), name.to_owned())).cloned()
    }

    /// The parameters of a vhost and component, or of all, by vhost, component and name.
    pub fn list(&self, vhost: Option<&str>, component: Option<&str>) -> Vec<Parameter> {
        let entries = self.entries.read();
        let all = entries.all.iter();
        all.filter(|((in_vhost, of, _), _)| vhost.is_none_or(|v| v == in_vhost) && component.is_none_or(|c| c == of))
            .map(|((vhost, component, name), value)| Parameter {
                value: Json::clone(value),
                vhost: vhost.clone(),
                component: component.clone(),
                name: name.clone(),
            })
            .collect()
    }

    /// Those of a vhost and component whose names begin with `prefix` and are not before `from`, by name.
    pub fn list_from(
        &self,
        vhost: &str,
        component: &str,
        prefix: &str,
        from: &str,
        max: usize,
    ) -> Vec<(String, Arc<Json>)> {
        let start = (vhost.to_owned(), component.to_owned(), prefix.max(from).to_owned());
        let entries = self.entries.read();
        let from = entries.all.range(start..);
        from.take_while(|((in_vhost, of, name), _)| in_vhost == vhost && of == component && name.starts_with(prefix))
            .take(max)
            .map(|((.., name), value)| (name.clone(), value.clone()))
            .collect()
    }

    /// Those of a vhost and an indexed component whose values say that, and whose names begin with `prefix`, by name.
    pub fn list_by(&self, vhost: &str, component: &str, said: &str, prefix: &str) -> Vec<(String, Arc<Json>)> {
        let entries = self.entries.read();
        let Some((_, index)) = entries.indexes.iter().find(|(of, _)| of == component) else { return Vec::new() };
        let start = (vhost.to_owned(), said.to_owned(), prefix.to_owned());
        let found = index.names.range(start..);
        let found =
            found.take_while(|(in_vhost, by, name)| in_vhost == vhost && by == said && name.starts_with(prefix));
        let value = |name: &str| entries.all.get(&(vhost.to_owned(), component.to_owned(), name.to_owned())).cloned();
        found.filter_map(|(.., name)| Some((name.clone(), value(name)?))).collect()
    }

    /// Forgets the parameters of a vhost.
    pub fn delete_vhost(&self, vhost: &str) {
        let mut entries = self.entries.write();
        entries.all.retain(|(in_vhost, _, _), _| in_vhost != vhost);
        entries.indexes.iter_mut().for_each(|(_, index)| index.names.retain(|(in_vhost, ..)| in_vhost != vhost));
        drop(entries);
        self.changed();
    }

    /// Another number after every change of a parameter, global ones excepted.
    pub fn edition(&self) -> u64 {
        self.edition.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.edition.fetch_add(1, Ordering::Release);
    }

    /// Sets a global parameter.
    pub fn set_global(&self, name: &str, value: Json) {
        let (name, value) = (name.to_owned(), Arc::new(value));
        let mut global = self.global.write();
        self.log.append(|| Record::Defined(Definition::GlobalParameter { name: name.clone(), value: value.clone() }));
        global.insert(name, value);
    }

    /// Removes a global parameter.
    pub fn clear_global(&self, name: &str) -> Result<(), NotFound> {
        let mut global = self.global.write();
        if !global.contains_key(name) {
            return Err(NotFound);
        }
        self.log.append(|| Record::Removed(DefinitionKey::GlobalParameter { name: name.to_owned() }));
        global.remove(name);
        Ok(())
    }

    /// The value of a global parameter.
    pub fn get_global(&self, name: &str) -> Option<Arc<Json>> {
        self.global.read().get(name).cloned()
    }

    /// All global parameters, by name.
    pub fn list_global(&self) -> Vec<(String, Arc<Json>)> {
        self.global.read().iter().map(|(name, value)| (name.clone(), Arc::clone(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parameter(component: &str, value: Json) -> Parameter {
        Parameter { value, vhost: "/".into(), component: component.into(), name: "n".into() }
    }

    #[test]
    fn an_unknown_component_is_refused_by_name() {
        let parameters = Parameters::new(["shovel"]);
        let error = parameters.set(parameter("foo", json!(1))).unwrap_err();
        assert_eq!(error.to_string(), "Validation failed\n\ncomponent foo not found\n");
        assert_eq!(parameters.set(parameter("shovel", json!(1))), Ok(()));
    }

    #[test]
    fn policies_are_no_parameters() {
        let parameters = Parameters::default();
        let error = parameters.set(parameter("policy", json!({}))).unwrap_err();
        assert_eq!(error.to_string(), "policies may not be set using this method");
        let error = parameters.clear("/", "policy", "p").unwrap_err();
        assert_eq!(error.to_string(), "policies may not be cleared using this method");
        assert_eq!(Component::of("operator_policy"), Component::OperatorPolicy);
        assert_eq!(parameters.set(parameter("vhost-limits", json!({}))), Err(ParameterError::Elsewhere));
    }

    #[test]
    fn parameters_are_listed_and_cleared() {
        let parameters = Parameters::new(["a", "b"]);
        parameters.set(parameter("a", json!(1))).unwrap();
        parameters.set(parameter("b", json!({"x": []}))).unwrap();
        assert_eq!(parameters.list(Some("/"), Some("b")), [parameter("b", json!({"x": []}))]);
        assert_eq!(parameters.list(Some("other"), None), []);
        parameters.clear("/", "a", "n").unwrap();
        assert_eq!(parameters.clear("/", "a", "n").unwrap_err().to_string(), "Parameter does not exist");
        parameters.delete_vhost("/");
        assert_eq!(parameters.list(None, None), []);
    }

    #[test]
    fn parameters_are_found_by_what_their_values_say() {
        let parameters = Parameters::new(["a"]);
        let put = |name: &str, said: &str| {
            let (vhost, component, name) = ("/".into(), "a".into(), name.into());
            parameters.set(Parameter { value: json!({ "to": said }), vhost, component, name }).unwrap();
        };
        put("t:1", "q");
        parameters.index("a", |value| value["to"].as_str().map(ToOwned::to_owned));
        let found = |said: &str, prefix: &str| {
            let found = parameters.list_by("/", "a", said, prefix);
            found.into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        put("t:2", "q");
        put("u:1", "q");
        put("t:3", "other");
        assert_eq!(found("q", ""), ["t:1", "t:2", "u:1"]);
        assert_eq!(found("q", "t:"), ["t:1", "t:2"]);
        put("t:2", "other");
        parameters.clear("/", "a", "u:1").unwrap();
        assert_eq!((found("q", ""), found("other", "t:")), (vec!["t:1".into()], vec!["t:2".into(), "t:3".into()]));
        parameters.delete_vhost("/");
        assert!(found("q", "").is_empty());
    }

    #[test]
    fn global_parameters_have_no_component() {
        let parameters = Parameters::default();
        parameters.set_global("g", json!({"a": 1}));
        assert_eq!(*parameters.get_global("g").unwrap(), json!({"a": 1}));
        parameters.clear_global("g").unwrap();
        assert_eq!(parameters.clear_global("g").unwrap_err().to_string(), "Parameter does not exist");
    }

    #[test]
    fn keys_are_written_as_definitions_have_them() {
        let text = serde_json::to_string(&parameter("a", json!(1))).unwrap();
        assert_eq!(text, r#"{"value":1,"vhost":"/","component":"a","name":"n"}"#);
    }
}
