//! Whole definitions into the broker and out of it.
//!
//! An import goes section by section in RabbitMQ's order, ends at the first fault and names its
//! place; what was applied before stays, and applying the same again changes nothing. What exists
//! already is left as it is, as RabbitMQ does; where it differs, the [`Summary`] says so.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, atomic::Ordering},
};

use serde_json::{Map, Value as Json};

use super::{
    control::{Call, Reply},
    exchanges,
    failure::{EXIT_DATA, Failure, Kind},
    queues,
};
use crate::broker::{
    Broker,
    access::AccessError,
    definitions::{
        BindingDefinition, Definitions, DefinitionsError, DestinationKind, ExchangeDefinition,
        GlobalParameterDefinition, ParameterDefinition, PolicyDefinition, QueueDefinition, UserDefinition,
        VhostDefinition,
    },
    error::Error,
    exchange::{Exchange, Target},
    limits::VhostLimits,
    parameters::{Component, Parameter},
    policy::{Layer, Policy},
    queue::{Queue, arguments::QueueType, properties::Properties},
    time::Time,
    topology::{BindingStatus, DeclareExchange, DeclareQueue},
    turn::Turn,
    value::Table,
    vhost::Vhost,
};

/// What an import came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Definitions that were applied, those that were there already included.
    pub applied_count: usize,
    /// Places of definitions that differ from what exists, and how; what exists was left as it is.
    pub differing: Vec<String>,
}

/// Why an import ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportError {
    /// The key of the section.
    pub section: &'static str,
    /// The place there, from 0.
    pub index: usize,
    /// The name of what is faulty.
    pub name: String,
    /// What is wrong.
    pub reason: Reason,
}

/// What is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It is in no vhost, or in one that does not exist.
    #[error("Virtual host '{0}' does not exist")]
    NoSuchVhost(String),
    /// Anything else.
    #[error("{0}")]
    Refused(String),
}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] \"{}\": {}", self.section, self.index, self.name, self.reason)
    }
}

impl std::error::Error for ImportError {}

