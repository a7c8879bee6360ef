//! Serves the readers of streams when the log has been flushed, on a thread of its own: the log's writer
//! only says so.

use std::{
    io,
    sync::{Arc, Weak},
    thread,
};

use parking_lot::{Condvar, Mutex};

use crate::{
    broker::{Broker, turn::Turn},
    server::clock,
};

/// See the module's text.
#[derive(Default)]
pub(super) struct Streams {
    signal: Mutex<Signal>,
    signalled: Condvar,
}

#[derive(Default)]
struct Signal {
    is_flushed: bool,
    is_over: bool,
}

impl Streams {
    /// Begins to serve, for `broker`.
    pub(super) fn start(self: &Arc<Self>, broker: &Arc<Broker>) -> io::Result<thread::JoinHandle<()>> {
        let (streams, broker) = (self.clone(), Arc::downgrade(broker));
        thread::Builder::new().name("streams".into()).spawn(move || streams.run(&broker))
    }

    /// The log has been flushed further, and somebody waits for that.
    pub(super) fn flushed(&self) {
        self.signal.lock().is_flushed = true;
        self.signalled.notify_one();
    }

    /// Has the thread end.
    pub(super) fn stop(&self) {
        self.signal.lock().is_over = true;
        self.signalled.notify_one();
    }

    fn run(&self, broker: &Weak<Broker>) {
        loop {
            let mut signal = self.signal.lock();
            while !signal.is_flushed && !signal.is_over {
                self.signalled.wait(&mut signal);
            }
            if signal.is_over {
                return;
            }
            signal.is_flushed = false;
            drop(signal);
            let Some(broker) = broker.upgrade() else { return };
            let mut turn = Turn::new(&broker, clock::now());
            broker.waiting.serve_streams(&mut turn);
            turn.end();
        }
    }
}
