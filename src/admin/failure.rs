//! Why a verb of administration was not carried out, in RabbitMQ's words.
//!
//! Scripts compare these texts and exit codes, and RabbitMQ words the same mistake differently from
//! verb to verb; so the wording is chosen here, by verb, and callers only say what happened.

use serde::{Deserialize, Serialize};

use super::wire::Verb;

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The user does not exist.
    NoSuchUser,
    /// The vhost does not exist.
    NoSuchVhost,
    /// The queue does not exist.
    NoSuchQueue,
    /// The connection does not exist.
    NoSuchConnection,
    /// Something else that was named does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// Wrong user or password.
    NotAuthenticated,
    /// What was given is not valid.
    Invalid,
    /// Only a queue without consumers may be deleted so.
    QueueInUse,
    /// Only an empty queue may be deleted so.
    QueueNotEmpty,
    /// The verb needs the broker to be started, and it is stopped.
    AppStopped,
    /// The verb needs the broker to be stopped, and it is running.
    AppRunning,
    /// The request line made no sense.
    BadRequest,
    /// The broker could not do it, through no fault of the request.
    Internal,
}

/// Why a verb was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub kind: Kind,
    /// For people, possibly of many lines.
    pub message: String,
    /// What `rabbitmqctl` exits with.
    pub exit: u8,
    /// Whether `rabbitmqctl` shows the message without `Error:` above it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bare: bool,
}

/// The command line was wrong.
pub const EXIT_USAGE: u8 = 64;
/// An argument was wrong, or what it names does not exist.
pub const EXIT_DATA: u8 = 65;
/// The user does not exist.
pub const EXIT_NO_USER: u8 = 67;
/// The broker is not there, or declined.
pub const EXIT_UNAVAILABLE: u8 = 69;
/// A name is taken; also a failure inside.
pub const EXIT_SOFTWARE: u8 = 70;
/// It took too long.
pub const EXIT_TIMEOUT: u8 = 75;

impl Failure {
    /// Any failure; most verbs exit with [`EXIT_UNAVAILABLE`].
    pub fn new(kind: Kind, message: impl Into<String>, exit: u8) -> Self {
        Self { kind, message: message.into(), exit, bare: false }
    }

    /// The user that the verb names does not exist.
    pub fn no_such_user(verb: &Verb, user: &str) -> Self {
        let (message, exit) = match verb {
            Verb::DeleteUser { .. } | Verb::ChangePassword { .. } | Verb::SetUserTags { .. } => {
                (format!("User \"{user}\" does not exist"), EXIT_NO_USER)
            }
            Verb::SetPermissions { .. }
            | Verb::ClearPermissions { .. }
            | Verb::SetTopicPermissions { .. }
            | Verb::ClearTopicPermissions { .. } => (format!("User {user} does not exist"), EXIT_NO_USER),
            _ => (format!("{{:no_such_user, \"{user}\"}}"), EXIT_UNAVAILABLE),
        };
        Self::new(Kind::NoSuchUser, message, exit)
    }

    /// The vhost of the request, or that the verb names, does not exist. Not for the listings of
    /// queues, exchanges, bindings and consumers: they are empty in such a vhost, with exit code 0.
    pub fn no_such_vhost(verb: &Verb, vhost: &str) -> Self {
        let kind = Kind::NoSuchVhost;
        match verb {
            Verb::SetVhostTags { .. } => Self::new(kind, format!("Virtual host \"{vhost}\" does not exist"), EXIT_DATA),
            Verb::SetPermissions { .. }
            | Verb::ClearPermissions { .. }
            | Verb::SetTopicPermissions { .. }
            | Verb::ClearTopicPermissions { .. } => {
                Self::new(kind, format!("Virtual host {vhost} does not exist"), EXIT_UNAVAILABLE)
            }
            _ => Self { bare: true, ..Self::new(kind, format!("Virtual host '{vhost}' does not exist"), EXIT_DATA) },
        }
    }

    /// `add_user` of a user that exists.
    pub fn user_exists(user: &str) -> Self {
        Self::new(Kind::AlreadyExists, format!("User \"{user}\" already exists"), EXIT_SOFTWARE)
    }

    /// `authenticate_user` with the wrong name or password.
    pub fn not_authenticated(user: &str) -> Self {
        let message = format!("Error: failed to authenticate user \"{user}\"\nuser '{user}' - invalid credentials");
        Self::new(Kind::NotAuthenticated, message, EXIT_DATA)
    }

