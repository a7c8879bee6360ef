//! Policies and parameters.

use super::super::parse::{Kind, Switch};
use super::super::verb::{Invocation, Plan, Section, Verb};
use super::exactly;
use crate::admin::{columns, wire};

pub(super) const VERBS: &[Verb] = &[
    Verb {
        name: "set_policy",
        usage: "set_policy [--vhost <vhost>] [--priority <priority>] [--apply-to <apply-to>] \
                <name> <pattern> <definition>",
        section: Section::Policies,
        about: "Sets or replaces a policy",
        switches: POLICY,
        arity: exactly(3),
        plan: |call| {
            let policy = policy(call);
            Plan::silent(format!("Setting policy {}", described(&policy, call)), wire::Verb::SetPolicy(policy))
        },
    },
    Verb {
        name: "clear_policy",
        usage: "clear_policy [--vhost <vhost>] <name>",
        section: Section::Policies,
        about: "Removes a policy",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner = format!("Clearing policy \"{}\" on vhost \"{}\" ...", call.word(0), call.vhost());
            Plan::silent(banner, wire::Verb::ClearPolicy { name: call.owned(0) })
        },
    },
    Verb {
        name: "list_policies",
        usage: "list_policies [--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
        section: Section::Policies,
        about: "Lists the policies of a virtual host",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Listing policies for vhost \"{}\" ...", call.vhost());
            Plan::gathered(banner, wire::Verb::ListPolicies {}, columns::POLICIES)
        },
    },
    Verb {
        name: "set_operator_policy",
        usage: "set_operator_policy [--vhost <vhost>] [--priority <priority>] [--apply-to <apply-to>] \
                <name> <pattern> <definition>",
        section: Section::Policies,
        about: "Sets an operator policy, which limits what policies may set",
        switches: POLICY,
        arity: exactly(3),
        plan: |call| {
            let policy = policy(call);
            let banner = format!("Setting operator policy override {}", described(&policy, call));
            Plan::silent(banner, wire::Verb::SetOperatorPolicy(policy))
        },
    },
    Verb {
        name: "clear_operator_policy",
        usage: "clear_operator_policy [--vhost <vhost>] <name>",
        section: Section::Policies,
        about: "Removes an operator policy",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner = format!("Clearing operator policy \"{}\" on vhost \"{}\" ...", call.word(0), call.vhost());
            Plan::silent(banner, wire::Verb::ClearOperatorPolicy { name: call.owned(0) })
        },
    },
    Verb {
        name: "list_operator_policies",
        usage: "list_operator_policies [--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
        section: Section::Policies,
        about: "Lists the operator policies of a virtual host",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Listing operator policy overrides for vhost \"{}\" ...", call.vhost());
            Plan::gathered(banner, wire::Verb::ListOperatorPolicies {}, columns::POLICIES)
        },
    },
    Verb {
        name: "set_parameter",
        usage: "set_parameter [--vhost <vhost>] <component_name> <name> <value>",
        section: Section::Parameters,
        about: "Sets a parameter of a virtual host",
        switches: &[],
        arity: exactly(3),
        plan: |call| {
            let (component, name, value) = (call.owned(0), call.owned(1), call.owned(2));
            let vhost = call.vhost();
            let banner = format!(
                "Setting runtime parameter \"{name}\" for component \"{component}\" to \"{value}\" in vhost \"{vhost}\" ..."
            );
            Plan::silent(banner, wire::Verb::SetParameter { component, name, value })
        },
    },
    Verb {
        name: "clear_parameter",
        usage: "clear_parameter [--vhost <vhost>] <component_name> <name>",
        section: Section::Parameters,
        about: "Removes a parameter of a virtual host",
        switches: &[],
        arity: exactly(2),
        plan: |call| {
            let (component, name, vhost) = (call.owned(0), call.owned(1), call.vhost());
            let banner =
                format!("Clearing runtime parameter \"{name}\" for component \"{component}\" on vhost \"{vhost}\" ...");
            Plan::silent(banner, wire::Verb::ClearParameter { component, name })
        },
    },
    Verb {
        name: "list_parameters",
        usage: "list_parameters [--vhost <vhost>] [--no-table-headers] [--timeout <timeout>]",
        section: Section::Parameters,
        about: "Lists the parameters of a virtual host",
        switches: &[],
        arity: exactly(0),
        plan: |call| {
            let banner = format!("Listing runtime parameters for vhost \"{}\" ...", call.vhost());
            Plan::gathered(banner, wire::Verb::ListParameters {}, columns::PARAMETERS)
        },
    },
    Verb {
        name: "set_global_parameter",
        usage: "set_global_parameter <name> <value>",
        section: Section::Parameters,
        about: "Sets a parameter of the broker",
        switches: &[],
        arity: exactly(2),
        plan: |call| {
            let (name, value) = (call.owned(0), call.owned(1));
            let banner = format!("Setting global runtime parameter \"{name}\" to \"{value}\" ...");
            Plan::silent(banner, wire::Verb::SetGlobalParameter { name, value })
        },
    },
    Verb {
        name: "clear_global_parameter",
        usage: "clear_global_parameter <name>",
        section: Section::Parameters,
        about: "Removes a parameter of the broker",
        switches: &[],
        arity: exactly(1),
        plan: |call| {
            let banner = format!("Clearing global runtime parameter \"{}\" ...", call.word(0));
            Plan::silent(banner, wire::Verb::ClearGlobalParameter { name: call.owned(0) })
        },
    },
    Verb {
        name: "list_global_parameters",
        usage: "list_global_parameters [--no-table-headers] [--timeout <timeout>]",
        section: Section::Parameters,
        about: "Lists the parameters of the broker",
        switches: &[],
        arity: exactly(0),
        plan: |_| {
            let banner = "Listing global runtime parameters ...".to_owned();
            Plan::gathered(banner, wire::Verb::ListGlobalParameters {}, columns::GLOBAL_PARAMETERS)
        },
    },
];

const POLICY: &[Switch] = &[("priority", Kind::Number), ("apply-to", Kind::Text)];

fn policy(call: &Invocation) -> wire::Policy {
    wire::Policy {
        name: call.owned(0),
        pattern: call.owned(1),
        definition: call.owned(2),
        priority: call.options.number("priority").unwrap_or(0),
        apply_to: call.options.text("apply-to").unwrap_or("all").to_owned(),
    }
}

fn described(policy: &wire::Policy, call: &Invocation) -> String {
    let wire::Policy { name, pattern, definition, priority, .. } = policy;
    let vhost = call.vhost();
    format!(
        "\"{name}\" for pattern \"{pattern}\" to \"{definition}\" with priority \"{priority}\" for vhost \"{vhost}\" ..."
    )
}
