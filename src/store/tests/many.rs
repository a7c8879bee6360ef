//! Reading many records at once: the same answers as one by one, however they lie.

use super::*;

fn read_many(log: &Log, positions: &[Position]) -> Vec<Result<Kept, ReadError>> {
    let mut found = Vec::new();
    let reading = if positions.len().is_multiple_of(2) { Reading::Once } else { Reading::Shared };
    log.read_many(positions, reading, &mut Block::default(), |index, result| {
        assert_eq!(index, found.len(), "in the order of the list");
        let kept = |found: Found<'_>| {
            let record = found.record;
            assert_eq!(&found.block[found.at..][..record.body.len()], record.body, "it is where it is said to be");
            assert_eq!(record.position, positions[index]);
            Kept { position: record.position, kind: record.head.kind, body: record.body.to_vec() }
        };
        found.push(result.map(kept));
    });
    assert_eq!(found.len(), positions.len(), "each is answered");
    found
}

fn positions(kept: &[Kept]) -> Vec<Position> {
    kept.iter().map(|one| one.position).collect()
}

/// A log of several segments, many records to a batch, and the same records again in a cold file.
fn hot_and_cold(disk: &MemoryDisk) -> (Rig, Vec<Kept>) {
    let mut rig = Rig::open(disk, small());
    let mut random = Random(7);
    let mut kept = Vec::new();
    for round in 0..40 {
        for at in 0..random.below(12) {
            // Some longer than what is read in the hope of a whole record.
            let bytes_max = if at == 3 { 7000 } else { 600 };
            kept.push(rig.append(round, &body(&mut random, bytes_max)));
        }
        rig.writer.step();
        rig.housekeeper.step();
    }
    assert!(segment_paths(disk).len() > 2);
    let mut writer = rig.log.cold_writer(5).unwrap();
    let mut moved = Vec::new();
    for one in kept.iter().filter(|one| one.body.len() < 600).take(60) {
        let position = writer.append(Head::new(one.kind, 0), &one.body).unwrap().unwrap();
        moved.push(Kept { position, ..one.clone() });
    }
    writer.finish().unwrap();
    kept.extend(moved);
    (rig, kept)
}

#[test]
fn any_selection_in_any_order_is_read() {
    let disk = MemoryDisk::new(Plan::default());
    let (rig, kept) = hot_and_cold(&disk);
    let mut random = Random(11);
    for round in 0..200 {
        let share = 1 + random.below(20);
        let mut chosen: Vec<Kept> = kept.iter().filter(|_| random.below(share) == 0).cloned().collect();
        if round % 4 == 0 {
            chosen.sort_by_key(|one| one.body.len());
        }
        if round % 5 == 0 {
            chosen.extend_from_within(..chosen.len() / 2);
        }
        let found: Vec<Kept> = read_many(&rig.log, &positions(&chosen)).into_iter().map(Result::unwrap).collect();
        assert_eq!(found, chosen);
    }
    assert!(read_many(&rig.log, &[]).is_empty());
}

#[test]
fn records_near_each_other_are_read_by_one_request() {
    let disk = MemoryDisk::new(Plan::default());
    let (rig, kept) = hot_and_cold(&disk);
    let before = disk.reads();
    assert!(read_many(&rig.log, &positions(&kept)).iter().all(Result::is_ok));
    let files = segment_paths(&disk).len() as u64 + 1;
    let reads = disk.reads() - before;
    // A record at the end of what was read for a segment may need another.
    assert!(reads <= 2 * files, "{reads} reads of {files} files");
}

#[test]
fn what_is_far_away_is_not_read_along() {
    let disk = MemoryDisk::new(Plan::default());
    let options = Options { segment_bytes: 1 << 20, ..small() };
    let mut rig = Rig::open(&disk, options);
    let kept: Vec<_> = (0..60_u8).map(|at| rig.write(at, &[at; 7000])).collect();
    let chosen: Vec<_> = kept.iter().step_by(15).cloned().collect();
    let before = disk.bytes_read();
    assert!(read_many(&rig.log, &positions(&chosen)).iter().all(Result::is_ok));
    // Whole blocks, and those twice of which the first read showed that there is more.
    assert!(disk.bytes_read() - before < 100_000);
}