impl From<AccessError> for Reason {
    fn from(error: AccessError) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<Error> for Reason {
    fn from(error: Error) -> Self {
        Self::Refused(error.to_string())
    }
}

impl From<String> for Reason {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

/// Applies definitions.
pub fn import(broker: &Broker, now: Time, definitions: &Definitions) -> Result<Summary, ImportError> {
    let mut import = Import {
        broker,
        turn: Turn::new(broker, now),
        version: definitions.version(),
        summary: Summary::default(),
        changed: BTreeSet::new(),
    };
    import.section("users", &definitions.users, |of| &of.name, Import::user)?;
    import.section("vhosts", &definitions.vhosts, |of| &of.name, Import::vhost)?;
    import.section(
        "permissions",
        &definitions.permissions,
        |of| &of.user,
        |import, of| {
            import.find(Some(&of.vhost))?;
            Ok(import.broker.access.set_permissions(&of.user, &of.vhost, of.permissions())?)
        },
    )?;
    import.section(
        "topic_permissions",
        &definitions.topic_permissions,
        |of| &of.user,
        |import, of| {
            import.find(Some(&of.vhost))?;
            Ok(import.broker.access.set_topic_permissions(&of.user, &of.vhost, &of.exchange, of.permissions())?)
        },
    )?;
    import.section("parameters", &definitions.parameters, |of| &of.name, Import::parameter)?;
    import.section(
        "global_parameters",
        &definitions.global_parameters,
        |of| &of.name,
        |import, of| {
            import.broker.parameters.set_global(&of.name, of.value.clone());
            Ok(())
        },
    )?;
    import.section("policies", &definitions.policies, |of| &of.name, Import::policy)?;
    // Once for all, and before there are more queues to go through.
    for name in std::mem::take(&mut import.changed) {
        if let Some(vhost) = broker.vhost(&name) {
            broker.apply_policies(&vhost, &mut import.turn);
        }
    }
    import.section("queues", &definitions.queues, |of| &of.name, Import::queue)?;
    import.section("exchanges", &definitions.exchanges, |of| &of.name, Import::exchange)?;
    import.section("bindings", &definitions.bindings, |of| &of.source, Import::binding)?;
    import.turn.end();
    Ok(import.summary)
}

/// An import on its way.
struct Import<'a> {
    broker: &'a Broker,
    turn: Turn<'a>,
    /// Version of the broker that wrote the file.
    version: Option<&'a str>,
    summary: Summary,
    /// Names of vhosts whose policies have changed.
    changed: BTreeSet<String>,
}

impl<'a> Import<'a> {
    fn section<T>(
        &mut self,
        section: &'static str,
        items: &'a [T],
        name: impl Fn(&T) -> &str,
        apply: impl Fn(&mut Self, &'a T) -> Result<(), Reason>,
    ) -> Result<(), ImportError> {
        for (index, item) in items.iter().enumerate() {
            let known = self.summary.differing.len();
            let applied = apply(self, item);
            applied.map_err(|reason| ImportError { section, index, name: name(item).to_owned(), reason })?;
            // The definition itself knows how it differs, but not where it stands.
            for differing in &mut self.summary.differing[known..] {
                *differing = format!("{section}[{index}] \"{}\": {differing}", name(item));
            }
            self.summary.applied_count += 1;
        }
        Ok(())
    }

    fn find(&self, name: Option<&str>) -> Result<Arc<Vhost>, Reason> {
        let name = name.unwrap_or("undefined");
        self.broker.vhost(name).ok_or_else(|| Reason::NoSuchVhost(name.to_owned()))
    }

    fn user(&mut self, user: &UserDefinition) -> Result<(), Reason> {
        self.broker.access.put(user.to_user(self.version)?)?;
        Ok(())
    }

    fn vhost(&mut self, of: &VhostDefinition) -> Result<(), Reason> {
        if let Some(name) = of.default_queue_type().filter(|name| QueueType::parse(name).is_none()) {
            return Err(Reason::Refused(format!("unknown default queue type {name}")));
        }
        let known = self.broker.vhost(&of.name);
        let limit = self.broker.options.vhosts_count_max;
        if known.is_none() && self.broker.vhosts().len() >= limit {
            return Err(Reason::Refused(format!("vhost limit of {limit} is reached")));
        }
        let mut metadata = known.as_ref().map(|vhost| vhost.metadata().clone()).unwrap_or_default();
        if let Some(description) = of.description() {
            metadata.description = description.to_owned();
        }
        let tags = of.tags();
        if !tags.is_empty() {
            metadata.tags = tags;
        }
        if let Some(name) = of.default_queue_type() {
            metadata.default_queue_type = Some(name.to_owned());
        }
        let vhost = match known {
            Some(vhost) => {
                self.broker.change_vhost(&of.name, |changed| *changed = metadata);
                vhost
            }
            None => self.broker.add_vhost(&of.name, metadata),
        };
        if of.tracing {
            vhost.is_traced.store(true, Ordering::Relaxed);
        }
        if !of.limits.is_empty() {
            let limits = VhostLimits::from_json(&Json::Object(of.limits.clone()));
            self.broker.vhost_limits.set(&of.name, limits.map_err(|failed| failed.to_string())?);
        }
        Ok(())
    }

    fn parameter(&mut self, of: &ParameterDefinition) -> Result<(), Reason> {
        let vhost = self.find(of.vhost.as_deref())?.name.to_string();
        match Component::of(&of.component) {
            Component::OperatorPolicy => {
                let policy = Policy::from_json(Layer::Operator, &vhost, &of.name, &of.value);
                self.broker.policies.set(Layer::Operator, policy.map_err(|failed| failed.to_string())?);
                self.changed.insert(vhost);
            }
            Component::VhostLimits => {
                let limits = VhostLimits::from_json(&of.value).map_err(|failed| failed.to_string())?;
                self.broker.vhost_limits.set(&vhost, limits);
            }
            Component::Policy | Component::Other => {
                let (component, name, value) = (of.component.clone(), of.name.clone(), of.value.clone());
                let set = self.broker.parameters.set(Parameter { value, vhost, component, name });
                set.map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    fn policy(&mut self, of: &PolicyDefinition) -> Result<(), Reason> {
        let vhost = self.find(of.vhost.as_deref())?.name.to_string();
        let policy = of.to_policy(Layer::User, &vhost).map_err(|failed| failed.to_string())?;
        self.broker.policies.set(Layer::User, policy);
        self.changed.insert(vhost);
        Ok(())
    }

    fn queue(&mut self, of: &QueueDefinition) -> Result<(), Reason> {
        let vhost = self.find(of.vhost.as_deref())?;
        let wanted = DeclareQueue {
            name: &of.name,
            durable: of.durable,
            exclusive: false,
            auto_delete: of.auto_delete,
            arguments: of.arguments.clone(),
            dead_queue: of.dead_queue.as_deref(),
            properties: Properties::from_table(of.properties.clone()),
        };
        let existing = vhost.queue(&of.name);
        let declared = vhost.declare_queue(&wanted, None, &mut self.turn);
        if let (Some(existing), Ok(declared)) = (&existing, &declared)
            && Arc::ptr_eq(existing, declared)
            && !of.properties.is_empty()
        {
            vhost.alter_queue(existing, |properties| *properties = wanted.properties, &mut self.turn);
        }
        self.keep(existing.is_some(), declared.map(drop))
    }

    fn exchange(&mut self, of: &ExchangeDefinition) -> Result<(), Reason> {
        let vhost = self.find(of.vhost.as_deref())?;
        if of.name.is_empty() {
            return Ok(());
        }
        let wanted = DeclareExchange {
            name: &of.name,
            kind: &of.kind,
            durable: of.durable,
            auto_delete: of.auto_delete,
            internal: of.internal,
            arguments: of.arguments.clone(),
        };
        let is_there = vhost.exchange(&of.name).is_some();
        let declared = vhost.declare_exchange(&wanted, &mut self.turn);
        if let Ok(exchange) = &declared
            && !is_there
            && !of.notes.is_empty()
        {
            vhost.alter_exchange(exchange, &mut self.turn, |notes| *notes = of.notes.clone());
        }
        self.keep(is_there, declared.map(drop))
    }

    /// A declaration that was refused because of what exists is no fault.
    fn keep(&mut self, is_there: bool, declared: Result<(), Error>) -> Result<(), Reason> {
        match declared {
            Err(error) if is_there => {
                self.summary.differing.push(error.to_string());
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn binding(&mut self, of: &BindingDefinition) -> Result<(), Reason> {
        let vhost = self.find(of.vhost.as_deref())?;
        if of.source.is_empty() {
            // The default exchange has its bindings without being told.
            return Ok(());
        }
        let destination = match of.destination_type {
            DestinationKind::Queue => Target::Queue(vhost.find_queue(&of.destination, None)?),
            DestinationKind::Exchange => Target::Exchange(vhost.find_exchange(&of.destination)?),
        };
        Ok(vhost.bind(&of.source, &destination, of.routing_key.as_bytes(), &of.arguments, &mut self.turn)?)
    }
}

/// Everything that an import would need to make this broker anew: all but what belongs to one
/// connection or is there anyway. Sorted by vhost and name. `version` is the one told to clients.
pub fn export(broker: &Broker, version: &str) -> Definitions {
    let vhosts = broker.vhosts();
    let mut parameters: Vec<ParameterDefinition> =
        broker.parameters.list(None, None).into_iter().map(ParameterDefinition::from).collect();
    parameters.extend(broker.policies.operator_parameters(None).into_iter().map(ParameterDefinition::from));
    parameters.extend(broker.vhost_limits.to_parameters().into_iter().map(ParameterDefinition::from));
    let global = broker.parameters.list_global().into_iter().filter(|(name, _)| name != CLUSTER_ID);
    Definitions {
        rabbit_version: Some(version.to_owned()),
        rabbitmq_version: Some(version.to_owned()),
        product_name: Some("RabbitMQ".to_owned()),
        product_version: Some(version.to_owned()),
        users: broker.access.list().iter().map(|user| UserDefinition::from(&**user)).collect(),
        vhosts: vhosts.iter().map(vhost_definition).collect(),
        permissions: broker.access.list_permissions(None, None).into_iter().map(Into::into).collect(),
        topic_permissions: broker.access.list_topic_permissions(None, None).into_iter().map(Into::into).collect(),
        parameters,
        global_parameters: global
            .map(|(name, value)| GlobalParameterDefinition { name, value: Json::clone(&value) })
            .collect(),
        policies: broker.policies.list(Layer::User, None).iter().map(|policy| (&**policy).into()).collect(),
        queues: vhosts.iter().flat_map(queue_definitions).collect(),
        exchanges: vhosts.iter().flat_map(exchange_definitions).collect(),
        bindings: vhosts.iter().flat_map(binding_definitions).collect(),
    }
}

/// The global parameter that tells one installation from another, and must not be copied.
const CLUSTER_ID: &str = "internal_cluster_id";

fn vhost_definition(vhost: &Arc<Vhost>) -> VhostDefinition {
    let metadata = vhost.metadata();
    let mut entries = Map::new();
    entries.insert("description".into(), metadata.description.clone().into());
    entries.insert("tags".into(), metadata.tags.clone().into());
    if let Some(name) = &metadata.default_queue_type {
        entries.insert("default_queue_type".into(), name.clone().into());
    }
    VhostDefinition {
        name: vhost.name.to_string(),
        description: Some(metadata.description.clone()),
        tags: metadata.tags.clone(),
        default_queue_type: metadata.default_queue_type.clone(),
        metadata: entries,
        ..VhostDefinition::default()
    }
}

fn queue_definitions(vhost: &Arc<Vhost>) -> Vec<QueueDefinition> {
    let queues = queues::by_name(Some(vhost.clone())).into_iter();
    let definition = |queue: Arc<Queue>| QueueDefinition {
        name: queue.name.to_string(),
        vhost: Some(vhost.name.to_string()),
        durable: queue.is_durable,
        auto_delete: queue.declaration.is_auto_delete,
        arguments: queue.declaration.arguments.clone(),
        dead_queue: queue.declaration.dead_queue.as_deref().map(str::to_owned),
        properties: queue.properties().to_table(),
    };
    queues.filter(|queue| queue.declaration.owner.is_none()).map(definition).collect()
}

fn exchange_definitions(vhost: &Arc<Vhost>) -> Vec<ExchangeDefinition> {
    let mut exchanges = vhost.exchanges();
    exchanges.retain(|exchange| !exchange.name.is_empty() && !exchange.name.starts_with("amq."));
    exchanges.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    let definition = |exchange: &Arc<Exchange>| ExchangeDefinition {
        name: exchange.name.to_string(),
        vhost: Some(vhost.name.to_string()),
        kind: exchange.declaration.kind.name().to_owned(),
        durable: exchange.declaration.is_durable,
        auto_delete: exchange.declaration.is_auto_delete,
        internal: exchange.declaration.is_internal,
        arguments: exchange.declaration.arguments.clone(),
        notes: Table::clone(&exchange.notes()),
    };
    exchanges.iter().map(definition).collect()
}

fn binding_definitions(vhost: &Arc<Vhost>) -> Vec<BindingDefinition> {
    let mut bindings = vhost.bindings();
    bindings.retain(|binding| {
        let is_of_one_connection =
            matches!(&binding.destination, Target::Queue(queue) if queue.declaration.owner.is_some());
        !binding.source.is_empty() && !is_of_one_connection
    });
    exchanges::sort(&mut bindings);
    let definition = |binding: BindingStatus| BindingDefinition {
        source: binding.source.to_string(),
        vhost: Some(vhost.name.to_string()),
        destination: binding.destination.name().to_string(),
        destination_type: match binding.destination {
            Target::Queue(_) => DestinationKind::Queue,
            Target::Exchange(_) => DestinationKind::Exchange,
        },
        routing_key: String::from_utf8_lossy(&binding.key).into_owned(),
        arguments: binding.arguments,
    };
    bindings.into_iter().map(definition).collect()
}

/// `export_definitions`: the keys of every object in order, as rabbitmqctl writes them.
pub(super) fn export_verb(call: &Call<'_>) -> Result<Reply, Failure> {
    let definitions = export(call.broker, &call.node.environment().product_version);
    let mut json = definitions.to_json();
    if let Json::Object(sections) = &mut json {
        sections.retain(|key, _| key != "product_name" && key != "product_version");
        for vhost in items_of(sections, "vhosts") {
            for key in ["description", "tags", "default_queue_type"] {
                vhost.shift_remove(key);
            }
            let limits = vhost.get("name").and_then(Json::as_str).map(|name| call.broker.vhost_limits.get(name));
            vhost.insert("limits".into(), Json::Object(limits.unwrap_or_default().to_json()));
        }
        for (queue, item) in definitions.queues.iter().zip(items_of(sections, "queues")) {
            let named = queue.arguments.get("x-queue-type").and_then(|value| value.as_text());
            item.insert("type".into(), named.unwrap_or(QueueType::Classic.name()).into());
        }
        for exchange in items_of(sections, "exchanges") {
            if exchange.get("internal") == Some(&Json::Bool(false)) {
                exchange.shift_remove("internal");
            }
        }
    }
    json.sort_all_objects();
    Ok(Reply::Done(json))
}

fn items_of<'a>(sections: &'a mut Map<String, Json>, section: &str) -> impl Iterator<Item = &'a mut Map<String, Json>> {
    let items = sections.get_mut(section).and_then(Json::as_array_mut).into_iter().flatten();
    items.filter_map(Json::as_object_mut)
}

pub(super) fn import_verb(call: &Call<'_>, definitions: &Json) -> Result<Reply, Failure> {
    let refused = |error: DefinitionsError| Failure::new(Kind::Invalid, error.to_string(), EXIT_DATA);
    let definitions = Definitions::from_json(definitions.clone()).map_err(refused)?;
    match import(call.broker, call.now, &definitions) {
        Ok(summary) => {
            for place in &summary.differing {
                tracing::warn!(definition = %place, "kept what exists: the imported definition differs");
            }
            tracing::info!(definitions = summary.applied_count, "imported definitions");
            Ok(Reply::DONE)
        }
        Err(ImportError { reason: Reason::NoSuchVhost(name), .. }) => Err(Failure::no_such_vhost(call.verb, &name)),
        Err(error) => Err(Failure::new(Kind::Invalid, error.to_string(), EXIT_DATA)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        admin::{tests::Desk, wire::Verb},
        broker::value::{Table, Value},
    };

    /// An export of RabbitMQ 3.10.8, as it came.
    const EXPORT: &str = include_str!("../broker/definitions/testdata/rabbitmq-3.10.8.json");

    fn apply(desk: &Desk, json: Json) -> Result<Summary, ImportError> {
        import(&desk.broker, Time(10_000), &Definitions::from_json(json).unwrap())
    }

    #[test]
    fn export_of_an_import_has_everything_that_was_imported() {
        let desk = Desk::new();
        let read = Definitions::parse(EXPORT.as_bytes()).unwrap();
        let summary = import(&desk.broker, Time(10_000), &read).unwrap();
        assert_eq!(summary.differing, Vec::<String>::new());
        let written = export(&desk.broker, "3.10.8");
        let names = |of: &Definitions| {
            let mut names: Vec<String> = of.queues.iter().map(|of| format!("queue {}", of.name)).collect();
            names.extend(of.exchanges.iter().map(|of| format!("exchange {} {}", of.name, of.kind)));
            names.extend(
                of.bindings.iter().map(|of| format!("binding {} {} {}", of.source, of.destination, of.routing_key)),
            );
            names.extend(of.policies.iter().map(|of| format!("policy {} {}", of.name, of.definition)));
            names.extend(of.permissions.iter().map(|of| format!("permission {} {}", of.user, of.vhost)));
            names.sort();
            names
        };
        assert_eq!(names(&written), names(&read));
        assert_eq!(written.users, read.users);
        // Applied to another broker, it makes the same once more.
        let other = Desk::new();
        import(&other.broker, Time(10_000), &Definitions::from_json(written.to_json()).unwrap()).unwrap();
        assert_eq!(export(&other.broker, "3.10.8"), written);
    }

    #[test]
    fn what_exists_is_kept_and_a_difference_is_told_with_its_place() {
        let desk = Desk::new();
        desk.queue("q", Table::from_iter([("x-max-length", Value::I64(5))]));
        let definitions = json!({"queues": [{"name": "new", "vhost": "/"}, {"name": "q", "vhost": "/"}]});
        let summary = apply(&desk, definitions.clone()).unwrap();
        assert_eq!(summary.applied_count, 2);
        assert_eq!(
            summary.differing,
            ["queues[1] \"q\": inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none but current \
              is the value '5' of type 'long'"]
        );
        assert!(desk.vhost().queue("q").unwrap().declaration.arguments.get("x-max-length").is_some());
        assert_eq!(apply(&desk, definitions).unwrap(), summary);
    }

    #[test]
    fn fault_is_told_with_its_place_and_what_came_before_stays() {
        let desk = Desk::new();
        let error = apply(
            &desk,
            json!({"vhosts": [{"name": "v"}], "queues": [
                {"name": "ok", "vhost": "v"},
                {"name": "bad", "vhost": "v", "arguments": {"x-max-length": -1}},
            ]}),
        )
        .unwrap_err();
        assert!(error.to_string().starts_with("queues[1] \"bad\": "), "{error}");
        assert!(desk.broker.vhost("v").unwrap().queue("ok").is_some());
    }

    #[test]
    fn object_without_a_vhost_is_in_one_that_does_not_exist() {
        let desk = Desk::new();
        let definitions = json!({"queues": [{"name": "q"}]});
        let refusal = desk.refusal(Verb::ImportDefinitions { definitions });
        assert_eq!(refusal, ("Virtual host 'undefined' does not exist".into(), 65));
        let refusal = desk.refusal(Verb::ImportDefinitions { definitions: json!({"queues": 1}) });
        assert_eq!(refusal, ("queues must be a list".into(), 65));
    }

    #[test]
    fn policies_are_in_force_on_what_was_there_before() {
        let desk = Desk::new();
        desk.queue("q", Table::new());
        let policy = json!({"vhost": "/", "name": "p", "pattern": "^q", "definition": {"max-length": 1}});
        apply(&desk, json!({ "policies": [policy] })).unwrap();
        let queue = desk.vhost().queue("q").unwrap();
        assert_eq!(queue.policies.lock().0.as_deref(), Some("p"));
    }

    #[test]
    fn metadata_and_limits_of_a_vhost_are_applied() {
        let desk = Desk::new();
        let vhost = json!({
            "name": "v", "metadata": {"description": "d", "tags": ["t"], "default_queue_type": "quorum"},
            "limits": {"max-queues": 3}, "tracing": true,
        });
        apply(&desk, json!({ "vhosts": [vhost] })).unwrap();
        let vhost = desk.broker.vhost("v").unwrap();
        let metadata = vhost.metadata().clone();
        assert_eq!((metadata.description.as_str(), metadata.default_queue_type.as_deref()), ("d", Some("quorum")));
        assert_eq!(desk.broker.vhost_limits.get("v").queues(), Some(3));
        assert!(vhost.is_traced.load(Ordering::Relaxed));
    }

    #[test]
    fn queues_of_one_connection_are_not_exported() {
        let desk = Desk::new();
        let owner = desk.connect("guest", "/").id;
        let wanted = DeclareQueue { name: "mine", exclusive: true, ..DeclareQueue::default() };
        desk.vhost().declare_queue(&wanted, Some(owner), &mut desk.turn()).unwrap();
        desk.exchange("x", "fanout");
        let target = Target::Queue(desk.vhost().queue("mine").unwrap());
        desk.vhost().bind("x", &target, b"", &Table::new(), &mut desk.turn()).unwrap();
        let written = export(&desk.broker, "3.13.7");
        assert!(written.queues.is_empty() && written.bindings.is_empty());
        assert_eq!(written.exchanges.len(), 1);
        assert!(written.global_parameters.is_empty());
    }

    #[test]
    fn the_queue_of_the_dead_goes_with_its_queue() {
        let desk = Desk::new();
        let wanted = DeclareQueue { name: "q", durable: true, dead_queue: Some("dead"), ..DeclareQueue::default() };
        desk.vhost().declare_queue(&wanted, None, &mut desk.turn()).unwrap();
        let exported = export(&desk.broker, "3.13.7");
        let other = Desk::new();
        import(&other.broker, Time(0), &exported).unwrap();
        let queue = other.vhost().queue("q").unwrap();
        assert_eq!(queue.declaration.dead_queue.as_deref(), Some("dead"));
        assert_eq!(queue.dead_letter().key.as_deref(), Some(&b"dead"[..]));
    }

    #[test]
    fn properties_of_queues_are_exported_and_come_back() {
        let desk = Desk::new();
        desk.queue("q", Table::new());
        let queue = desk.vhost().queue("q").unwrap();
        let altered = Properties {
            lease_ms: Some(5_000),
            dead_queue: Some("dead".into()),
            notes: Table::from_iter([("tags", Value::Table(Table::from_iter([("a", Value::text("b"))])))]),
            ..Properties::default()
        };
        let wanted = altered.clone();
        desk.vhost().alter_queue(&queue, |properties| *properties = wanted, &mut desk.turn());
        let exported = desk.done(Verb::ExportDefinitions {});
        assert_eq!(exported["queues"][0]["properties"]["lease-ms"], 5_000);
        let other = Desk::new();
        other.queue("q", Table::new());
        apply(&other, exported.clone()).unwrap();
        let queue = other.vhost().queue("q").unwrap();
        assert_eq!(*queue.properties(), altered);
        assert_eq!(queue.dead_letter().key.as_deref(), Some(&b"dead"[..]));
        apply(&other, json!({"queues": [{"name": "q", "vhost": "/"}]})).unwrap();
        assert_eq!(*queue.properties(), altered, "a file that names none takes none away");
    }

    #[test]
    fn exported_objects_have_their_keys_in_order() {
        let desk = Desk::new();
        desk.queue("q", Table::new());
        let exported = desk.done(Verb::ExportDefinitions {});
        assert_eq!(
            exported["queues"][0].to_string(),
            r#"{"arguments":{},"auto_delete":false,"durable":true,"name":"q","type":"classic","vhost":"/"}"#
        );
        assert_eq!(
            exported["vhosts"][0].to_string(),
            r#"{"limits":{},"metadata":{"description":"Default virtual host","tags":[]},"name":"/"}"#
        );
        let keys: Vec<_> = exported.as_object().unwrap().keys().cloned().collect();
        assert!(keys.is_sorted(), "{keys:?}");
    }
}
