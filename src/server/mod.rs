//! Sockets, tasks, the clock and the end of the process.

pub mod limits;
pub mod listen;
pub mod options;
pub mod proxy_protocol;

pub use options::Options;

use crate::config::Settings;
use listen::{Bound, StartError};

/// Runs the broker until it is told to stop, and calls `ready` once everything listens.
pub fn run(settings: &Settings, ready: fn(&Settings, &[Bound])) -> Result<(), StartError> {
    let bound = listen::open_amqp(&settings.server)?;
    if let Some(path) = &settings.server.ports_file {
        listen::write_ports_file(path, &bound)?;
    }
    ready(settings, &bound);
    Ok(())
}
