//! Carrying out one request of the control socket.
//!
//! Plain calls, without sockets and tasks: a listing comes back as an iterator that makes one row at
//! a time, and holds a queue's lock only inside of a row. What takes its time without work to do
//! (closing connections at a pace, stopping the node) comes back as something to wait for.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::{
    access_keys,
    columns::Column,
    connections, definitions, exchanges,
    failure::{EXIT_SOFTWARE, EXIT_UNAVAILABLE, Failure, Kind},
    limits,
    node::{Change, Node},
    parameters, permissions, policies, queues, status, users, vhosts,
    wire::{DiskLimit, Listing, MemoryLimit, Pong, Request, Verb},
};
use crate::broker::{
    Broker, connections::Connection, options::MemoryShare, policy::Layer, time::Time, turn::Turn, vhost::Vhost,
};

/// The rows of a listing, made as they are asked for.
pub type Rows = Box<dyn Iterator<Item = Vec<Json>> + Send>;

/// What a request came to.
pub enum Reply {
    /// It was done, with what its documentation says.
    Done(Json),
    /// A listing.
    Rows {
        /// Names of its columns.
        columns: Vec<String>,
        /// Its rows.
        rows: Rows,
    },
    /// These connections are to be closed, at this pace; the answer is how many.
    Close {
        /// Which.
        connections: Vec<Connection>,
        /// What their clients are told.
        reason: String,
        /// Milliseconds between two of them.
        delay_ms: u64,
    },
    /// It is done when this is.
    Later(Change),
    /// It is answered as done, and then [`Node::stop`] is called.
    Stop,
}

impl Reply {
    /// Done, with nothing to say.
    pub(super) const DONE: Self = Self::Done(Json::Null);
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done(value) => write!(f, "Done({value})"),
            Self::Rows { columns, .. } => write!(f, "Rows({columns:?})"),
            Self::Close { connections, reason, .. } => write!(f, "Close({}, {reason:?})", connections.len()),
            Self::Later(_) => f.write_str("Later"),
            Self::Stop => f.write_str("Stop"),
        }
    }
}

/// A request on its way.
pub(super) struct Call<'a> {
    pub(super) broker: &'a Arc<Broker>,
    pub(super) node: &'a Arc<dyn Node>,
    pub(super) now: Time,
    pub(super) verb: &'a Verb,
    /// Name of the vhost that verbs of one vhost act on.
    pub(super) vhost_name: &'a str,
}

impl Call<'_> {
    /// The vhost that the verb acts on.
    pub(super) fn vhost(&self) -> Result<Arc<Vhost>, Failure> {
        let vhost = self.broker.vhost(self.vhost_name);
        vhost.ok_or_else(|| Failure::no_such_vhost(self.verb, self.vhost_name))
    }

    pub(super) fn turn(&self) -> Turn<'_> {
        Turn::new(self.broker, self.now)
    }

    pub(super) fn node_name(&self) -> &str {
        &self.broker.options.node_name
    }
}