    /// A pattern of permissions is not a regular expression: what is wrong, and where.
    pub fn invalid_regex(pattern: &str, reason: &str, at: usize) -> Self {
        let message = format!("{{:invalid_regexp, \"{pattern}\", {{'{reason}', {at}}}}}");
        Self::new(Kind::Invalid, message, EXIT_UNAVAILABLE)
    }

    /// A definition, limit or value is not JSON.
    pub fn not_json() -> Self {
        Self::new(Kind::Invalid, "JSON decoding error. Reason: badarg", EXIT_UNAVAILABLE)
    }

    /// A policy, parameter or vhost limit was checked and refused.
    pub fn validation(reason: &str) -> Self {
        Self::new(Kind::Invalid, format!("Validation failed\n\n{reason}\n"), EXIT_UNAVAILABLE)
    }

    /// `add_vhost` with a default queue type that does not exist.
    pub fn invalid_queue_type() -> Self {
        Self::new(Kind::Invalid, "invalid_queue_type", EXIT_UNAVAILABLE)
    }

    /// The queue that the verb names does not exist, or its vhost does not.
    pub fn no_such_queue(verb: &Verb) -> Self {
        match verb {
            Verb::DeleteQueue { .. } => Self::new(Kind::NoSuchQueue, "Queue not found", EXIT_USAGE),
            _ => Self::new(Kind::NoSuchQueue, "not_found", EXIT_UNAVAILABLE),
        }
    }

    /// `delete_queue --if-unused` of a queue with consumers.
    pub fn queue_in_use() -> Self {
        Self::new(Kind::QueueInUse, "Queue is in use", EXIT_USAGE)
    }

    /// `delete_queue --if-empty` of a queue with messages.
    pub fn queue_not_empty() -> Self {
        Self::new(Kind::QueueNotEmpty, "Queue is not empty", EXIT_USAGE)
    }

    /// `clear_policy`, `clear_operator_policy`, `clear_parameter`, `clear_global_parameter` and
    /// `clear_vhost_limits` of what does not exist, also in a vhost that does not exist.
    pub fn no_such_parameter() -> Self {
        Self::new(Kind::NotFound, "Parameter does not exist", EXIT_UNAVAILABLE)
    }

    /// `set_parameter` of a component that does not exist.
    pub fn no_such_component(component: &str) -> Self {
        Self::validation(&format!("component {component} not found"))
    }

    /// `close_connection` of what is not a pid. A pid of no connection is no failure.
    pub fn invalid_pid(pid: &str) -> Self {
        let message = format!("Error:\n{{:invalid_pid_syntax, \"{pid}\"}}");
        Self::new(Kind::NoSuchConnection, message, EXIT_UNAVAILABLE)
    }

    /// The verb needs `start_app` first.
    pub fn app_stopped() -> Self {
        let message = "this command requires the 'rabbit' app to be running on the target node. \
                       Start it with 'rabbitmqctl start_app'.";
        Self::new(Kind::AppStopped, message, EXIT_USAGE)
    }

    /// The verb needs `stop_app` first.
    pub fn app_running() -> Self {
        let message = "this command requires the 'rabbit' app to be stopped on the target node. \
                       Stop it with 'rabbitmqctl stop_app'.";
        Self::new(Kind::AppRunning, message, EXIT_USAGE)
    }

    /// A line that is not a request.
    pub fn bad_request(reason: impl Into<String>) -> Self {
        Self::new(Kind::BadRequest, reason, EXIT_SOFTWARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wording_of_a_missing_user_depends_on_the_verb() {
        let tags = Verb::SetUserTags { name: "nobody".into(), tags: vec![] };
        let limits = Verb::ListUserLimits { user: Some("nobody".into()) };
        let permissions = Verb::ClearPermissions { user: "nobody".into() };
        let said = |verb| (Failure::no_such_user(verb, "nobody").message, Failure::no_such_user(verb, "nobody").exit);
        assert_eq!(said(&tags), ("User \"nobody\" does not exist".to_owned(), 67));
        assert_eq!(said(&permissions), ("User nobody does not exist".to_owned(), 67));
        assert_eq!(said(&limits), ("{:no_such_user, \"nobody\"}".to_owned(), 69));
    }

    #[test]
    fn missing_vhost_is_mostly_said_without_a_heading() {
        let failure = Failure::no_such_vhost(&Verb::ListPolicies {}, "missing");
        assert_eq!(
            (failure.message.as_str(), failure.exit, failure.bare),
            ("Virtual host 'missing' does not exist", 65, true)
        );
        let verb = Verb::SetVhostTags { name: "missing".into(), tags: vec![] };
        assert!(!Failure::no_such_vhost(&verb, "missing").bare);
    }
}
