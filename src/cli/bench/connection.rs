//! A connection of either protocol, as publishers and consumers see it.

use super::{
    client,
    failure::Failure,
    plan::{Consuming, Plan},
    stomp,
    url::Protocol,
};
use std::net::TcpStream;

/// Logged in, and ready for raw work.
#[derive(Debug)]
pub(super) enum Connection {
    Amqp(client::Client),
    Stomp(stomp::Client),
}

impl Connection {
    /// Connects as the plan's address says; `name` is for listings.
    pub(super) fn connect(plan: &Plan, name: &str) -> Result<Self, Failure> {
        Ok(match plan.url.protocol {
            Protocol::Amqp => Self::Amqp(client::Client::connect(&plan.url, name)?),
            Protocol::Stomp => Self::Stomp(stomp::Client::connect(&plan.url)?),
            Protocol::Sqs => return Err(Failure::usage("SQS has a scenario of its own: tern bench sqs")),
        })
    }

    /// Has every publish confirmed, where that has to be said beforehand.
    pub(super) fn select_confirms(&mut self) -> Result<(), Failure> {
        match self {
            Self::Amqp(client) => client.select_confirms(),
            Self::Stomp(_) => Ok(()),
        }
    }

    /// Takes from a queue of the plan, as the plan says.
    pub(super) fn consume(&mut self, plan: &Plan, queue: usize) -> Result<(), Failure> {
        let client = match self {
            Self::Amqp(client) => client,
            Self::Stomp(client) => return client.subscribe(plan, queue),
        };
        match plan.consuming {
            Consuming::AutoAck => client.consume(&plan.queues[queue], true),
            Consuming::Manual { prefetch, .. } => {
                client.prefetch(prefetch)?;
                client.consume(&plan.queues[queue], false)
            }
        }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        match self {
            Self::Amqp(client) => &client.stream,
            Self::Stomp(client) => &client.stream,
        }
    }

    /// Hands over input that was read already.
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        match self {
            Self::Amqp(client) => client.take_input(),
            Self::Stomp(client) => client.take_input(),
        }
    }

    /// Closes in good order.
    pub(super) fn close(&mut self) -> Result<(), Failure> {
        match self {
            Self::Amqp(client) => client.close(),
            Self::Stomp(client) => client.close(),
        }
    }
}
