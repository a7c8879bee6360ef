//! Tern: one message broker for RabbitMQ, ActiveMQ and AWS SDK clients.
//!
//! # The map
//!
//! - [`protocol`]: the rules of each wire protocol, as sessions that turn received bytes into verbs
//!   of the broker and the broker's answers into bytes. No sockets, no async, no clock.
//! - [`broker`]: what a broker is. Vhosts, exchanges, queues, consumers, users, policies. No
//!   protocol, no async, no file, no clock.
//! - [`aws`]: the calls of SQS and SNS on the same queues and exchanges. No sockets, no async, no clock.
//! - [`store`]: the log: opaque records, durable when it says so. Knows nothing of queues.
//! - [`server`]: sockets, tasks, the clock, signals, memory and disk; [`server::persistence`] makes the
//!   broker durable.
//! - [`admin`]: what operators ask and change, over a local control socket.
//! - [`config`]: settings from file, environment and flags, checked before anything starts.
//! - [`cli`]: the subcommands of `tern`.
//!
//! Modules depend downwards only: `server` and `cli` on everything, `protocol`, `aws` and `admin`
//! on `broker`, `broker` on nothing above it. `conformance/tidy.rs` checks it.
//!
//! # The path of a message
//!
//! 1. A connection's task reads into a buffer that its thread lends it ([`server::read_buffer`]).
//! 2. [`protocol::amqp::Session::handle_input`] finds whole frames; a message's route, properties
//!    and body stay slices of that buffer ([`broker::message`], [`broker::block`]).
//! 3. The route is looked up by exchange and key in the connection's cache
//!    ([`broker::publish::RouteCache`]); only a miss walks exchanges and bindings
//!    ([`broker::route`]).
//! 4. The publishes of one read go to their queues as one [`broker::publish::Batch`]: each queue's
//!    lock is taken once.
//! 5. Still under that lock the queue ([`broker::queue::machine`]) assigns messages to consumers
//!    with credit, and hands each consumer's batch to its outlet, which encodes it into the
//!    consumer's outbox ([`protocol::amqp::output`]) and assigns delivery tags.
//!    What is durable has been appended to the log by then ([`broker::record`]), and the log's writer
//!    syncs it while this goes on; confirms follow when it has.
//! 6. When the read has been worked off, the publisher's own task writes the consumers' sockets
//!    ([`server::socket`]). Only a socket that takes no more wakes its own task.
//!
//! # Invariants
//!
//! 1. `protocol` never awaits and never reads a clock. `broker` knows no frame, channel or wire
//!    field.
//! 2. No lock is held across an await or a file operation. Lock order: a vhost's topology, queues
//!    by id, an outlet, the journal. Long work goes in chunks of 256 per lock hold.
//! 3. What is said about durable state waits for its gate, the journal's position
//!    ([`broker::record`]): confirms, declare-ok and friends, tx.commit-ok, in order per channel.
//! 4. Every buffer between two tasks has a bound with a name, and a named effect when it is full:
//!    stop reading, withhold credit, refuse.
//! 5. Nothing read from the network can panic or allocate more than a stated bound.
//! 6. A message is delivered at least once, or dead-lettered, expired or dropped by a stated
//!    policy, and counted under exactly one of these.
//! 7. Per queue, the order of records is the order of the queue: they are appended under its lock.
//! 8. Every decision of the broker is a record.
//! 9. There is one broker clock; it never runs backwards, and time is an argument everywhere else.

pub mod admin;
pub mod aws;
pub mod broker;
pub mod cli;
pub mod config;
pub mod protocol;
pub mod server;
pub mod store;
