//! Tern: one message broker for RabbitMQ, ActiveMQ and AWS SDK clients.

pub mod broker;
pub mod protocol;
pub mod config;
pub mod server;
//! Tern: a message broker.
pub mod cli;