/// Carries out a request.
pub fn handle(broker: &Arc<Broker>, node: &Arc<dyn Node>, request: &Request) -> Result<Reply, Failure> {
    let Request { verb, vhost } = request;
    let call = &Call { broker, node, now: node.now(), verb, vhost_name: vhost };
    let is_always_answered = matches!(
        verb,
        Verb::Ping {} | Verb::StopApp {} | Verb::StartApp {} | Verb::Reset {} | Verb::Stop {} | Verb::Backup { .. }
    );
    if !is_always_answered && !node.is_running() {
        return Err(Failure::app_stopped());
    }
    match verb {
        Verb::AddUser { name, password } => users::add(call, name, password),
        Verb::DeleteUser { name } => users::delete(call, name),
        Verb::ChangePassword { name, password } => users::change_password(call, name, password),
        Verb::ClearPassword { name } => users::clear_password(call, name),
        Verb::SetUserTags { name, tags } => users::set_tags(call, name, tags),
        Verb::AuthenticateUser { name, password } => users::authenticate(call, name, password),
        Verb::ListUsers {} => users::list(call),
        Verb::AddAccessKey { user, id, secret } => access_keys::add(call, user, id.as_deref(), secret.as_deref()),
        Verb::DeleteAccessKey { id } => access_keys::delete(call, id),
        Verb::ListAccessKeys {} => Ok(access_keys::list(call)),

        Verb::AddVhost { name, description, tags, default_queue_type } => {
            vhosts::add(call, name, description.as_deref(), tags, default_queue_type.as_deref())
        }
        Verb::DeleteVhost { name } => vhosts::delete(call, name),
        Verb::SetVhostTags { name, tags } => vhosts::set_tags(call, name, tags),
        Verb::ListVhosts(listing) => vhosts::list(call, listing),
        Verb::TraceOn {} => vhosts::trace(call, true),
        Verb::TraceOff {} => vhosts::trace(call, false),

        Verb::SetVhostLimits { definition } => limits::set_of_vhost(call, definition),
        Verb::ClearVhostLimits {} => limits::clear_of_vhost(call),
        Verb::ListVhostLimits { global: false } => limits::of_vhost(call),
        Verb::ListVhostLimits { global: true } => limits::list_of_vhosts(call),
        Verb::SetUserLimits { user, definition } => limits::set_of_user(call, user, definition),
        Verb::ClearUserLimits { user, limit } => limits::clear_of_user(call, user, limit),
        Verb::ListUserLimits { user: Some(user) } => limits::of_user(call, user),
        Verb::ListUserLimits { user: None } => limits::list_of_users(call),

        Verb::SetPermissions { user, configure, write, read } => permissions::set(call, user, configure, write, read),
        Verb::ClearPermissions { user } => permissions::clear(call, user),
        Verb::ListPermissions {} => permissions::list(call),
        Verb::ListUserPermissions { user } => permissions::list_of_user(call, user),
        Verb::SetTopicPermissions { user, exchange, write, read } => {
            permissions::set_topic(call, user, exchange, write, read)
        }
        Verb::ClearTopicPermissions { user, exchange } => permissions::clear_topic(call, user, exchange.as_deref()),
        Verb::ListTopicPermissions {} => permissions::list_topic(call),
        Verb::ListUserTopicPermissions { user } => permissions::list_topic_of_user(call, user),

        Verb::SetPolicy(policy) => policies::set(call, Layer::User, policy),
        Verb::ClearPolicy { name } => policies::clear(call, Layer::User, name),
        Verb::ListPolicies {} => policies::list(call, Layer::User),
        Verb::SetOperatorPolicy(policy) => policies::set(call, Layer::Operator, policy),
        Verb::ClearOperatorPolicy { name } => policies::clear(call, Layer::Operator, name),
        Verb::ListOperatorPolicies {} => policies::list(call, Layer::Operator),

        Verb::SetParameter { component, name, value } => parameters::set(call, component, name, value),
        Verb::ClearParameter { component, name } => parameters::clear(call, component, name),
        Verb::ListParameters {} => parameters::list(call),
        Verb::SetGlobalParameter { name, value } => parameters::set_global(call, name, value),
        Verb::ClearGlobalParameter { name } => parameters::clear_global(call, name),
        Verb::ListGlobalParameters {} => parameters::list_global(call),

        Verb::ListQueues(listing) => queues::list(call, listing),
        Verb::PurgeQueue { name } => queues::purge(call, name),
        Verb::DeleteQueue { name, if_empty, if_unused } => queues::delete(call, name, *if_empty, *if_unused),
        Verb::ListExchanges(listing) => exchanges::list(call, listing),
        Verb::ListBindings(listing) => exchanges::list_bindings(call, listing),
        Verb::ListConnections(listing) => connections::list(call, listing),
        Verb::ListChannels(listing) => connections::list_channels(call, listing),
        Verb::ListConsumers(listing) => queues::list_consumers(call, listing),
        Verb::CloseConnection { pid, reason } => connections::close(call, pid, reason),
        Verb::CloseAllConnections { reason, global, limit, delay_ms } => {
            Ok(connections::close_all(call, reason, *global, *limit, *delay_ms))
        }
        Verb::CloseAllUserConnections { user, reason } => Ok(connections::close_all_of_user(call, user, reason)),

        Verb::SetVmMemoryHighWatermark(limit) => {
            node.set_memory_watermark(match *limit {
                MemoryLimit::Relative(fraction) => MemoryShare::Relative(fraction),
                MemoryLimit::Absolute(bytes) => MemoryShare::Bytes(bytes),
            });
            Ok(Reply::DONE)
        }
        Verb::SetDiskFreeLimit(limit) => {
            node.set_disk_free_limit(match *limit {
                DiskLimit::MemRelative(factor) => MemoryShare::Relative(factor),
                DiskLimit::Absolute(bytes) => MemoryShare::Bytes(bytes),
            });
            Ok(Reply::DONE)
        }
        Verb::ExportDefinitions {} => definitions::export_verb(call),
        Verb::ImportDefinitions { definitions } => definitions::import_verb(call, definitions),
        Verb::Status {} => Ok(status::status(call)),
        Verb::Environment {} => Ok(Reply::Done(node.environment().settings)),
        Verb::ClusterStatus {} => Ok(status::cluster(call)),
        Verb::ListFeatureFlags {} => Ok(status::feature_flags()),
        Verb::Listeners {} => Ok(Reply::Done(json!(node.environment().listeners))),
        Verb::VhostsDown {} => Ok(Reply::Done(json!([]))),
        Verb::Alarms {} => Ok(status::alarms(call)),
        Verb::Ping {} => Ok(Reply::Done(json!(Pong { running: node.is_running() }))),
        Verb::Backup { to } => Ok(Reply::Later(node.backup(to))),
        Verb::StopApp {} => Ok(Reply::Later(node.stop_app())),
        Verb::StartApp {} => Ok(Reply::Later(node.start_app())),
        Verb::Reset {} => reset(call),
        Verb::Stop {} => Ok(Reply::Stop),
    }
}

