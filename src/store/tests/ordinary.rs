//! The store as it is used, when nothing fails.

use super::*;

#[test]
fn records_come_back_in_order_after_a_restart() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let mut random = Random(1);
    let mut kept = Vec::new();
    for at in 0..500_u32 {
        kept.push(rig.append(kind(at.into()), &body(&mut random, 900)));
        if at % 7 == 0 {
            rig.writer.step();
            rig.housekeeper.step();
        }
    }
    rig.writer.step();
    assert!(rig.log.segments().len() > 3);
    for one in &kept {
        assert_eq!(&rig.read(one.position).unwrap(), one);
    }
    drop(rig);
    let (rig, replayed) = Rig::open_from(&disk, small(), Position(0)).unwrap();
    assert_eq!(replayed, kept);
    for one in &kept {
        assert_eq!(&rig.read(one.position).unwrap(), one);
    }
}

#[test]
fn a_replay_begins_where_the_checkpoint_ends() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let kept: Vec<_> = (0..200_u8).map(|at| rig.append(at, &[at; 400])).collect();
    rig.writer.step();
    drop(rig);
    for from in [0, 1, 57, 199] {
        let copy = disk.copy(Plan::default());
        let (_, replayed) = replay(&copy, small(), kept[from].position).unwrap();
        assert_eq!(replayed, kept[from..]);
    }
}

#[test]
fn small_batches_share_blocks() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    for at in 0..100 {
        rig.write(1, &[at; 16]);
    }
    assert_eq!(rig.log.flushed(), Position(100 * 96));
}

#[test]
fn epoch_and_time_stamp_later_batches() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    rig.log.set_time(5000);
    rig.append(1, b"one");
    rig.log.set_epoch(7);
    rig.append(2, b"two");
    rig.writer.step();
    rig.log.set_time(4000);
    rig.write(3, b"three");
    drop(rig);
    let mut stamps = Vec::new();
    let store = Store::open(Arc::new(disk), Path::new(DIR), small()).unwrap();
    let recovered = store
        .replay(Position(0), |record, batch| {
            stamps.push((record.head.kind, batch.epoch, batch.time_ms));
            Ok::<_, OpenError>(())
        })
        .unwrap();
    assert_eq!(stamps, [(1, 1, 5000), (2, 7, 5000), (3, 7, 5000)]);
    assert_eq!((recovered.epoch(), recovered.time_ms()), (7, 5000));
}

#[test]
fn a_record_over_the_bound_is_refused_and_one_at_it_is_not() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let bytes_max = rig.log.body_bytes_max();
    let refused = rig.log.append(Head::new(1, 0), &[&vec![0; bytes_max + 1]]);
    assert_eq!(refused, Err(Refused::TooLarge { bytes: bytes_max + 1, bytes_max }));
    let kept = rig.write(1, &vec![9; bytes_max]);
    assert_eq!(rig.read(kept.position).unwrap(), kept);
}

#[test]
fn what_waits_for_the_disk_is_bounded() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    assert_eq!(rig.log.admission(), Admission::Open);
    while rig.log.admission() == Admission::Open {
        rig.append(1, &[0; 1000]);
    }
    assert_eq!(rig.log.admission(), Admission::Busy);
    let refused = (0..1000).find_map(|_| rig.log.append(Head::new(1, 0), &[&[0; 1000]]).err());
    assert!(matches!(refused, Some(Refused::Busy { .. })));
    rig.writer.step();
    assert_eq!(rig.log.admission(), Admission::Open);
}

#[test]
fn a_record_is_read_only_once_it_is_flushed() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let kept = rig.append(1, b"body");
    assert!(matches!(rig.read(kept.position), Err(ReadError::NotFlushed(_))));
    rig.writer.step();
    assert_eq!(rig.read(kept.position).unwrap(), kept);
}

