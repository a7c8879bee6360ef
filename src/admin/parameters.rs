//! Runtime parameters. Operator policies and limits of vhosts are set and listed as such too,
//! although they are kept elsewhere.

use serde_json::{Value as Json, json};

use super::{
    columns,
    control::{Call, Reply, all_columns, invalid},
    failure::Failure,
    policies,
};
use crate::broker::{
    access::keys::PARAMETER_PREFIX,
    limits::VhostLimits,
    parameters::{Component, NotFound, Parameter, ParameterError},
    policy::{Layer, Policy},
    validation::parse_json,
};

pub(super) fn set(call: &Call<'_>, component: &str, name: &str, value: &str) -> Result<Reply, Failure> {
    let value = parse_json(value).map_err(|error| invalid(&error))?;
    let parameter =
        Parameter { value, vhost: call.vhost_name.to_owned(), component: component.to_owned(), name: name.to_owned() };
    match Component::of(component) {
        Component::OperatorPolicy => {
            call.vhost()?;
            let policy = Policy::from_json(Layer::Operator, call.vhost_name, name, &parameter.value);
            policies::put(call, Layer::Operator, policy.map_err(|error| invalid(&error))?);
        }
        Component::VhostLimits => {
            call.vhost()?;
            let limits = VhostLimits::from_json(&parameter.value).map_err(|error| invalid(&error))?;
            call.broker.vhost_limits.set(call.vhost_name, limits);
        }
        Component::Policy | Component::Other => {
            call.broker.parameters.set(parameter).map_err(|error| invalid(&error))?;
        }
    }
    Ok(Reply::DONE)
}

pub(super) fn clear(call: &Call<'_>, component: &str, name: &str) -> Result<Reply, Failure> {
    let cleared = match Component::of(component) {
        Component::OperatorPolicy => return policies::clear(call, Layer::Operator, name),
        Component::VhostLimits => call.broker.vhost_limits.clear(call.vhost_name).map_err(ParameterError::from),
        Component::Policy | Component::Other => call.broker.parameters.clear(call.vhost_name, component, name),
    };
    match cleared {
        Ok(()) => Ok(Reply::DONE),
        Err(ParameterError::NotFound(NotFound)) => Err(Failure::no_such_parameter()),
        Err(other) => Err(invalid(&other)),
    }
}

pub(super) fn list(call: &Call<'_>) -> Result<Reply, Failure> {
    call.vhost()?;
    let mut all = call.broker.parameters.list(Some(call.vhost_name), None);
    all.extend(call.broker.policies.operator_parameters(Some(call.vhost_name)));
    all.extend(call.broker.vhost_limits.to_parameters().into_iter().filter(|of| of.vhost == call.vhost_name));
    all.sort_by(|a, b| (&a.component, &a.name).cmp(&(&b.component, &b.name)));
    let row = |of: Parameter| vec![json!(of.component), json!(of.name), Json::String(of.value.to_string())];
    Ok(all_columns(columns::PARAMETERS, all.into_iter().map(row)))
}

pub(super) fn set_global(call: &Call<'_>, name: &str, value: &str) -> Result<Reply, Failure> {
    call.broker.parameters.set_global(name, parse_json(value).map_err(|error| invalid(&error))?);
    Ok(Reply::DONE)
}

pub(super) fn clear_global(call: &Call<'_>, name: &str) -> Result<Reply, Failure> {
    match call.broker.parameters.clear_global(name) {
        Ok(()) => Ok(Reply::DONE),
        Err(NotFound) => Err(Failure::no_such_parameter()),
    }
}

pub(super) fn list_global(call: &Call<'_>) -> Result<Reply, Failure> {
    // Secrets are in definitions, not on screens.
    let is_shown = |(name, _): &(String, _)| !name.starts_with(PARAMETER_PREFIX);
    let all = call.broker.parameters.list_global().into_iter().filter(is_shown);
    let row = |(name, value): (String, std::sync::Arc<Json>)| vec![json!(name), Json::String(value.to_string())];
    Ok(all_columns(columns::GLOBAL_PARAMETERS, all.map(row)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::admin::{tests::Desk, wire::Verb};

    fn set(component: &str, value: &str) -> Verb {
        Verb::SetParameter { component: component.into(), name: "n".into(), value: value.into() }
    }

    #[test]
    fn limits_and_operator_policies_may_be_set_as_parameters() {
        let desk = Desk::new();
        desk.done(set("vhost-limits", r#"{"max-queues":1}"#));
        desk.done(set(
            "operator_policy",
            r#"{"pattern":"^","definition":{"expires":1},"priority":0,"apply-to":"all"}"#,
        ));
        assert_eq!(desk.done(Verb::ListVhostLimits { global: false }), json!({"max-queues": 1}));
        let listed = desk.rows(Verb::ListParameters {});
        assert_eq!(listed[1], json!(["vhost-limits", "limits", r#"{"max-queues":1}"#]));
        assert_eq!(desk.rows(Verb::ListOperatorPolicies {}).len(), 1);
    }

    #[test]
    fn unknown_components_and_policies_are_refused() {
        let desk = Desk::new();
        let unknown = desk.refusal_in("missing", set("shovel", "{}"));
        assert_eq!(unknown, ("Validation failed\n\ncomponent shovel not found\n".into(), 69));
        assert_eq!(desk.refusal(set("policy", "{}")), ("policies may not be set using this method".into(), 69));
        let missing = Verb::ClearParameter { component: "shovel".into(), name: "n".into() };
        assert_eq!(desk.refusal(missing), ("Parameter does not exist".into(), 69));
    }

    #[test]
    fn global_parameters_are_set_listed_and_cleared() {
        let desk = Desk::new();
        desk.done(Verb::SetGlobalParameter { name: "motto".into(), value: "\"all well\"".into() });
        let listed = desk.rows(Verb::ListGlobalParameters {});
        assert!(listed.contains(&json!(["motto", "\"all well\""])), "{listed:?}");
        desk.done(Verb::ClearGlobalParameter { name: "motto".into() });
        let again = desk.refusal(Verb::ClearGlobalParameter { name: "motto".into() });
        assert_eq!(again, ("Parameter does not exist".into(), 69));
    }
}
