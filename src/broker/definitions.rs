//! Definitions in RabbitMQ's format: the file that carries users, vhosts, policies and topology.