#[test]
fn what_is_not_flushed_or_released_is_told_of_each_record() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let mut kept: Vec<_> = (0..60_u8).map(|at| rig.write(at, &[at; 4000])).collect();
    kept.push(rig.append(61, b"late"));
    let infos = rig.log.segments();
    assert!(rig.log.drop_segment(infos[1].number));
    rig.housekeeper.step();
    for (one, found) in kept.iter().zip(read_many(&rig.log, &positions(&kept))) {
        match found {
            Err(ReadError::NotFlushed(position)) => assert_eq!((position, one.kind), (one.position, 61)),
            Err(ReadError::Released(position)) => {
                assert_eq!(position, one.position);
                assert!(infos[1].first <= position && position < infos[1].end);
            }
            other => {
                assert_eq!(&other.unwrap(), one);
                assert!(one.position < infos[1].first || one.position >= infos[1].end);
            }
        }
    }
}

#[test]
fn a_segment_that_is_used_again_meanwhile_is_released_not_damaged() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let kept: Vec<_> = (0..40_u8).map(|at| rig.write(at, &[at; 4000])).collect();
    let first = rig.log.segments()[0];
    let path = segment_paths(&disk).remove(0);
    let inside: Vec<_> = kept.iter().filter(|one| one.position < first.end).cloned().collect();
    let mut answers = Vec::new();
    let mut is_begun = false;
    let log = &rig.log;
    log.read_many(&positions(&inside), Reading::Once, &mut Block::default(), |index, result| {
        answers.push((index, result.is_ok()));
        if !std::mem::replace(&mut is_begun, true) {
            // What was read already is served; what is read later has other bytes.
            disk.overwrite(&path, 0, &vec![0xEE; disk.contents(&path).len()]);
            log.drop_segment(first.number);
        }
        if let Err(error) = result {
            assert!(matches!(error, ReadError::Released(_)), "{error}");
        }
    });
    assert_eq!(answers.len(), inside.len());
}

#[test]
fn a_flipped_bit_spoils_its_record_alone() {
    let disk = MemoryDisk::new(Plan::default());
    let (rig, kept) = hot_and_cold(&disk);
    let infos = rig.log.segments();
    let all = positions(&kept);
    let mut random = Random(5);
    for round in 0..1000 {
        let index = random.below(kept.len() as u64) as usize;
        let one = &kept[index];
        let (path, begin) = if one.position.is_cold() {
            let (file, at) = one.position.cold_parts();
            (Path::new(DIR).join(segments::cold_name(file)), at as usize)
        } else {
            let info = infos.iter().rfind(|info| info.first <= one.position).unwrap();
            let at = format::place_in(info.first, one.position) as usize;
            (Path::new(DIR).join(segments::segment_name(info.number)), at)
        };
        let at = begin + random.below((format::RECORD_HEADER_BYTES + one.body.len()) as u64) as usize;
        let old = disk.contents(&path)[at];
        disk.overwrite(&path, at, &[old ^ 1 << random.below(8)]);
        // The neighbours as well, so that it lies within what is read at once.
        let near = index.saturating_sub(5)..(index + 5).min(kept.len());
        for (other, found) in near.clone().zip(read_many(&rig.log, &all[near])) {
            match found {
                Err(ReadError::Corrupt(corruption)) => {
                    assert_eq!((other, corruption.position, &corruption.file), (index, one.position, &path));
                }
                found => {
                    assert_ne!(other, index, "round {round}: byte {} of the record", at - begin);
                    assert_eq!(found.unwrap(), kept[other]);
                }
            }
        }
        disk.overwrite(&path, at, &[old]);
    }
}
