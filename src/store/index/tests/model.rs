//! Random operations against the model.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Operation {
    Commit(Vec<Change>),
    /// A commit during which the power goes, if it has that many operations.
    CommitInPowerCut {
        changes: Vec<Change>,
        operation: u64,
        seed: u64,
    },
    CommitOnFullDisk(Vec<Change>),
    Merge,
    MergeInPowerCut {
        operation: u64,
        seed: u64,
    },
    Reopen,
}

fn key() -> impl Strategy<Value = Key> {
    (0..TREES, 0..OWNERS, 0..3_u64, 0..60_u64).prop_map(|(tree, owner, order, seq)| Key::new(tree, owner, order, seq))
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let value = || prop::collection::vec(any::<u8>(), 0..=64);
    let fill = (0..TREES, 0..OWNERS, 0..3_u64, 0..60_u64, 1..100_u64, value()).prop_map(
        |(tree, owner, order, seq, count, value)| {
            (seq..seq + count)
                .map(|seq| Change::Put(Key::new(tree, owner, order, seq), value.clone()))
                .collect::<Vec<_>>()
        },
    );
    let one = prop_oneof![
        6 => (key(), value()).prop_map(|(key, value)| Change::Put(key, value)),
        3 => key().prop_map(Change::Delete),
        2 => key().prop_map(|key| Change::Head(key.tree, key.owner, key.rank())),
        1 => (0..OWNERS).prop_map(Change::Drop),
    ];
    let some = prop_oneof![3 => one.prop_map(|one| vec![one]), 1 => fill];
    prop::collection::vec(some, 0..12).prop_map(|parts| parts.concat())
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => changes().prop_map(Operation::Commit),
        2 => (changes(), 1..14_u64, any::<u64>())
            .prop_map(|(changes, operation, seed)| Operation::CommitInPowerCut { changes, operation, seed }),
        1 => changes().prop_map(Operation::CommitOnFullDisk),
        6 => Just(Operation::Merge),
        1 => (1..14_u64, any::<u64>()).prop_map(|(operation, seed)| Operation::MergeInPowerCut { operation, seed }),
        2 => Just(Operation::Reopen),
    ]
}

fn run(operations: Vec<Operation>) {
    let mut disk = TestDisk::new();
    let mut index = open(&disk).expect("an empty disk");
    let mut model = Model::default();
    for operation in operations {
        match operation {
            Operation::Commit(changes) => model.commit(&index, &changes).expect("a commit"),
            Operation::CommitInPowerCut { changes, operation, seed } => {
                let before = model.clone();
                disk.0.crash_in(operation);
                let result = model.commit(&index, &changes);
                disk = disk.crash(seed);
                index = open(&disk).expect("a crash leaves a whole index");
                let is_old = index.checkpoint().map_or(0, |checkpoint| checkpoint.number) == before.commit;
                assert!(result.is_err() || !is_old, "what was committed is there after a crash");
                if is_old {
                    model = before;
                }
            }
            Operation::CommitOnFullDisk(changes) => {
                let before = model.clone();
                disk.leave_room(Some(7));
                let names = disk.names();
                assert!(model.commit(&index, &changes).is_err());
                assert_eq!(disk.names(), names, "nothing is left of the commit");
                disk.leave_room(None);
                model = before;
            }
            Operation::Merge => {
                index.merge_once().expect("a merge");
            }
            Operation::MergeInPowerCut { operation, seed } => {
                disk.0.crash_in(operation);
                let _ = index.merge_once();
                disk = disk.crash(seed);
                index = open(&disk).expect("a crash leaves a whole index");
            }
            Operation::Reopen => {
                drop(index);
                index = open(&disk).expect("a whole index");
                assert_eq!(index.recovery().discarded, Vec::<String>::new());
            }
        }
        model.check_quickly(&index).expect("a whole index");
    }
    model.check(&index).expect("a whole index");
    while index.merge_once().expect("a merge") {}
    model.check(&index).expect("a whole index");
    drop(index);
    model.check(&open(&disk).expect("a whole index")).expect("a whole index");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn the_index_holds_what_the_model_holds(operations in prop::collection::vec(operation(), 1..40)) {
        run(operations);
    }
}

#[test]
fn a_long_life_of_a_broker_ends_as_the_model_does() {
    let disk = TestDisk::new();
    let mut index = open(&disk).expect("an empty disk");
    let mut model = Model::default();
    let mut random = Random(7);
    for commit in 1..300 {
        let changes = broker_like(&mut random, commit, 60);
        model.commit(&index, &changes).expect("a commit");
        while random.below(3) > 0 && index.merge_once().expect("a merge") {}
        if commit % 40 == 0 {
            drop(index);
            index = open(&disk).expect("a whole index");
            model.check(&index).expect("a whole index");
        }
    }
    model.check(&index).expect("a whole index");
    while index.merge_once().expect("a merge") {}
    let stats = index.stats();
    assert_eq!(index.snapshot().verify().expect("a whole index"), stats.entries_count);
    assert!(stats.groups_count < 16, "{stats:?}");
    assert!(stats.entries_count < 3 * model.entries.len() as u64 + 4096, "{stats:?} of {}", model.entries.len());
}

