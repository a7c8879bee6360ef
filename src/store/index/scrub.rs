//! The scrubber: reads the runs slowly and verifies them, so that damage is found while there still is
//! a backup or a standby to repair it from.
//!
//! One thread, started by `Index::open`, ended when the index is dropped. What it finds is told once,
//! and merging keeps away from it; it changes nothing.

use std::time::Duration;

use super::{
    block::BLOCK_BYTES,
    commit::Shared,
    error::Error,
    key::Key,
    run::{Run, RunCursor},
};

/// Between two rounds through all runs.
const ROUND_REST: Duration = Duration::from_secs(60);
/// Blocks between two pauses.
const PACE_BLOCKS: usize = 16;

pub(super) fn run_thread(shared: &Shared) {
    while round(shared) && shared.rest(ROUND_REST) {}
}

/// Verifies every run; false when the index is being closed.
pub(super) fn round(shared: &Shared) -> bool {
    let snapshot = shared.current.read().clone();
    for run in &snapshot.runs {
        match verify(shared, run) {
            Ok(true) => {}
            Ok(false) => return false,
            // A run that was superseded meanwhile may be gone; any other error the next round meets again.
            Err(error @ Error::Corrupt { .. }) if is_in_use(shared, run) => {
                shared.note_damage(&error);
                shared.report(&error);
            }
            Err(_) => {}
        }
    }
    true
}

fn is_in_use(shared: &Shared, run: &Run) -> bool {
    shared.current.read().runs.iter().any(|current| current.meta.number == run.meta.number)
}

/// Verifies a whole file, also what is in memory of it.
fn verify(shared: &Shared, run: &Run) -> Result<bool, Error> {
    let fresh = Run::open(&shared.folder, run.meta)?;
    let mut cursor = RunCursor::new(fresh.file.clone());
    cursor.seek(Key::default())?;
    let mut paced = 0;
    while cursor.key().is_some() {
        cursor.step()?;
        if cursor.block_index() >= paced + PACE_BLOCKS {
            paced = cursor.block_index();
            if !pace(shared, PACE_BLOCKS) {
                return Ok(false);
            }
        }
    }
    Ok(pace(shared, fresh.file.blocks() as usize - paced.min(fresh.file.blocks() as usize)))
}

fn pace(shared: &Shared, blocks: usize) -> bool {
    let rate = shared.options.scrub_bytes_per_sec.max(1);
    shared.rest(Duration::from_secs_f64((blocks * BLOCK_BYTES) as f64 / rate as f64))
}
