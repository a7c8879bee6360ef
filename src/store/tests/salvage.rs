//! Salvage: every record that is whole is in the new log, at its position, and a start accepts it.

use super::survey::{closed_log, look};
use super::*;
use crate::store::index::{self, Index, Key, NewCheckpoint};
use crate::store::salvage::{Salvaged, salvage};
use crate::store::survey::Layout;

fn shared(disk: &MemoryDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn log_alone() -> Layout {
    Layout { dir: DIR.into(), log: DIR.into(), index: None }
}

/// Salvages to `/new`, and removes it after `then` has looked at it.
fn salvaged(disk: &MemoryDisk) -> (Salvaged, Vec<Kept>, MemoryDisk) {
    let disk = disk.copy(Plan::default());
    let new = Path::new("/new");
    let done = salvage(&shared(&disk), &log_alone(), new).unwrap();
    let replayed = replay_dir(&disk, new, Position(0)).unwrap();
    (done, replayed, disk)
}

fn replay_dir(disk: &MemoryDisk, dir: &Path, from: Position) -> Result<Vec<Kept>, OpenError> {
    let mut kept = Vec::new();
    let store = Store::open(Arc::new(disk.clone()), dir, small())?;
    store.replay(from, |record, _| {
        kept.push(Kept { position: record.position, kind: record.head.kind, body: record.body.to_vec() });
        Ok::<_, OpenError>(())
    })?;
    Ok(kept)
}

#[test]
fn a_whole_log_is_copied_byte_for_byte() {
    let (disk, kept) = closed_log(60);
    let (done, replayed, after) = salvaged(&disk);
    assert!(done.is_lossless());
    assert_eq!((replayed, done.records_kept), (kept.clone(), kept.len() as u64));
    for path in segment_paths(&disk) {
        let new = Path::new("/new").join(path.file_name().unwrap());
        let (old, new) = (after.contents(&path), after.contents(&new));
        let end = old.iter().rposition(|byte| *byte != 0).unwrap();
        assert!(old[..=end] == new[..=end], "{}", path.display());
    }
}

#[test]
fn one_flipped_bit_costs_one_record_at_most() {
    let (disk, kept) = closed_log(60);
    let paths = segment_paths(&disk);
    let mut random = Random(21);
    let mut losses = [0; 2];
    for round in 0..400 {
        let path = &paths[random.below(paths.len() as u64) as usize];
        let at = random.below(44 << 10) as usize;
        let old = disk.contents(path)[at];
        disk.overwrite(path, at, &[old ^ 1 << random.below(8)]);
        if replay(&disk, small(), Position(0)).is_err_and(|error| !matches!(error, OpenError::NewerFormat { .. })) {
            let (done, replayed, after) = salvaged(&disk);
            let missing: Vec<_> = kept.iter().filter(|one| !replayed.contains(one)).collect();
            assert!(missing.len() <= 1, "round {round}: byte {at} of {path:?}: {missing:?}");
            assert_eq!(replayed.len() + missing.len(), kept.len(), "round {round}");
            assert_eq!(done.is_lossless(), missing.is_empty(), "round {round}: {:?}", done.losses);
            losses[missing.len()] += 1;
            // The new log is whole, can be read, and takes more.
            let layout = Layout { dir: "/new".into(), log: "/new".into(), index: None };
            assert_eq!(
                crate::store::survey::Survey::take(&shared(&after), &layout, false).unwrap().damage().count(),
                0
            );
        }
        disk.overwrite(path, at, &[old]);
    }
    assert!(losses[0] > 3 && losses[1] > 100, "{losses:?}");
}

#[test]
fn a_lost_record_is_an_error_to_read_and_the_log_goes_on() {
    let (disk, kept) = closed_log(20);
    let survey = look(&disk, None);
    let at = format::place_in(Position(0), kept[4].position) as usize + format::RECORD_HEADER_BYTES;
    disk.overwrite(&survey.segments[0].file, at, &[1, 2, 3]);
    let (done, replayed, after) = salvaged(&disk);
    assert_eq!((replayed.len(), done.records_rescued), (kept.len() - 1, 2));
    assert_eq!(done.losses.len(), 1);
    assert_eq!(done.losses[0].position, kept[4].position);
    let store = Store::open(Arc::new(after), Path::new("/new"), small()).unwrap();
    let recovered = store.replay(Position(0), |_, _| Ok::<_, OpenError>(())).unwrap();
    let (shared, mut writer) = recovered.prepare(1, Arc::new(Told::default())).unwrap();
    let log = Log::new(shared, Vec::new());
    let mut buffer = Vec::new();
    for one in &kept {
        match log.read(one.position, &mut buffer) {
            Ok(record) => assert_eq!(record.body, one.body),
            Err(ReadError::Corrupt(found)) => {
                assert_eq!(found.position, kept[4].position);
                assert!(found.what.contains("lost when the directory was salvaged"));
            }
            Err(error) => panic!("{error}"),
        }
    }
    let more = log.append(Head::new(9, 0), &[b"more"]).unwrap();
    assert_eq!(writer.step(), Step::Flushed);
    assert_eq!(log.read(more.position, &mut buffer).unwrap().body, b"more");
}

#[test]
fn a_zeroed_block_costs_what_stood_in_it() {
    let (disk, kept) = closed_log(60);
    let path = segment_paths(&disk).remove(1);
    let first = look(&disk, None).segments[1].first;
    disk.overwrite(&path, 12288, &[0; 4096]);
    let (done, replayed, _) = salvaged(&disk);
    let place = |one: &Kept| format::place_in(first, one.position);
    let is_hit = |one: &&Kept| {
        one.position >= first
            && place(one) < 16384
            && place(one) + (format::RECORD_HEADER_BYTES + one.body.len()) as u64 > 12288
    };
    let hit: Vec<_> = kept.iter().filter(is_hit).collect();
    let missing: Vec<_> = kept.iter().filter(|one| !replayed.contains(one)).collect();
    assert_eq!(missing, hit);
    assert!(!done.is_lossless() && missing.len() > 1);
}

#[test]
fn a_missing_segment_is_replaced_by_filler() {
    let (disk, kept) = closed_log(200);
    let survey = look(&disk, None);
    let (first, end) = (survey.segments[1].first, survey.segments[1].end);
    disk.remove(&survey.segments[1].file).unwrap();
    // Without an index nothing says that it was released.
    let (done, replayed, _) = salvaged(&disk);
    let expected: Vec<_> = kept.into_iter().filter(|one| one.position < first || one.position >= end).collect();
    assert_eq!(replayed, expected);
    assert_eq!(done.losses.iter().map(|loss| loss.bytes).sum::<u64>() + 64, end.0 - first.0);
}

#[test]
fn a_headless_segment_is_lossless() {
    let (disk, kept) = closed_log(60);
    for path in segment_paths(&disk) {
        let disk = disk.copy(Plan::default());
        disk.overwrite(&path, 0, &[0; 4096]);
        let (done, replayed, _) = salvaged(&disk);
        assert_eq!(replayed, kept, "{}", path.display());
        assert!(done.is_lossless());
        assert!(done.survey.damage().count() > 0);
    }
}

#[test]
fn a_cold_file_keeps_what_is_whole() {
    let (disk, _) = closed_log(3);
    let (rig, _) = Rig::open_from(&disk, small(), Position(0)).unwrap();
    let mut cold = rig.log.cold_writer(77).unwrap();
    let moved: Vec<_> = (0..9).map(|at| cold.append(Head::new(1, 0), &[at; 300]).unwrap().unwrap()).collect();
    let cold = cold.finish().unwrap();
    drop(rig);
    let path = Path::new(DIR).join(segments::cold_name(cold.number));
    disk.overwrite(&path, 0, &[0xFF; 20]);
    disk.overwrite(&path, moved[4].cold_parts().1 as usize + 2, &[0xFF]);
    let (done, _, after) = salvaged(&disk);
    assert_eq!(done.losses.len(), 1);
    assert_eq!((done.losses[0].position, done.losses[0].bytes), (moved[4], 312));
    let store = Store::open(Arc::new(after), Path::new("/new"), small()).unwrap();
    let recovered = store.replay(Position(0), |_, _| Ok::<_, OpenError>(())).unwrap();
    let (shared, _writer) = recovered.prepare(1, Arc::new(Told::default())).unwrap();
    let log = Log::new(shared, Vec::new());
    assert_eq!(log.cold_files(), [cold]);
    let mut buffer = Vec::new();
    for (at, position) in moved.iter().enumerate() {
        assert_eq!(log.read(*position, &mut buffer).is_ok(), at != 4);
    }
}

#[test]
fn a_second_salvage_changes_nothing() {
    let (disk, kept) = closed_log(30);
    let path = segment_paths(&disk).remove(0);
    disk.overwrite(&path, 6000, &[9; 3000]);
    let (done, replayed, after) = salvaged(&disk);
    assert!(!done.is_lossless() && replayed.len() < kept.len());
    let layout = Layout { dir: "/new".into(), log: "/new".into(), index: None };
    let again = salvage(&shared(&after), &layout, Path::new("/newer")).unwrap();
    assert!(again.is_lossless());
    assert_eq!(replay_dir(&after, Path::new("/newer"), Position(0)).unwrap(), replayed);
}

#[test]
fn a_directory_in_use_and_a_target_in_use_are_refused() {
    let disk: Arc<dyn Disk> = Arc::new(crate::store::disk::RealDisk);
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout { dir: dir.path().join("log"), log: dir.path().join("log"), index: None };
    let store = Store::open(disk.clone(), &layout.log, small()).unwrap();
    let recovered = store.replay(Position(0), |_, _| Ok::<_, OpenError>(())).unwrap();
    let (shared, writer) = recovered.prepare(1, Arc::new(Told::default())).unwrap();
    let new = dir.path().join("new");
    let refused = salvage(&disk, &layout, &new).unwrap_err();
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    drop((shared, writer));
    for target in [layout.log.clone(), layout.log.join("inside")] {
        let refused = salvage(&disk, &layout, &target).unwrap_err();
        assert!(refused.to_string().contains("not an empty directory"), "{refused}");
    }
    assert!(salvage(&disk, &layout, &new).unwrap().is_lossless());
}

/// On the real file system, since an index needs one: the outcome for each kind of damage.
mod with_index {
    use super::*;
    use crate::store::disk::RealDisk;
    use crate::store::index::IndexOutcome;

    fn real() -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }

    struct Data {
        dir: tempfile::TempDir,
        layout: Layout,
        kept: Vec<Kept>,
    }

    /// Three checkpoints, each with a run of 1,000 entries; a log that begins before the second.
    fn data() -> Data {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout {
            dir: dir.path().join("data"),
            log: dir.path().join("data/log"),
            index: Some(dir.path().join("data/index")),
        };
        let (disk, kept) = closed_log(60);
        std::fs::create_dir_all(&layout.log).unwrap();
        for file in disk.list(Path::new(DIR)).unwrap() {
            std::fs::write(layout.log.join(&file.name), disk.contents(&Path::new(DIR).join(&file.name))).unwrap();
        }
        let index = open(&layout);
        for round in 0..3_u64 {
            let mut changes = index::Changes::default();
            for seq in 0..1000 {
                changes.put(
                    Key { tree: 0, owner: 1, order: 0, seq: round * 1000 + seq },
                    &(seq + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_le_bytes(),
                );
            }
            let covered = kept[round as usize * 50].position.0;
            let attachment = [round as u8; 100];
            let checkpoint = NewCheckpoint { covered, note: b"note", attachment: Some(&attachment) };
            index.commit(&mut changes, checkpoint).unwrap();
        }
        drop(index);
        Data { dir, layout, kept }
    }

    fn open(layout: &Layout) -> Index {
        let dir = layout.index.as_ref().unwrap();
        Index::open(real(), dir, index::Options { is_merging_in_background: false, ..index::Options::default() })
            .unwrap()
    }

    impl Data {
        fn index_file(&self, prefix: &str, nth: usize) -> std::path::PathBuf {
            let listed = RealDisk.list(self.layout.index.as_ref().unwrap()).unwrap();
            let mut names: Vec<_> =
                listed.into_iter().map(|file| file.name).filter(|name| name.starts_with(prefix)).collect();
            names.sort();
            self.layout.index.as_ref().unwrap().join(&names[nth])
        }

        fn flip(&self, path: &Path, at: usize) {
            let mut bytes = std::fs::read(path).unwrap();
            bytes[at] ^= 0x10;
            std::fs::write(path, bytes).unwrap();
        }

        /// Salvages, opens what came of it, and counts its entries.
        fn salvage(&self) -> (Salvaged, usize, u64) {
            let to = self.dir.path().join("new");
            let done = salvage(&real(), &self.layout, &to).unwrap();
            let layout = Layout { dir: to.clone(), log: to.join("log"), index: Some(to.join("index")) };
            let survey = crate::store::survey::Survey::take(&real(), &layout, false).unwrap();
            assert_eq!(survey.damage().cloned().collect::<Vec<_>>(), []);
            let index = open(&layout);
            let recovery = index.recovery();
            assert!(!recovery.is_new && recovery.discarded.is_empty(), "{recovery:?}");
            let entries =
                index.scan(0, 1, index::Rank::MIN).inspect(|entry| assert!(entry.is_ok(), "{entry:?}")).count();
            let checkpoint = index.checkpoint().unwrap();
            assert!(index.attachment().unwrap().is_some());
            let store = Store::open(Arc::new(RealDisk), &layout.log, small()).unwrap();
            store.replay(Position(checkpoint.covered), |_, _| Ok::<_, OpenError>(())).unwrap();
            (done, entries, checkpoint.number)
        }
    }

    #[test]
    fn a_whole_index_is_copied() {
        let data = data();
        let (done, entries, checkpoint) = data.salvage();
        assert_eq!((done.index, entries, checkpoint), (Some(IndexOutcome::Copied), 3000, 3));
    }

    #[test]
    fn a_damaged_block_of_the_latest_checkpoint_falls_back_to_the_one_before() {
        let data = data();
        data.flip(&data.index_file("run-", 2), 5000);
        let (done, entries, checkpoint) = data.salvage();
        assert_eq!(done.index, Some(IndexOutcome::FellBack { from: 3, to: 2 }));
        assert_eq!((entries, checkpoint), (2000, 2));
    }

    #[test]
    fn a_damaged_block_of_both_checkpoints_costs_its_entries() {
        let data = data();
        data.flip(&data.index_file("run-", 0), 5000);
        let (done, entries, checkpoint) = data.salvage();
        let Some(IndexOutcome::Rewritten { runs, entries_lost }) = &done.index else { panic!("{:?}", done.index) };
        assert_eq!((runs.len(), entries as u64 + entries_lost, checkpoint), (1, 3000, 3));
        assert!(*entries_lost > 0 && *entries_lost < 1000);
    }

    #[test]
    fn it_does_not_fall_back_behind_damage_of_the_log() {
        let data = data();
        data.flip(&data.index_file("run-", 2), 5000);
        // Between the two checkpoints.
        let survey = crate::store::survey::Survey::take(&real(), &data.layout, false).unwrap();
        let one = &data.kept[75];
        let segment = survey.log.segments.iter().rfind(|segment| segment.first <= one.position).unwrap();
        data.flip(&segment.file, format::place_in(segment.first, one.position) as usize + 3);
        let (done, entries, checkpoint) = data.salvage();
        assert!(matches!(done.index, Some(IndexOutcome::Rewritten { .. })), "{:?}", done.index);
        assert!(entries < 3000 && checkpoint == 3);
    }

    #[test]
    fn a_lost_attachment_or_record_is_a_lost_checkpoint() {
        for (prefix, at) in [("attachment-", 60), ("run-", usize::MAX)] {
            let data = data();
            let path = data.index_file(prefix, 2.min(if prefix == "run-" { 2 } else { 1 }));
            let bytes = std::fs::metadata(&path).unwrap().len() as usize;
            data.flip(&path, at.min(bytes - 1));
            let (_, entries, checkpoint) = data.salvage();
            assert!((entries, checkpoint) == (2000, 2) || (entries, checkpoint) == (3000, 3));
        }
    }

    #[test]
    fn without_a_manifest_the_index_is_unusable_and_the_log_is_saved() {
        let data = data();
        for nth in (0..1).rev() {
            std::fs::remove_file(data.index_file("manifest-", nth)).unwrap();
        }
        let to = data.dir.path().join("new");
        let done = salvage(&real(), &data.layout, &to).unwrap();
        assert_eq!(done.index, Some(IndexOutcome::Unusable));
        assert_eq!(done.records_kept, data.kept.len() as u64);
        assert!(!done.is_lossless());
    }
}
