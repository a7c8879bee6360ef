//! A full disk: publishers stop, settles go on, and room brings everything back without a restart.

use super::*;

fn full_plan(segments: u64) -> Plan {
    Plan { capacity: Some(segments * (48 << 10) + 8192), ..Plan::default() }
}

#[test]
fn a_full_disk_stops_publishes_and_lets_settles_go_on() {
    let disk = MemoryDisk::new(full_plan(5));
    let mut rig = Rig::open(&disk, small());
    rig.housekeeper.step();
    let mut kept = Vec::new();
    // The publisher heeds admission.
    for round in 0..1000_u32 {
        if rig.log.admission() != Admission::Open {
            break;
        }
        kept.push(rig.write(round as u8, &[7; 2000]));
        rig.housekeeper.step();
    }
    assert_eq!(rig.log.admission(), Admission::DiskLow);
    assert_eq!(rig.log.space(), Space::Low);
    // What was admitted before still fits, and settles use the reserve.
    let mut settles = 0;
    for _ in 0..100_000 {
        match rig.log.append_essential(Head::new(200, 0), &[&[0; 24]]) {
            Ok(appended) => kept.push(Kept { position: appended.position, kind: 200, body: vec![0; 24] }),
            Err(refused) => panic!("{refused}"),
        }
        if rig.writer.step() == Step::Full {
            break;
        }
        settles += 1;
        rig.housekeeper.step();
    }
    assert!(settles > 300, "the reserve holds settles: {settles}");
    assert_eq!(rig.log.space(), Space::Full);
    assert_eq!(rig.log.append(Head::new(1, 0), &[b"publish"]), Err(Refused::DiskFull));
    assert!(rig.log.failure().is_none(), "a full disk is no failure");

    // Consumers have drained the oldest segments.
    let checkpoint = rig.log.segments()[3].first;
    assert_eq!(rig.log.release_before(checkpoint), 3);
    rig.housekeeper.step();
    assert_eq!(rig.writer.step(), Step::Flushed, "what waited is written");
    rig.housekeeper.step();
    assert_eq!(rig.log.space(), Space::Ok);
    assert_eq!(rig.log.admission(), Admission::Open);
    kept.push(rig.write(1, b"on we go"));
    assert_eq!(*rig.told.space.lock(), [Space::Low, Space::Full, Space::Ok]);
    drop(rig);
    let (_, replayed) = replay(&disk.power_cut(&mut Random(1), Plan::default()), small(), checkpoint).unwrap();
    let expected: Vec<_> = kept.into_iter().filter(|one| one.position >= checkpoint).collect();
    assert_eq!(replayed, expected, "nothing is lost");
}

#[test]
fn room_from_elsewhere_ends_the_shortage() {
    let disk = MemoryDisk::new(full_plan(4));
    let mut rig = Rig::open(&disk, small());
    while rig.log.admission() == Admission::Open {
        rig.write(1, &[7; 2000]);
        rig.housekeeper.step();
    }
    assert_eq!(rig.log.space(), Space::Low);
    disk.set_plan(|plan| plan.capacity = None);
    rig.housekeeper.step();
    assert_eq!(rig.log.space(), Space::Ok);
    assert_eq!(rig.log.admission(), Admission::Open);
}

#[test]
fn a_write_that_finds_no_room_is_written_later() {
    // A file system that does not reserve: the spare is there, and writing to it fails.
    let disk = MemoryDisk::new(Plan::default());
    let mut rig = Rig::open(&disk, small());
    rig.write(1, b"before");
    let path = segment_paths(&disk).remove(0);
    disk.cut(&path, 8192);
    disk.set_plan(|plan| plan.capacity = Some(0));
    let kept = rig.append(2, &[5; 6000]);
    assert_eq!(rig.writer.step(), Step::Full);
    assert!(rig.log.flushed() <= kept.position);
    assert_eq!(rig.log.space(), Space::Full);
    disk.set_plan(|plan| plan.capacity = None);
    assert_eq!(rig.writer.step(), Step::Flushed);
    assert_eq!(rig.read(kept.position).unwrap(), kept);
    assert_eq!(rig.log.space(), Space::Ok);
}

#[test]
fn a_space_that_must_stay_free_is_left_free() {
    let disk = MemoryDisk::new(full_plan(10));
    let mut rig = Rig::open(&disk, Options { free_bytes_min: 4 * (48 << 10), ..small() });
    while rig.log.admission() == Admission::Open {
        rig.write(1, &[7; 2000]);
        rig.housekeeper.step();
    }
    assert!(disk.free_bytes(Path::new(DIR)).unwrap() >= 4 * (48 << 10));
}
