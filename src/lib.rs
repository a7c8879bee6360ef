//! Tern: one message broker for RabbitMQ, ActiveMQ and AWS SDK clients.

pub mod admin;
pub mod broker;
pub mod cli;
pub mod config;
pub mod protocol;
pub mod server;
