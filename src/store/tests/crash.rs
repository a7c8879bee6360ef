//! Crashes: at every operation, in recovery, and at random, against a model.

use super::*;

/// Runs a random life of a log through several power cuts. The model is the list of records that were
/// appended and not yet known to be lost.
fn live_through_power_cuts(seed: u64, plan: Plan) {
    let mut random = Random(seed);
    let mut disk = MemoryDisk::new(plan.clone());
    let mut model: Vec<Kept> = Vec::new();
    let mut checkpoint = Position(0);
    for _ in 0..6 {
        // Recovery may be cut short, too.
        for _ in 0..random.below(3) {
            disk.crash_in(1 + random.below(12));
            drop(Rig::open_from(&disk, small(), checkpoint));
            disk = disk.power_cut(&mut random, plan.clone());
        }
        let (mut rig, replayed) = Rig::open_from(&disk, small(), checkpoint)
            .unwrap_or_else(|error| panic!("seed {seed}: the log does not open: {error}"));
        // What was replayed is a prefix of what was appended. The rest is lost for good.
        let known: Vec<_> = model.iter().filter(|one| one.position >= checkpoint).cloned().collect();
        assert!(replayed.len() <= known.len(), "seed {seed}: records that were never appended");
        assert_eq!(replayed, known[..replayed.len()], "seed {seed}");
        model.truncate(model.len() - (known.len() - replayed.len()));
        let mut flushed = rig.log.flushed();

        disk.crash_in(1 + random.below(150));
        for _ in 0..200 {
            match random.below(12) {
                0..6 => {
                    let kind = kind(random.next());
                    let bytes_max = if random.below(8) == 0 { 8000 } else { 700 };
                    let body = body(&mut random, bytes_max);
                    match rig.log.append(Head::new(kind, 0), &[&body]) {
                        Ok(appended) => model.push(Kept { position: appended.position, kind, body }),
                        Err(Refused::Failed) => break,
                        Err(Refused::Busy { .. } | Refused::DiskFull) => {}
                        Err(refused) => panic!("seed {seed}: {refused}"),
                    }
                }
                6..9 => drop(rig.writer.step()),
                9 => drop(rig.writer.seal()),
                10 => drop(rig.housekeeper.step()),
                _ => {
                    let covered = rig.log.flushed();
                    if random.below(3) == 0 && covered > checkpoint {
                        checkpoint = covered;
                        rig.log.release_before(checkpoint);
                    }
                }
            }
            assert!(rig.log.flushed() >= flushed);
            flushed = rig.log.flushed();
        }
        drop(rig);
        // Sometimes only the process ends, and the page cache lives on.
        disk = if random.below(4) == 0 { disk.copy(plan.clone()) } else { disk.power_cut(&mut random, plan.clone()) };
        let survives = model.iter().filter(|one| one.position < flushed).count();
        let (_, replayed) = replay(&disk.copy(Plan::default()), small(), checkpoint)
            .unwrap_or_else(|error| panic!("seed {seed}: the log does not open: {error}"));
        let released = model.iter().filter(|one| one.position < checkpoint).count();
        let kept = survives - released;
        assert!(replayed.len() >= kept, "seed {seed}: {} of {kept} flushed records are there", replayed.len());
    }
}

#[test]
fn what_was_flushed_survives_power_cuts() {
    for seed in 0..seeds(300) {
        live_through_power_cuts(seed, Plan::default());
    }
}

#[test]
fn what_was_flushed_survives_power_cuts_without_direct_writes() {
    for seed in 0..seeds(300) {
        live_through_power_cuts(1 << 32 | seed, Plan { is_buffered_only: true, ..Plan::default() });
    }
}

#[test]
fn what_was_flushed_survives_power_cuts_with_short_writes() {
    for seed in 0..seeds(100) {
        live_through_power_cuts(2 << 32 | seed, Plan { has_short_writes: true, ..Plan::default() });
    }
}