#[test]
fn a_snapshot_does_not_see_later_commits_and_merges() {
    let disk = TestDisk::new();
    let index = open(&disk).expect("an empty disk");
    let mut model = Model::default();
    let put = |seq| Change::Put(Key::new(0, 1, 0, seq), vec![seq as u8]);
    for seq in 0..6 {
        model.commit(&index, &[put(seq)]).expect("a commit");
    }
    let snapshot = index.snapshot();
    model.commit(&index, &[Change::Drop(1)]).expect("a commit");
    for seq in 10..16 {
        model.commit(&index, &[put(seq)]).expect("a commit");
        while index.merge_once().expect("a merge") {}
    }
    let seqs: Vec<u64> = snapshot.scan(0, 1, Rank::MIN).map(|entry| entry.expect("readable").rank.seq).collect();
    assert_eq!(seqs, [0, 1, 2, 3, 4, 5]);
    model.check(&index).expect("a whole index");
}

#[test]
fn a_failed_sync_ends_all_commits_and_no_reading() {
    let disk = TestDisk::new();
    let index = open(&disk).expect("an empty disk");
    let mut model = Model::default();
    model.commit(&index, &[Change::Put(Key::new(0, 1, 0, 1), vec![1])]).expect("a commit");
    disk.fail_sync_in(1);
    let mut after = model.clone();
    assert!(after.commit(&index, &[Change::Delete(Key::new(0, 1, 0, 1))]).is_err());
    let again = after.commit(&index, &[]);
    assert!(matches!(again, Err(super::super::Error::Failed { .. })), "{again:?}");
    model.check(&index).expect("reading goes on");
}

#[test]
fn a_dropped_owner_frees_its_files_after_two_checkpoints() {
    let disk = TestDisk::new();
    let index = open(&disk).expect("an empty disk");
    let mut model = Model::default();
    for commit in 0..4 {
        let changes: Vec<Change> =
            (0..500).map(|seq| Change::Put(Key::new(0, 1, 0, commit * 500 + seq), vec![7; 20])).collect();
        model.commit(&index, &changes).expect("a commit");
    }
    model.commit(&index, &[Change::Drop(1)]).expect("a commit");
    assert_eq!(index.stats().runs_count, 0);
    model.commit(&index, &[]).expect("a commit");
    model.commit(&index, &[]).expect("a commit");
    assert!(!disk.names().iter().any(|name| name.starts_with("run-")), "{:?}", disk.names());
}

#[test]
fn many_small_files_of_one_queue_become_fewer() {
    let options = Options { run_bytes_max: 128 << 10, ..options() };
    let index = open_with(&TestDisk::new(), options.clone()).expect("an empty disk");
    let mut model = Model::default();
    for commit in 0..60_u64 {
        let put = |seq: u64| Change::Put(Key::new(0, 1, 0, commit * 20 + seq), vec![seq as u8; 30]);
        model.commit(&index, &(0..20).map(put).collect::<Vec<_>>()).expect("a commit");
        while index.merge_once().expect("a merge") {}
        assert!(index.stats().runs_count <= options.files_count_max + options.fan_out, "{:?}", index.stats());
    }
    model.check(&index).expect("a whole index");
}

#[test]
fn an_index_on_the_file_system_is_there_after_the_next_start() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let open = || {
        let disk = Arc::new(crate::store::disk::RealDisk);
        Index::open(disk, &folder.path().join("index"), super::options()).expect("a whole index")
    };
    let mut model = Model::default();
    let mut random = Random(13);
    for start in 0..4_u64 {
        let index = open();
        assert_eq!(index.recovery().is_new, start == 0);
        assert_eq!(index.recovery().discarded, Vec::<String>::new());
        model.check(&index).expect("a whole index");
        for commit in 1..=6 {
            model.commit(&index, &broker_like(&mut random, start * 6 + commit, 60)).expect("a commit");
            index.merge_once().expect("a merge");
        }
    }
    model.check(&open()).expect("a whole index");
}

#[test]
fn commits_and_readers_go_on_beside_the_merging_thread() {
    let disk = TestDisk::new();
    let options = Options { is_merging_in_background: true, merge_bytes_per_sec: 0, ..options() };
    let index = open_with(&disk, options).expect("an empty disk");
    let mut model = Model::default();
    let mut random = Random(11);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            // Ends when the last commit's note is seen.
            loop {
                let snapshot = index.snapshot();
                let seqs: Vec<Rank> =
                    snapshot.scan(0, 1, Rank::MIN).map(|entry| entry.expect("readable").rank).collect();
                assert!(seqs.is_sorted());
                if snapshot.checkpoint().is_some_and(|checkpoint| checkpoint.number == 200) {
                    break;
                }
            }
        });
        for commit in 1..=200 {
            model.commit(&index, &broker_like(&mut random, commit, 60)).expect("a commit");
        }
        reader.join().expect("the reader ends well");
    });
    model.check(&index).expect("a whole index");
    drop(index);
    model.check(&open(&disk).expect("a whole index")).expect("a whole index");
}
