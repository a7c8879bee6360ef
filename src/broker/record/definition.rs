//! What administration defines, as records have it: the whole of a thing as it is from now on, or
//! the name of one that is gone.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::broker::{
    access::{PermissionEntry, TopicPermissionEntry, User},
    limits::VhostLimits,
    parameters::Parameter,
    policy::{Layer, Policy},
    vhost::Metadata,
};

/// A thing that administration defines; replaces what has the same [`DefinitionKey`].
#[derive(Clone, Debug, PartialEq)]
pub enum Definition {
    /// A vhost.
    Vhost {
        /// Its name.
        name: Arc<str>,
        /// What administration knows of it.
        metadata: Metadata,
    },
    /// A user with password, tags and limits.
    User(Arc<User>),
    /// What a user may do on a vhost.
    Permissions(PermissionEntry),
    /// What a user may do with the topics of an exchange.
    TopicPermissions(TopicPermissionEntry),
    /// A policy.
    Policy(Layer, Arc<Policy>),
    /// The limits of a vhost.
    VhostLimits {
        /// Its name.
        vhost: String,
        /// All of them.
        limits: VhostLimits,
    },
    /// A runtime parameter.
    Parameter(Parameter),
    /// A parameter without a vhost.
    GlobalParameter {
        /// Its name.
        name: String,
        /// Its value.
        value: Arc<Json>,
    },
}

/// What a [`Definition`] is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefinitionKey {
    /// A vhost, with everything in it and everything defined for it.
    Vhost(Arc<str>),
    /// A user, with all permissions.
    User(String),
    /// The permissions of a user on a vhost.
    Permissions {
        /// Whose.
        user: String,
        /// Where.
        vhost: String,
    },
    /// The topic permissions of a user on a vhost.
    TopicPermissions {
        /// Whose.
        user: String,
        /// Where.
        vhost: String,
        /// On which exchange; `None` is on all.
        exchange: Option<String>,
    },
    /// A policy.
    Policy {
        /// Whose.
        layer: Layer,
        /// Where.
        vhost: String,
        /// Its name.
        name: String,
    },
    /// The limits of a vhost.
    VhostLimits {
        /// Its name.
        vhost: String,
    },
    /// A runtime parameter.
    Parameter {
        /// Where it held.
        vhost: String,
        /// Whose it was.
        component: String,
        /// Its name.
        name: String,
    },
    /// A parameter without a vhost.
    GlobalParameter {
        /// Its name.
        name: String,
    },
}
