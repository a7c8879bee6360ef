//! STOMP in RabbitMQ's dialect, frame by frame.

mod activemq;
mod conversations;
mod crossing;
mod destinations;
mod errors;
mod gates;
mod hostile;
mod login;
mod messages;
mod recorded;
mod transactions;
