//! Digests of passwords, which are slow on purpose, beside the threads that run connections.
//!
//! Knows nothing of passwords. While a thread of the runtime is busy here, another takes its other
//! tasks over, so that nobody's messages wait for somebody's login.

use std::num::NonZero;
use std::thread::available_parallelism;

use parking_lot::{Condvar, Mutex};

/// Runs slow work to its end. As many run at once as there are cores, others wait for their turn:
/// each takes 19 MiB and all of a core.
pub fn run(work: &mut dyn FnMut()) {
    tokio::task::block_in_place(|| {
        let _turn = Turn::take();
        work();
    });
}

// Guards a count only; nothing is locked under it.
static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

struct Turn;

impl Turn {
    fn take() -> Self {
        let cores = available_parallelism().map_or(1, NonZero::get);
        let mut running = RUNNING.lock();
        ENDED.wait_while(&mut running, |running| *running >= cores);
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock() -= 1;
        ENDED.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_more_run_at_once_than_there_are_cores() {
        let cores = available_parallelism().unwrap().get();
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..4 * cores)
            .map(|_| {
                let (now, most) = (now.clone(), most.clone());
                tokio::spawn(async move {
                    run(&mut || {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    });
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!((1..=cores).contains(&most.load(Ordering::SeqCst)));
    }
}