/// Deletes everything, so that the broker is as at its first start.
fn reset(call: &Call<'_>) -> Result<Reply, Failure> {
    if call.node.is_running() {
        return Err(Failure::app_running());
    }
    let mut turn = call.turn();
    let made = call.broker.reset(&mut turn);
    turn.end();
    match made {
        Ok(()) => {
            tracing::warn!("everything was deleted: the broker is as at its first start");
            Ok(Reply::DONE)
        }
        Err(reason) => Err(Failure::new(Kind::Internal, reason, EXIT_SOFTWARE)),
    }
}

/// What was given is not valid, in the words of whoever checked it.
pub(super) fn invalid(reason: &dyn std::fmt::Display) -> Failure {
    Failure::new(Kind::Invalid, reason.to_string(), EXIT_UNAVAILABLE)
}

/// A listing with all columns of a table.
pub(super) fn all_columns(columns: &[Column], rows: impl Iterator<Item = Vec<Json>> + Send + 'static) -> Reply {
    Reply::Rows { columns: columns.iter().map(|(name, _)| (*name).to_owned()).collect(), rows: Box::new(rows) }
}

/// The chosen columns of a listing: those of the table, with the names that it has for them.
pub(super) fn chosen(listing: &Listing, columns: &'static [Column]) -> Result<Vec<&'static str>, Failure> {
    let find = |wanted: &String| match columns.iter().find(|(name, _)| name == wanted) {
        Some((name, _)) => Ok(*name),
        None => Err(Failure::bad_request(format!("no such column: {wanted}"))),
    };
    listing.columns.iter().map(find).collect()
}

/// A listing with chosen columns: `cell` makes one cell of an item.
pub(super) fn rows_of<T: Send + 'static>(
    columns: Vec<&'static str>,
    items: Vec<T>,
    row: impl Fn(&T, &[&'static str]) -> Vec<Json> + Send + 'static,
) -> Reply {
    let names = columns.iter().map(|name| (*name).to_owned()).collect();
    Reply::Rows { columns: names, rows: Box::new(items.into_iter().map(move |item| row(&item, &columns))) }
}

/// The cell of something that is not there.
pub(super) fn nothing() -> Json {
    Json::String(String::new())
}

/// Bytes of a key as text.
pub(super) fn text(bytes: &[u8]) -> Json {
    Json::String(String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use futures_lite::future::block_on;
    use serde_json::json;

    use super::*;
    use crate::{admin::tests::Desk, broker::value::Table};

    fn later(desk: &Desk, verb: Verb) {
        match desk.ask(verb).unwrap() {
            Reply::Later(change) => block_on(change).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn stopped_broker_answers_only_what_starts_it_again() {
        let desk = Desk::new();
        later(&desk, Verb::StopApp {});
        assert_eq!(desk.done(Verb::Ping {}), json!({"running": false}));
        let (message, exit) = desk.refusal(Verb::ListUsers {});
        assert!(message.contains("to be running on the target node"), "{message}");
        assert_eq!(exit, 64);
        later(&desk, Verb::StartApp {});
        assert_eq!(desk.done(Verb::Ping {}), json!({"running": true}));
        assert_eq!(desk.rows(Verb::ListUsers {}).len(), 1);
    }

    #[test]
    fn reset_leaves_a_broker_as_at_its_first_start() {
        let desk = Desk::new();
        desk.done(Verb::AddUser { name: "bob".into(), password: "x".into() });
        desk.done(Verb::ChangePassword { name: "guest".into(), password: "x".into() });
        desk.done(Verb::SetGlobalParameter { name: "g".into(), value: "1".into() });
        desk.done(Verb::SetVhostLimits { definition: "{}".into() });
        desk.queue("q", Table::new());
        assert!(desk.refusal(Verb::Reset {}).0.contains("to be stopped on the target node"));
        later(&desk, Verb::StopApp {});
        desk.done(Verb::Reset {});
        later(&desk, Verb::StartApp {});
        assert_eq!(desk.rows(Verb::ListUsers {}), [json!(["guest", ["administrator"]])]);
        assert!(desk.broker.access.authenticate("guest", b"guest").is_ok());
        assert_eq!(desk.rows(Verb::ListPermissions {}), [json!(["guest", ".*", ".*", ".*"])]);
        assert_eq!(desk.vhost().queues_count(), 0);
        assert_eq!(desk.rows(Verb::ListGlobalParameters {}).len(), 1);
        assert_eq!(desk.done(Verb::ListVhostLimits { global: false }), Json::Null);
    }

    #[test]
    fn limits_of_memory_and_disk_go_to_the_node() {
        let desk = Desk::new();
        desk.done(Verb::SetVmMemoryHighWatermark(MemoryLimit::Relative(0.5)));
        desk.done(Verb::SetDiskFreeLimit(DiskLimit::Absolute(7)));
        assert_eq!(*desk.node.watermark.lock(), MemoryShare::Relative(0.5));
        assert_eq!(*desk.node.disk_limit.lock(), MemoryShare::Bytes(7));
    }

    #[test]
    fn stop_is_answered_before_it_happens() {
        let desk = Desk::new();
        assert!(matches!(desk.ask(Verb::Stop {}), Ok(Reply::Stop)));
        assert!(!desk.node.is_stopping.load(Ordering::Relaxed));
    }
}
