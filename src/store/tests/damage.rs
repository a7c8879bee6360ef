//! Damage: told from a torn write wherever it can be, never served, never silent.

use super::*;

/// Bytes of every file at once: what a test changes and puts back.
fn sealed_log(records: u8) -> (MemoryDisk, Vec<Kept>, Position) {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let mut random = Random(9);
    let kept = (0..records).map(|at| rig.write(at, &body(&mut random, 1500))).collect();
    let watermark = rig.log.flushed();
    assert_eq!(rig.writer.seal(), Step::Flushed);
    drop(rig);
    (disk, kept, watermark)
}

#[test]
fn every_cut_of_a_torn_tail_ends_at_a_batch() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let before = rig.write(0, &[1; 200]);
    let begin = rig.log.flushed();
    let path = segment_paths(&disk).remove(0);
    let empty = disk.contents(&path);
    // Three batches that no sync has covered.
    let mut kept = vec![before];
    let mut ends = vec![begin];
    for at in 1..4_u8 {
        kept.push(rig.write(at, &vec![at; 100 * usize::from(at)]));
        ends.push(rig.log.flushed());
    }
    drop(rig);
    let full = disk.contents(&path);
    let place = |position: Position| format::place_in(Position(0), position) as usize;
    for cut in place(begin)..=place(ends[3]) {
        let copy = disk.copy(Plan::default());
        // The watermarks of the three say that those before them were synced. Here they were not: they
        // are in one write that is cut, so only what is before the cut exists.
        copy.overwrite(&path, cut, &empty[cut..]);
        let (rig, replayed) = Rig::open_from(&copy, small(), Position(0)).unwrap();
        // The last bytes of a batch are padding, and zero anyway.
        let bytes = copy.contents(&path);
        let whole = ends.iter().filter(|end| bytes[..place(**end)] == full[..place(**end)]).count();
        assert_eq!(replayed, kept[..whole], "cut at {cut}");
        assert_eq!(rig.log.flushed(), ends[whole - 1]);
        // Nothing of the torn batch is left.
        let after = copy.contents(&path);
        assert!(after[place(ends[whole - 1])..].iter().all(|byte| *byte == 0), "cut at {cut}");
    }
}

#[test]
fn the_last_batch_may_lack_any_of_its_bytes() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let kept = [rig.write(0, &[1; 200]), rig.write(1, &[2; 700])];
    let end = rig.log.flushed();
    drop(rig);
    let path = segment_paths(&disk).remove(0);
    let begin = kept[1].position.0 - format::BATCH_HEADER_BYTES as u64;
    let place = |position: u64| format::place_in(Position(0), Position(position)) as usize;
    let whole = disk.contents(&path);
    for (at, _) in whole.iter().enumerate().filter(|(_, byte)| **byte != 0) {
        if !(place(begin)..place(end.0)).contains(&at) {
            continue;
        }
        let copy = disk.copy(Plan::default());
        copy.overwrite(&path, at, &[0]);
        let (recovered, replayed) = replay(&copy, small(), Position(0)).unwrap();
        assert_eq!(replayed, kept[..1], "byte {at} is missing");
        assert_eq!(recovered.end(), Position(begin));
    }
}

#[test]
fn no_flipped_bit_below_the_watermark_is_served_or_silent() {
    let (disk, kept, watermark) = sealed_log(100);
    let paths = segment_paths(&disk);
    assert!(paths.len() > 1);
    // The bytes that mean something: headers, and batches below the watermark.
    let mut places = Vec::new();
    for path in &paths {
        let header = format::SegmentHeader::decode(&disk.contents(path)).unwrap();
        places.extend((0..128).map(|at| (path, at)));
        let next = paths.iter().map(|other| format::SegmentHeader::decode(&disk.contents(other)).unwrap().first);
        let end = next.filter(|first| *first > header.first).min().unwrap_or(watermark);
        places.extend((header.place(header.first)..header.place(end)).map(|at| (path, at as usize)));
    }
    let mut random = Random(4);
    for round in 0..10_000 {
        let (path, at) = places[random.below(places.len() as u64) as usize];
        let bit = random.below(8);
        let old = disk.contents(path)[at];
        disk.overwrite(path, at, &[old ^ 1 << bit]);
        match replay(&disk, small(), Position(0)) {
            Err(OpenError::Corrupt(corruption)) => assert_eq!(&corruption.file, path, "round {round}"),
            Err(OpenError::NewerFormat { .. }) if at < 12 => {}
            Err(error) => panic!("round {round}: byte {at}, bit {bit} of {}: {error}", path.display()),
            Ok(_) => panic!("round {round}: byte {at}, bit {bit} of {} was not seen", path.display()),
        }
        disk.overwrite(path, at, &[old]);
    }
    assert_eq!(replay(&disk, small(), Position(0)).unwrap().1, kept);
}