#[test]
fn a_released_segment_is_used_again_and_its_old_bytes_never_validate() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let (mut kept, mut random) = (Vec::new(), Random(3));
    let mut checkpoint = Position(0);
    for round in 0..400_u32 {
        kept.push(rig.write(kind(round.into()), &body(&mut random, 3000)));
        rig.housekeeper.step();
        if round % 20 == 19 {
            checkpoint = rig.log.flushed();
            rig.log.release_before(checkpoint);
            rig.housekeeper.step();
        }
        if round % 33 == 0 {
            // Whatever stands behind the end of a segment that was used before is not a batch.
            let (_, replayed) = replay(&disk.copy(Plan::default()), small(), checkpoint).unwrap();
            let expected: Vec<_> = kept.iter().filter(|one| one.position >= checkpoint).cloned().collect();
            assert_eq!(replayed, expected);
        }
    }
    let files = disk.list(Path::new(DIR)).unwrap().len();
    assert!(files < 10, "segments are recycled: {files} files");
    assert!(matches!(rig.read(kept[0].position), Err(ReadError::Released(_))));
    assert_eq!(rig.log.segment_of(kept[0].position), None);
}

#[test]
fn a_segment_in_the_middle_may_go_when_a_checkpoint_covers_it() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let kept: Vec<_> = (0..60_u8).map(|at| rig.write(at, &[at; 4000])).collect();
    let infos = rig.log.segments();
    assert!(rig.log.drop_segment(infos[1].number));
    assert!(!rig.log.drop_segment(infos[1].number));
    assert!(!rig.log.drop_segment(infos.last().unwrap().number), "the active one stays");
    assert_eq!(rig.read(kept[0].position).unwrap(), kept[0]);
    rig.housekeeper.step();
    drop(rig);
    let from = infos[2].first;
    assert!(matches!(replay(&disk.copy(Plan::default()), small(), Position(0)), Err(OpenError::SegmentMissing { .. })));
    let (rig, _) = Rig::open_from(&disk, small(), from).unwrap();
    assert_eq!(rig.read(kept[0].position).unwrap(), kept[0]);
    let mut scrubber = scrub::Scrubber::new(rig.shared().clone());
    assert!(scrubber.round());
    assert!(rig.told.corruptions.lock().is_empty(), "the end before the gap is no damage");
}

#[test]
fn relocated_records_are_read_at_their_new_place_and_go_with_their_file() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    rig.write(1, b"hot");
    let mut writer = rig.log.cold_writer(77).unwrap();
    let mut moved = Vec::new();
    for at in 0..50_u8 {
        let body = vec![at; 300];
        let position = writer.append(Head::new(at, 0), &body).unwrap().unwrap();
        moved.push(Kept { position, kind: at, body });
    }
    assert!(matches!(rig.read(moved[0].position), Err(ReadError::Released(_))), "not finished");
    let file = writer.finish().unwrap();
    drop(rig.log.cold_writer(78).unwrap());
    assert_eq!(rig.read(moved[9].position).unwrap(), moved[9]);
    drop(rig);
    let disk = disk.power_cut(&mut Random(1), Plan::default());
    let mut rig = Rig::open(&disk, small());
    assert_eq!(rig.log.cold_files(), [file]);
    assert_eq!(file.owner, 77);
    for one in &moved {
        assert_eq!(&rig.read(one.position).unwrap(), one);
    }
    assert!(rig.log.drop_cold(file.number));
    rig.housekeeper.step();
    assert!(matches!(rig.read(moved[0].position), Err(ReadError::Released(_))));
    assert!(disk.list(Path::new(DIR)).unwrap().iter().all(|file| !file.name.starts_with("cold")));
}

#[test]
fn a_number_of_a_cold_file_never_comes_again() {
    let write = |rig: &Rig| {
        let mut writer = rig.log.cold_writer(1)?;
        let position = writer.append(Head::new(1, 0), b"moved")?.unwrap();
        writer.finish().map(|file| (file.number, position))
    };
    // A crash at each operation of one life.
    for crash_in in 1.. {
        let mut disk = MemoryDisk::new(Plan::default());
        let mut rig = Rig::open(&disk, small());
        let (first, gone) = write(&rig).unwrap();
        rig.log.drop_cold(first);
        rig.housekeeper.step();
        drop(rig);
        let mut used = vec![first];
        for life in 0..3 {
            let (mut rig, _) = Rig::open_from(&disk, small(), Position(0)).unwrap();
            if life == 1 {
                disk.crash_in(crash_in);
            }
            while let Ok((number, _)) = write(&rig) {
                assert!(!used.contains(&number), "{number} of {used:?}, crash in {crash_in}");
                used.push(number);
                if !rig.log.drop_cold(number) || !rig.housekeeper.step() || number % 300 == 0 {
                    break;
                }
            }
            assert!(life == 1 || matches!(rig.read(gone), Err(ReadError::Released(_))));
            drop(rig);
            disk = disk.power_cut(&mut Random(crash_in), Plan::default());
        }
        if crash_in > 40 {
            return;
        }
    }
}

