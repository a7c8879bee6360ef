//! Damage: flipped bits, torn ends, foreign bytes.

use proptest::prelude::*;

use super::*;
use crate::store::index::{Error, state};

/// A disk with several levels, manifests and attachments, and the models after each commit.
fn life(seed: u64, commits: u64) -> (TestDisk, Vec<Model>) {
    let disk = TestDisk::new();
    let index = open(&disk).expect("an empty disk");
    let mut random = Random(seed);
    let mut models = vec![Model::default()];
    for commit in 1..=commits {
        let mut model = models[models.len() - 1].clone();
        model.commit(&index, &broker_like(&mut random, commit, 30)).expect("a commit");
        models.push(model);
        if commit % 2 == 0 {
            index.merge_once().expect("a merge");
        }
    }
    (disk, models)
}

fn newest(disk: &TestDisk, prefix: &str) -> String {
    disk.names().into_iter().filter(|name| name.starts_with(prefix)).max().expect("there is one")
}

/// The files of the latest checkpoint.
fn files_in_use(disk: &TestDisk) -> Vec<String> {
    let index = open(&disk.copy()).expect("a whole index");
    let snapshot = index.snapshot();
    let runs = snapshot.runs.iter().map(|run| super::super::run::run_name(run.meta.number));
    let attachment = snapshot.checkpoint().and_then(|checkpoint| checkpoint.attachment);
    let attachment = attachment.map(|attachment| super::super::checkpoint::attachment_name(attachment.number));
    runs.chain(attachment).chain([newest(disk, "manifest-")]).collect()
}

