//! Looking at a log from outside: what is found, what is called damage, and that nothing is changed.

use super::*;
use crate::store::survey::{LogEnd, LogSurvey};

/// A closed log of several segments, each batch with three records.
pub(super) fn closed_log(batches: u8) -> (MemoryDisk, Vec<Kept>) {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    let mut random = Random(3);
    let mut kept = Vec::new();
    for at in 0..batches {
        kept.extend((0..3).map(|kind| rig.append(kind, &body(&mut random, 700))));
        assert_eq!(rig.writer.step(), Step::Flushed, "batch {at}");
        rig.housekeeper.step();
    }
    rig.writer.seal();
    drop(rig);
    (disk, kept)
}

pub(super) fn look(disk: &MemoryDisk, covered: Option<Position>) -> LogSurvey {
    let operations = disk.operations();
    let survey = LogSurvey::take(disk, Path::new(DIR), covered, false).unwrap();
    assert_eq!(disk.operations(), operations, "a survey changes nothing");
    survey
}

#[test]
fn a_whole_log_is_counted_and_not_changed() {
    let (disk, kept) = closed_log(60);
    let survey = look(&disk, Some(Position(0)));
    assert_eq!(survey.damage, []);
    assert_eq!(survey.ending, LogEnd::Clean);
    assert!(survey.segments.len() > 1);
    assert_eq!(survey.segments.iter().map(|segment| segment.records).sum::<u64>(), kept.len() as u64);
    assert_eq!(survey.kinds.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(survey.kinds[&1].records, 60);
    // The closing batch, without records, is counted.
    assert_eq!(survey.segments.iter().map(|segment| segment.batches).sum::<u64>(), 61);
    let (recovered, _) = replay(&disk, small(), Position(0)).unwrap();
    assert_eq!(survey.end, recovered.end());
    assert_eq!(survey.id, Some(recovered.id()));
}

#[test]
fn a_torn_tail_is_not_damage() {
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    rig.write(0, &[1; 200]);
    let end = rig.log.flushed();
    let torn = rig.write(1, &[2; 700]);
    drop(rig);
    let path = segment_paths(&disk).remove(0);
    disk.overwrite(&path, format::place_in(Position(0), torn.position) as usize + 20, &[0]);
    let survey = look(&disk, Some(end));
    assert_eq!(survey.damage, []);
    assert_eq!(survey.end, end);
    assert!(matches!(survey.ending, LogEnd::Torn { file, bytes, .. } if file == path && bytes >= 700));
    // The checkpoint says that it had been synced.
    let survey = look(&disk, Some(torn.position.plus(700)));
    assert_eq!(survey.damage[0].position, Some(end));
}

#[test]
fn what_a_start_refuses_is_found_with_its_place_and_nothing_else() {
    let (disk, _) = closed_log(60);
    let paths = segment_paths(&disk);
    let mut random = Random(8);
    for round in 0..1000 {
        let path = &paths[random.below(paths.len() as u64) as usize];
        let at = random.below(44 << 10) as usize;
        let old = disk.contents(path)[at];
        disk.overwrite(path, at, &[old ^ 1 << random.below(8)]);
        let started = replay(&disk, small(), Position(0)).map(|_| ());
        match LogSurvey::take(&disk, Path::new(DIR), Some(Position(0)), false) {
            Ok(survey) => {
                assert_eq!(
                    survey.damage.is_empty(),
                    started.is_ok(),
                    "round {round}: byte {at} of {path:?}: {started:?}"
                );
                if let Some(found) = survey.damage.first() {
                    assert_eq!(survey.damage.len(), 1, "round {round}: {:?}", survey.damage);
                    assert_eq!(&found.file, path);
                    let end = if found.bytes == 0 { u64::MAX } else { found.at + found.bytes };
                    assert!((found.at..end).contains(&(at as u64)), "round {round}: byte {at} is not in {found:?}");
                }
            }
            Err(error) => assert!(matches!(error, OpenError::NewerFormat { .. }) && at < 12, "{error}"),
        }
        disk.overwrite(path, at, &[old]);
    }
}

#[test]
fn two_damaged_places_are_both_found() {
    let (disk, kept) = closed_log(60);
    let paths = segment_paths(&disk);
    for one in [&kept[10], &kept[70]] {
        let survey = look(&disk, None);
        let segment = survey.segments.iter().rfind(|segment| segment.first <= one.position).unwrap();
        let at = format::place_in(segment.first, one.position) as usize;
        disk.overwrite(&segment.file, at + 4, &[0, 0, 0, 0]);
    }
    assert!(paths.len() > 1);
    let survey = look(&disk, Some(Position(0)));
    assert_eq!(survey.damage.len(), 2);
    assert!(survey.damage.iter().all(|damage| damage.what == "checksum of the batch"));
    // The rest is read all the same.
    assert_eq!(survey.segments.iter().map(|segment| segment.records).sum::<u64>(), kept.len() as u64 - 6);
}

#[test]
fn a_segment_is_missed_only_where_the_checkpoint_does_not_cover_it() {
    let (disk, _) = closed_log(200);
    let whole = look(&disk, Some(Position(0)));
    disk.remove(&whole.segments[1].file).unwrap();
    let survey = look(&disk, Some(whole.segments[2].first));
    assert_eq!(survey.damage, []);
    assert!(!survey.gaps[0].is_loss);
    let survey = look(&disk, Some(whole.segments[1].first));
    assert!(survey.gaps[0].is_loss);
    assert_eq!(survey.damage.len(), 1);
    assert!(survey.damage[0].what.contains("segments 2 to 2 are missing"));
}