#[test]
fn a_flipped_bit_in_a_cold_record_is_not_served() {
    let (disk, kept, _) = sealed_log(60);
    let (rig, _) = Rig::open_from(&disk, small(), Position(0)).unwrap();
    let mut random = Random(5);
    for round in 0..10_000 {
        let one = &kept[random.below(kept.len() as u64) as usize];
        let info = rig.log.segments().into_iter().rfind(|info| info.first <= one.position).unwrap();
        let path = Path::new(DIR).join(segments::segment_name(info.number));
        let bytes = (format::RECORD_HEADER_BYTES + one.body.len()) as u64;
        let at = (format::place_in(info.first, one.position) + random.below(bytes)) as usize;
        let old = disk.contents(&path)[at];
        disk.overwrite(&path, at, &[old ^ 1 << random.below(8)]);
        match rig.read(one.position) {
            Err(ReadError::Corrupt(found)) => {
                assert_eq!((found.segment, found.position), (info.number, one.position), "round {round}");
                assert_eq!(found.file, path);
            }
            other => panic!("round {round}: {other:?}"),
        }
        disk.overwrite(&path, at, &[old]);
        assert_eq!(&rig.read(one.position).unwrap(), one);
    }
}

#[test]
fn the_scrubber_tells_of_damage_once() {
    let (disk, _, _) = sealed_log(100);
    let (rig, _) = Rig::open_from(&disk, small(), Position(0)).unwrap();
    let mut cold = rig.log.cold_writer(1).unwrap();
    let relocated = cold.append(Head::new(1, 0), &[5; 500]).unwrap().unwrap();
    let cold = cold.finish().unwrap();
    let mut scrubber = scrub::Scrubber::new(rig.shared().clone());
    assert!(scrubber.round());
    assert!(rig.told.corruptions.lock().is_empty());
    let path = segment_paths(&disk).remove(0);
    let old = disk.contents(&path)[9000];
    disk.overwrite(&path, 9000, &[old ^ 4]);
    let cold_path = Path::new(DIR).join(segments::cold_name(cold.number));
    disk.overwrite(&cold_path, 4300, &[6]);
    assert!(scrubber.round());
    assert!(scrubber.round());
    let told = rig.told.corruptions.lock();
    assert_eq!(told.len(), 2);
    assert_eq!((&told[0].file, told[0].segment), (&path, 1));
    assert_eq!((&told[1].file, told[1].position), (&cold_path, relocated));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (disk, _, _) = sealed_log(3);
    let path = segment_paths(&disk).remove(0);
    disk.overwrite(&path, 8, &(FORMAT_VERSION + 1).to_le_bytes());
    let refused = replay(&disk, small(), Position(0)).err().unwrap();
    assert!(matches!(refused, OpenError::NewerFormat { found: 2, known: 1, .. }));
    assert!(refused.to_string().contains(path.to_str().unwrap()));
}

#[test]
fn a_segment_that_lost_its_end_is_damage() {
    let (disk, _, _) = sealed_log(3);
    let path = segment_paths(&disk).remove(0);
    disk.cut(&path, 5000);
    assert!(matches!(replay(&disk, small(), Position(0)), Err(OpenError::Corrupt(_))));
}

#[test]
fn a_segment_that_is_gone_is_missed() {
    let (disk, kept, _) = sealed_log(100);
    let paths = segment_paths(&disk);
    assert!(paths.len() > 2);
    for path in &paths[..paths.len() - 1] {
        let copy = disk.copy(Plan::default());
        copy.remove(path).unwrap();
        assert!(matches!(replay(&copy, small(), Position(0)), Err(OpenError::SegmentMissing { .. })));
    }
    // Nothing in the directory says that there was a last one; a checkpoint does.
    disk.remove(&paths[paths.len() - 1]).unwrap();
    let from = kept.last().unwrap().position;
    assert!(matches!(replay(&disk, small(), from), Err(OpenError::Corrupt(_))));
    for path in &paths[..paths.len() - 1] {
        disk.remove(path).unwrap();
    }
    assert!(matches!(replay(&disk, small(), Position(0)), Err(OpenError::SegmentMissing { .. })));
}

#[test]
fn a_checkpoint_behind_a_bad_batch_makes_it_damage() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let last = [rig.write(0, &[1; 200]), rig.write(1, &[2; 700])];
    let checkpoint = rig.log.flushed();
    drop(rig);
    let path = segment_paths(&disk).remove(0);
    let at = format::place_in(Position(0), last[1].position) as usize + 20;
    disk.overwrite(&path, at, &[0]);
    assert!(replay(&disk.copy(Plan::default()), small(), Position(0)).is_ok());
    assert!(matches!(replay(&disk, small(), checkpoint), Err(OpenError::Corrupt(_))));
}

/// A publisher cannot make its body pass for a batch.
#[test]
fn a_body_that_imitates_a_batch_is_no_batch() {
    let (disk, _, _) = sealed_log(3);
    let path = segment_paths(&disk).remove(0);
    let stolen = disk.contents(&path)[4096..4096 + 512].to_vec();
    let other = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&other, small());
    let first = rig.write(1, &[1; 100]);
    rig.write(2, &stolen);
    rig.write(3, &stolen);
    let end = rig.log.flushed();
    drop(rig);
    // Bytes of another store's log at the very place where they were there.
    let path = segment_paths(&other).remove(0);
    other.overwrite(&path, format::place_in(Position(0), end) as usize, &stolen);
    other.overwrite(&path, 4096, &stolen);
    let (recovered, replayed) = replay(&other.copy(Plan::default()), small(), Position(0))
        .map_or_else(|error| (Err(error), Vec::new()), |(recovered, replayed)| (Ok(recovered), replayed));
    assert!(matches!(recovered.err(), Some(OpenError::Corrupt(found)) if found.position == Position(0)));
    assert!(!replayed.contains(&first));
}
