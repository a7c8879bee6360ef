//! Leases and withheld messages in queues without a log.
