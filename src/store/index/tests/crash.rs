//! A crash at every single disk operation of a scripted life.

use super::*;

/// The models after 0, 1, 2, .. commits of the script.
fn models(script: &[Vec<Change>]) -> Vec<Model> {
    let disk = TestDisk::new();
    let index = open(&disk).expect("an empty disk");
    let mut models = vec![Model::default()];
    for changes in script {
        let mut model = models[models.len() - 1].clone();
        model.commit(&index, changes).expect("a commit");
        models.push(model);
    }
    models
}

fn script() -> Vec<Vec<Change>> {
    let mut random = Random(3);
    (1..=14).map(|commit| broker_like(&mut random, commit, 40)).collect()
}

/// Goes on with the script from where the index is; the number of commits that came through.
fn go_on(index: &Index, script: &[Vec<Change>], models: &[Model]) -> (usize, Result<(), super::super::Error>) {
    let start = index.checkpoint().map_or(0, |checkpoint| checkpoint.number) as usize;
    for (done, changes) in script.iter().enumerate().skip(start) {
        let result = models[done].clone().commit(index, changes).and_then(|()| {
            while index.merge_once()? {}
            Ok(())
        });
        if let Err(error) = result {
            let done = index.checkpoint().map_or(0, |checkpoint| checkpoint.number) as usize;
            return (done, Err(error));
        }
    }
    (script.len(), Ok(()))
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_or_the_new_checkpoint() {
    let script = script();
    let models = models(&script);
    let whole = TestDisk::new();
    let index = open(&whole).expect("an empty disk");
    assert!(go_on(&index, &script, &models).1.is_ok());
    assert!(index.stats().merge_bytes > 0, "the script merges");
    drop(index);
    assert!(
        whole.names().iter().any(|name| name > &"manifest-0000000000000003".to_owned()),
        "the script renews manifests"
    );
    let operations = whole.0.operations();
    for operation in 1..=operations {
        for seed in 0..2 {
            let disk = TestDisk::new();
            disk.0.crash_in(operation);
            let done = match open(&disk) {
                Ok(index) => go_on(&index, &script, &models).0,
                Err(_) => 0,
            };
            let disk = disk.crash(operation * 31 + seed);
            // A second crash, while recovering.
            disk.0.crash_in(1 + operation % 7);
            let _ = open(&disk);
            let disk = disk.crash(operation * 17 + seed);

            let index = open(&disk)
                .unwrap_or_else(|error| panic!("after a crash at operation {operation}, seed {seed}: {error}"));
            let found = index.checkpoint().map_or(0, |checkpoint| checkpoint.number) as usize;
            assert!(
                found == done || found == done + 1,
                "checkpoint {found} after a crash at operation {operation}, seed {seed}, when {done} were done"
            );
            models[found].check_quickly(&index).expect("a whole index");
            let (found, result) = go_on(&index, &script, &models);
            result.expect("the script comes to its end");
            models[found].check(&index).expect("a whole index");
        }
    }
}

#[test]
fn a_sync_that_fails_at_any_time_leaves_the_old_or_the_new_checkpoint() {
    let script = script();
    let models = models(&script);
    let whole = TestDisk::new();
    let index = open(&whole).expect("an empty disk");
    assert!(go_on(&index, &script, &models).1.is_ok());
    for sync in 1..=whole.0.syncs() {
        let disk = TestDisk::new();
        // What it should have synced is forgotten, and a later sync would lie.
        disk.fail_sync_in(sync);
        let done = match open(&disk) {
            Ok(index) => {
                let (done, result) = go_on(&index, &script, &models);
                assert!(result.is_err(), "sync {sync} failed in silence");
                models[done].check_quickly(&index).expect("reading goes on");
                done
            }
            Err(_) => 0,
        };
        let index = open(&disk.crash(sync)).unwrap_or_else(|error| panic!("after sync {sync} failed: {error}"));
        let found = index.checkpoint().map_or(0, |checkpoint| checkpoint.number) as usize;
        assert!(
            found == done || found == done + 1,
            "checkpoint {found} after sync {sync} failed, when {done} were done"
        );
        models[found].check(&index).expect("a whole index");
    }
}