#[test]
fn a_directory_belongs_to_one_log_at_a_time() {
    let disk = MemoryDisk::new(Plan::default());
    let rig = Rig::open(&disk, small());
    let refused = Store::open(Arc::new(disk.clone()), Path::new(DIR), small());
    assert!(matches!(refused, Err(OpenError::Locked { .. })));
    drop(rig);
    assert!(Store::open(Arc::new(disk), Path::new(DIR), small()).is_ok());
}

#[test]
fn options_out_of_their_bounds_are_refused() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new(Plan::default()));
    for options in [
        Options { segment_bytes: 5000, ..small() },
        Options { batch_bytes_max: 32 << 10, ..small() },
        Options { spare_segments_max: 1, ..small() },
        Options { zero_bytes_per_sec: 0, ..small() },
        Options { reserve_segments: 0, ..small() },
    ] {
        assert!(matches!(Store::open(disk.clone(), Path::new(DIR), options), Err(OpenError::Options(_))));
    }
}

#[test]
fn the_real_disk_and_the_threads_keep_records() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 1 << 20,
        batch_bytes_max: 64 << 10,
        unwritten_bytes_max: 1 << 20,
        free_bytes_min: 0,
        ..Options::default()
    };
    let open = || Store::open(Arc::new(disk::RealDisk), dir.path(), options.clone()).unwrap();
    let log = open().replay(Position(0), |_, _| Ok::<_, OpenError>(())).unwrap();
    let log = log.start(1, Arc::new(Told::default())).unwrap();
    let appended: Vec<_> = std::thread::scope(|scope| {
        let append = |thread: u8| {
            let log = &log;
            move || {
                (0..2000_u32)
                    .map(|at| log.append(Head::new(thread, 0), &[&at.to_le_bytes(), &[thread; 400]]).unwrap())
                    .collect::<Vec<_>>()
            }
        };
        let threads: Vec<_> = (0..3).map(|thread| scope.spawn(append(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let end = log.flush().unwrap();
    assert!(appended.iter().all(|one| one.end <= end));
    let mut buffer = Vec::new();
    assert_eq!(log.read(appended[0].position, &mut buffer).unwrap().body.len(), 404);
    log.close();
    assert_eq!(log.append(Head::new(1, 0), &[b"late"]), Err(Refused::Failed));
    assert!(log.wait_flushed(Position(u64::MAX)).is_err(), "it does not wait for what never comes");
    drop(log);

    // The page cache and the direct writes agree, and the directory can be opened again at once.
    let mut next = [0_u32; 3];
    let mut records = 0;
    let recovered = open()
        .replay(Position(0), |record, _| {
            let of_thread = &mut next[usize::from(record.head.kind)];
            assert_eq!(record.body[..4], of_thread.to_le_bytes());
            *of_thread += 1;
            records += 1;
            Ok::<_, OpenError>(())
        })
        .unwrap();
    assert_eq!(records, 6000);
    assert_eq!(recovered.torn(), None);
}

/// Passes on how far the log was flushed.
struct Flushes(std::sync::mpsc::Sender<Position>);

impl Owner for Flushes {
    fn flushed(&self, to: Position) {
        let _ = self.0.send(to);
    }

    fn failed(&self, failure: &Failure) {
        panic!("{failure}");
    }
}

#[test]
fn a_record_that_nobody_waits_for_is_flushed_by_itself_with_the_next_or_when_somebody_does() {
    let disk = MemoryDisk::new(Plan::default());
    let (flushes, flushed) = std::sync::mpsc::channel();
    let (recovered, _) = replay(&disk, small(), Position(0)).unwrap();
    let log = recovered.start(1, Arc::new(Flushes(flushes))).unwrap();
    let patient = || log.append_patient(Head::new(1, 0), &[b"settled"]).unwrap().end;
    let reaches = |end: Position| while flushed.recv().expect("the log is open") < end {};
    reaches(patient());
    let before = patient();
    let after = log.append(Head::new(2, 0), &[b"published"]).unwrap().end;
    assert!(before < after);
    reaches(after);
    let waited = patient();
    log.wait_flushed(waited).unwrap();
    let hastened = patient();
    log.hasten();
    reaches(hastened);
    let last = patient();
    log.close();
    assert!(log.flushed() >= last);
}