/// More by `TERN_STORE_SEEDS`.
fn seeds(usual: u64) -> u64 {
    std::env::var("TERN_STORE_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(usual)
}

/// One fixed life, crashed at each of its operations.
#[test]
fn a_crash_at_any_operation_loses_nothing_flushed() {
    for is_buffered_only in [false, true] {
        let mut is_beyond = false;
        let mut at = 1;
        while !is_beyond {
            let plan = Plan { crash_at: Some(at), is_buffered_only, ..Plan::default() };
            let disk = MemoryDisk::new(plan);
            let mut appended = Vec::new();
            let mut flushed = Position(0);
            let mut checkpoint = Position(0);
            if let Ok((mut rig, _)) = Rig::open_from(&disk, small(), Position(0)) {
                is_beyond = (0..90_u8).all(|round| {
                    let Ok(one) = rig.log.append(Head::new(round, 0), &[&[round; 2500]]) else { return false };
                    appended.push(Kept { position: one.position, kind: round, body: vec![round; 2500] });
                    let _ = rig.writer.step();
                    rig.housekeeper.step();
                    if round % 30 == 29 {
                        checkpoint = rig.log.flushed();
                        rig.log.release_before(checkpoint);
                    }
                    flushed = rig.log.flushed();
                    rig.log.failure().is_none()
                });
            }
            for seed in 0..3 {
                let disk = disk.copy(Plan::default()).power_cut(&mut Random(at * 10 + seed), Plan::default());
                let (rig, replayed) = Rig::open_from(&disk, small(), checkpoint)
                    .unwrap_or_else(|error| panic!("crash at {at}, seed {seed}: {error}"));
                let expected: Vec<_> = appended.iter().filter(|one| one.position >= checkpoint).cloned().collect();
                let survives = expected.iter().filter(|one| one.position < flushed).count();
                assert!(replayed.len() >= survives, "crash at {at}, seed {seed}");
                assert_eq!(replayed, expected[..replayed.len()], "crash at {at}, seed {seed}");
                drop(rig);
            }
            at += 1;
        }
        assert!(at > 100, "the life has operations: {at}");
    }
}

/// A crash after the log's end was read must not undo what recovery has served.
#[test]
fn a_crash_at_any_operation_of_recovery_keeps_what_was_served() {
    // A tail in the page cache that was never synced: the process was killed.
    let disk = MemoryDisk::new(Plan { is_buffered_only: true, ..Plan::default() });
    let mut rig = Rig::open(&disk, small());
    let mut kept: Vec<_> = (0..30_u8).map(|at| rig.write(at, &[at; 1500])).collect();
    disk.crash_in(2);
    kept.push(rig.append(99, &[99; 3000]));
    assert_eq!(rig.writer.step(), Step::Failed, "the machine stopped in the sync");
    drop(rig);
    let mut is_beyond = false;
    let mut at = 1;
    while !is_beyond {
        let plan = Plan { crash_at: Some(at), is_buffered_only: true, ..Plan::default() };
        let killed = disk.copy(plan);
        let served = match Rig::open_from(&killed, small(), Position(0)) {
            Ok((_, served)) => {
                is_beyond = killed.operations() < at;
                served
            }
            // Nothing was served yet: only what was flushed must be there.
            Err(_) => kept[..30].to_vec(),
        };
        let cut = killed.power_cut(&mut Random(at), Plan::default());
        let (_, replayed) = replay(&cut, small(), Position(0)).unwrap();
        assert!(replayed.len() >= served.len(), "recovery crashed at {at}");
        assert_eq!(replayed, kept[..replayed.len()]);
        at += 1;
    }
    assert!(at > 3);
}

/// A failed sync is final, and a restart does not believe the page cache.
#[test]
fn nothing_is_flushed_after_a_failed_sync() {
    for is_buffered_only in [false, true] {
        for nth in 0..40 {
            let disk = MemoryDisk::new(Plan { is_buffered_only, ..Plan::default() });
            let mut rig = Rig::open(&disk, small());
            let before = disk.syncs();
            disk.set_plan(|plan| plan.fail_sync_at = Some(before + 1 + nth));
            let mut kept = Vec::new();
            let mut flushed = rig.log.flushed();
            for round in 0..40_u8 {
                if rig.log.failure().is_some() {
                    break;
                }
                match rig.log.append(Head::new(round, 0), &[&[round; 3000]]) {
                    Ok(one) => kept.push(Kept { position: one.position, kind: round, body: vec![round; 3000] }),
                    Err(refused) => assert_eq!(refused, Refused::Failed),
                }
                let _ = rig.writer.step();
                flushed = rig.log.flushed();
                rig.housekeeper.step();
            }
            assert!(rig.log.failure().is_some(), "sync {nth} failed");
            assert_eq!(rig.told.failures.lock().len(), 1);
            assert_eq!(rig.log.admission(), Admission::Failed);
            assert_eq!(rig.log.append_essential(Head::new(1, 0), &[b"x"]), Err(Refused::Failed));
            // Syncs succeed again, which must not matter.
            assert_eq!(rig.writer.step(), Step::Failed);
            assert_eq!(rig.log.flushed(), flushed);
            assert!(rig.log.wait_flushed(Position(u64::MAX)).is_err());
            drop(rig);
            // The process restarts, serves what it reads, and then the power goes.
            let (rig, served) = Rig::open_from(&disk, small(), Position(0)).unwrap();
            assert!(served.len() >= kept.iter().filter(|one| one.position < flushed).count());
            drop(rig);
            let disk = disk.power_cut(&mut Random(nth), Plan::default());
            let (_, replayed) = replay(&disk, small(), Position(0)).unwrap();
            assert_eq!(replayed, served, "what was served is on the disk");
        }
    }
}