/// Whether `index`, opened after damage, is an older or newer right one, wherever it can be read.
/// Returns whether the damage was noticed.
fn check_damaged(index: &Index, models: &[Model]) -> bool {
    let found = index.checkpoint().map_or(0, |checkpoint| checkpoint.number) as usize;
    let is_noticed = !index.recovery().discarded.is_empty();
    // A manifest cut off before the last two records looks like damage to the last but one, and a
    // crash in the middle of the last.
    assert!(found + 1 == models.len() || found + 3 >= models.len() && is_noticed, "checkpoint {found}");
    match models[found].check_quickly(index) {
        Ok(()) => is_noticed || matches!(index.snapshot().verify(), Err(Error::Corrupt { .. })),
        Err(Error::Corrupt { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn ten_thousand_flipped_bits_are_noticed_wherever_the_index_may_look() {
    let mut random = Random(5);
    let mut noticed = 0;
    for life_number in 0..20 {
        let (whole, models) = life(life_number, 6 + life_number);
        let names = whole.names();
        let in_use = files_in_use(&whole);
        for _ in 0..500 {
            let disk = whole.copy();
            let name = &names[random.below(names.len() as u64) as usize];
            let mut bytes = disk.contents(name);
            let bit = random.below(bytes.len() as u64 * 8);
            bytes[bit as usize / 8] ^= 1 << (bit % 8);
            disk.set_contents(name, bytes);
            let is_noticed = match open(&disk) {
                Ok(index) => check_damaged(&index, &models),
                Err(Error::Corrupt { .. } | Error::NewerFormat { .. }) => true,
                Err(error) => panic!("bit {bit} of {name}: {error}"),
            };
            // What is kept only for the checkpoint before may rot unnoticed.
            assert!(is_noticed || !in_use.contains(name), "bit {bit} of {name}");
            noticed += u64::from(is_noticed);
        }
    }
    assert!(noticed > 5_000, "{noticed} noticed");
}

#[test]
fn a_damaged_latest_checkpoint_falls_back_to_the_one_before() {
    for commits in 2..30 {
        let (whole, models) = life(commits, commits);
        let name = newest(&whole, "manifest-");
        let read =
            super::super::manifest::Read::file(&whole.folder(), u64::from_str_radix(&name[9..], 16).expect("a number"))
                .expect("readable");
        let Some(last) = read.records.iter().rfind(|record| record.kind == super::super::manifest::Kind::Commit) else {
            continue;
        };
        let disk = whole.copy();
        let mut bytes = disk.contents(&name);
        bytes[last.payload.start] ^= 1;
        disk.set_contents(&name, bytes);
        let index = open(&disk).expect("the checkpoint before is whole");
        assert_eq!(index.recovery().lost_checkpoint, Some(commits));
        let before = &models[commits as usize - 1];
        before.check(&index).expect("the checkpoint before is whole");
        // And life goes on, also after a further start.
        let mut model = before.clone();
        model.commit(&index, &[Change::Put(Key::new(0, 1, 0, 1), vec![1])]).expect("a commit");
        while index.merge_once().expect("a merge") {}
        drop(index);
        let index = open(&disk).expect("a whole index");
        assert_eq!(index.recovery().discarded, Vec::<String>::new());
        model.check(&index).expect("a whole index");
    }
}

#[test]
fn a_damaged_latest_attachment_falls_back_to_the_checkpoint_before() {
    // The thirteenth commit brings an attachment.
    let (disk, models) = life(1, 13);
    let name = newest(&disk, "attachment-");
    let mut bytes = disk.contents(&name);
    *bytes.last_mut().expect("not empty") ^= 1;
    disk.set_contents(&name, bytes);
    let index = open(&disk).expect("the checkpoint before is whole");
    assert_eq!(index.recovery().lost_checkpoint, Some(13));
    models[12].check(&index).expect("the checkpoint before is whole");
}

#[test]
fn damage_to_both_checkpoints_names_the_file_and_what_to_do() {
    // The twelfth commit, and the eleventh, have the attachment of the tenth.
    let (disk, _) = life(1, 12);
    let name = newest(&disk, "attachment-");
    let mut bytes = disk.contents(&name);
    *bytes.last_mut().expect("not empty") ^= 1;
    disk.set_contents(&name, bytes);
    let error = open(&disk).err().expect("both checkpoints need it").to_string();
    assert!(error.contains(&name) && error.contains("restore"), "{error}");

    let (disk, _) = life(1, 12);
    for name in disk.names().iter().filter(|name| name.starts_with("manifest-")) {
        disk.set_contents(name, b"rubbish".to_vec());
    }
    let error = open(&disk).err().expect("nothing is left").to_string();
    assert!(error.contains("manifest-") && error.contains("neither"), "{error}");
}

#[test]
fn a_manifest_cut_between_records_is_noticed_by_the_runs_of_later_commits() {
    let whole = TestDisk::new();
    let index = open_with(&whole, Options { manifest_bytes_max: 1 << 20, ..options() }).expect("an empty disk");
    let mut models = vec![Model::default()];
    for commit in 1..=6 {
        let mut model = models[commit as usize - 1].clone();
        model.commit(&index, &[Change::Put(Key::new(0, 1, 0, commit), vec![1])]).expect("a commit");
        models.push(model);
    }
    let name = newest(&whole, "manifest-");
    let bytes = whole.contents(&name);
    for lost in 1..=5 {
        let disk = whole.copy();
        disk.set_contents(&name, bytes[..start_of_commit(&whole, 7 - lost)].to_vec());
        match open(&disk) {
            Err(Error::Corrupt { .. }) => assert!(lost > 2),
            Ok(index) => {
                // The run of the last commit may be of one that never came to its end.
                assert!(lost == 1 || lost == 2 && !index.recovery().discarded.is_empty());
                models[6 - lost as usize].check(&index).expect("a whole index");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn start_of_commit(disk: &TestDisk, commit: u64) -> usize {
    let name = newest(disk, "manifest-");
    let number = u64::from_str_radix(&name[9..], 16).expect("a number");
    let read = super::super::manifest::Read::file(&disk.folder(), number).expect("readable");
    let kind = super::super::manifest::Kind::Commit;
    let record = read.records.iter().find(|record| record.kind == kind && record.commit == commit);
    record.expect("the manifest holds it").payload.start - 40
}

#[test]
fn a_missing_manifest_is_damage_and_not_an_empty_index() {
    let (whole, _) = life(1, 12);
    let disk = TestDisk::new();
    for name in whole.names().iter().filter(|name| !name.starts_with("manifest-")) {
        disk.set_contents(name, whole.contents(name));
    }
    assert!(matches!(open(&disk), Err(Error::Corrupt { .. })));
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (whole, _) = life(1, 12);
    let put_crc = |bytes: &mut [u8], at: usize, from: usize| {
        let crc = super::super::coding::checksum(&bytes[from..at]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
    };
    for prefix in ["manifest-", "run-", "attachment-"] {
        let disk = whole.copy();
        let name = newest(&disk, prefix);
        let mut bytes = disk.contents(&name);
        match prefix {
            "manifest-" => {
                bytes[8] = 9;
                put_crc(&mut bytes, 28, 0);
            }
            "attachment-" => {
                bytes[8] = 9;
                put_crc(&mut bytes, 36, 0);
            }
            _ => {
                let footer = bytes.len() - 80;
                bytes[footer + 8] = 9;
                let end = bytes.len() - 4;
                put_crc(&mut bytes, end, footer);
            }
        }
        disk.set_contents(&name, bytes);
        let error = open(&disk).err().expect("refused");
        assert!(matches!(&error, Error::NewerFormat { file, found: 9, known: 1 } if *file == name), "{error}");
    }
}

#[test]
fn an_end_torn_at_any_byte_leaves_the_checkpoint_before() {
    for commits in [1, 7] {
        let (whole, models) = life(2, commits);
        let name = newest(&whole, "manifest-");
        let bytes = whole.contents(&name);
        let read =
            super::super::manifest::Read::file(&whole.folder(), u64::from_str_radix(&name[9..], 16).expect("a number"))
                .expect("readable");
        let last = read.records.last().expect("a manifest has records");
        assert_eq!(last.kind, super::super::manifest::Kind::Commit, "no merge came after");
        let start = last.payload.start - 40;
        for end in start..=bytes.len() {
            for is_zeroed in [false, true] {
                let mut torn = bytes[..end].to_vec();
                if is_zeroed {
                    torn.resize(bytes.len(), 0);
                }
                let is_whole = torn == bytes;
                let is_clean = is_whole || torn.len() == start;
                let disk = whole.copy();
                disk.set_contents(&name, torn);
                let index = open(&disk).expect("a torn end is no damage");
                assert_eq!(index.recovery().discarded.is_empty(), is_clean, "{:?}", index.recovery());
                models[commits as usize - usize::from(!is_whole)].check(&index).expect("a whole index");
            }
        }
    }
}

#[test]
fn a_damaged_block_is_named_when_it_is_read_and_stops_only_merging() {
    let disk = TestDisk::new();
    let index = open(&disk).expect("an empty disk");
    let mut model = Model::default();
    let changes: Vec<Change> =
        (0..1000).map(|seq| Change::Put(Key::new(0, 1, 0, seq), seq.to_le_bytes().repeat(5))).collect();
    model.commit(&index, &changes).expect("a commit");
    drop(index);
    let name = newest(&disk, "run-");
    let mut bytes = disk.contents(&name);
    bytes[4096 + 100] ^= 4;
    disk.set_contents(&name, bytes);
    let index = open(&disk).expect("blocks are not read at the start");
    let mut scan = index.scan(0, 1, Rank::MIN);
    let read: Vec<_> = scan.by_ref().map_while(Result::ok).collect();
    assert!(!read.is_empty() && read.len() < 1000);
    assert!(scan.next().is_none(), "nothing behind the damage is served");
    match index.page(0, 1, Rank::MIN, usize::MAX) {
        Err(Error::Corrupt { file, offset, .. }) => assert_eq!((file, offset), (name, 4096)),
        other => panic!("{other:?}"),
    }
    assert!(matches!(index.snapshot().verify(), Err(Error::Corrupt { offset: 4096, .. })));
    // An owner elsewhere is served, and commits go on.
    for commit in 1..=8 {
        // The first of these makes a merge read the damaged run.
        let near = Change::Put(Key::new(0, 1, 0, 0), vec![1]);
        let far = Change::Put(Key::new(0, 2, 0, commit), vec![1]);
        model.commit(&index, &[near, far]).expect("a commit");
        let _ = index.merge_once();
    }
    assert_eq!(index.stats().damaged_runs_count, 1);
    assert_eq!(index.page(0, 2, Rank::MIN, usize::MAX).expect("readable").len(), 8);
}

/// Flips a bit in the first block of the newest run.
fn spoil_newest_run(disk: &TestDisk) -> String {
    let name = newest(disk, "run-");
    let mut bytes = disk.contents(&name);
    bytes[50] ^= 1;
    // In place, so that those who have it open see it.
    disk.0.overwrite(&path(&name), 0, &bytes);
    name
}

#[test]
fn merging_goes_on_around_a_damaged_run_and_keeps_what_is_newer_newer() {
    let disk = TestDisk::new();
    let mut index = open(&disk).expect("an empty disk");
    let mut model = Model::default();
    // Owner 3 is in the damaged runs alone, so that all else can be compared with the model; that these
    // runs hold the same sections of other owners is what makes order matter.
    let mut spoilt = 0;
    for commit in 1..=120_u64 {
        let value = commit.to_le_bytes().to_vec();
        let puts = (0..3).flat_map(|owner| (0..8).map(move |seq| (owner, seq * (1 + commit % 3))));
        let mut changes: Vec<Change> =
            puts.map(|(owner, seq)| Change::Put(Key::new(0, owner, 0, seq), value.clone())).collect();
        changes.push(Change::Delete(Key::new(0, commit % 3, 0, commit % 8)));
        if commit == 20 || commit == 47 {
            changes = vec![Change::Put(Key::new(0, 3, 0, commit), value.clone())];
        }
        model.commit(&index, &changes).expect("a commit");
        if commit == 20 || commit == 47 {
            spoil_newest_run(&disk);
        }
        loop {
            match index.merge_once() {
                Ok(true) => {}
                Ok(false) => break,
                Err(Error::Corrupt { .. }) => spoilt += 1,
                Err(error) => panic!("{error}"),
            }
        }
        if commit % 30 == 0 {
            // Which runs are damaged is found out anew.
            drop(index);
            index = open(&disk).expect("blocks are not read at the start");
        }
        if commit == 100 {
            // The damaged runs go with their owner, and what stood apart stands together.
            model.commit(&index, &[Change::Drop(3)]).expect("a commit");
        }
        for owner in 0..3 {
            let read = index.page(0, owner, Rank::MIN, usize::MAX).expect("not of a damaged run");
            let read: Vec<_> = read.iter().map(|entry| (entry.rank, entry.value.as_bytes().to_vec())).collect();
            let range = Key::new(0, owner, 0, 0)..=Key::new(0, owner, u64::MAX, u64::MAX);
            let right: Vec<_> = model.entries.range(range).map(|(key, value)| (key.rank(), value.clone())).collect();
            assert_eq!(read, right, "owner {owner} after commit {commit}");
        }
        let stats = index.stats();
        assert!(stats.groups_count < 24, "after commit {commit}: {stats:?}");
    }
    assert!(spoilt >= 2);
    assert_eq!(index.stats().damaged_runs_count, 0);
    model.check(&index).expect("a whole index");
}

#[test]
fn damage_is_found_in_the_background_and_told_once() {
    let disk = TestDisk::new();
    let options = Options { scrub_bytes_per_sec: u64::MAX, is_merging_in_background: true, ..options() };
    let index = open(&disk).expect("an empty disk");
    Model::default().commit(&index, &[Change::Put(Key::new(0, 1, 0, 1), vec![1])]).expect("a commit");
    drop(index);
    let name = spoil_newest_run(&disk);
    let index = open_with(&disk, options).expect("blocks are not read at the start");
    let (tell, told) = std::sync::mpsc::channel();
    index.on_damage(move |error| tell.send(error.to_string()).expect("the test waits"));
    let text = told.recv().expect("the scrubber finds it");
    assert!(text.contains(&name) && text.contains("byte 0") && text.contains("restore"), "{text}");
    assert_eq!(index.stats().damaged_runs_count, 1);
    assert!(super::super::scrub::round(&index.shared));
    assert!(told.try_recv().is_err(), "once is enough");
    // Who asks for it is told as well.
    assert!(matches!(index.page(0, 1, Rank::MIN, 1), Err(Error::Corrupt { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn foreign_bytes_in_any_file_do_not_panic(
        which in any::<usize>(), start in any::<usize>(), is_cut in any::<bool>(),
        foreign in prop::collection::vec(any::<u8>(), 1..300),
    ) {
        let (disk, models) = life(4, 9);
        let names = disk.names();
        let name = &names[which % names.len()];
        let mut bytes = disk.contents(name);
        let start = start % bytes.len();
        if is_cut {
            bytes.truncate(start);
        }
        let end = bytes.len().min(start + foreign.len());
        bytes.splice(start..end, foreign);
        disk.set_contents(name, bytes);
        if let Ok(index) = open(&disk) {
            check_damaged(&index, &models);
        }
    }

    #[test]
    fn files_of_foreign_bytes_alone_do_not_panic(
        manifest in prop::collection::vec(any::<u8>(), 0..200), run in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let disk = TestDisk::new();
        disk.set_contents("manifest-0000000000000001", manifest);
        disk.set_contents("run-0000000000000001", run);
        prop_assert!(open(&disk).is_err());
    }

    #[test]
    fn payloads_of_foreign_bytes_do_not_panic(bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 0..200)) {
        let _ = state::State::decode(1, &bytes);
        let _ = state::CommitEdit::decode(&bytes);
        let _ = state::MergeEdit::decode(&bytes);
    }
}
