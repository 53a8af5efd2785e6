//! Files that were cut, bent or lost between two starts.

use super::disk::{append, checkpoint, entry, install, open, vote};
use bellows_controller::storage::StorageError;
use bellows_member::{LogStorage, MemoryLog, Persist, Recovered};
use std::fs;
use std::path::{Path, PathBuf};

fn batches() -> Vec<Persist> {
    let mut batches = vec![vote(1, 1)];
    batches.extend((1..=6).map(|index| append(&[entry(index, 1, &format!("command {index}"))])));
    batches.push(vote(2, 3));
    batches.push(append(&[entry(6, 2, "instead"), entry(7, 2, "the last one")]));
    batches
}

fn write(folder: &Path, batches: &[Persist]) -> Recovered {
    let mut disk = open(folder).expect("a new folder");
    for batch in batches {
        disk.persist(batch).expect("room on the disk");
    }
    drop(disk);
    recover(folder).expect("an undamaged log")
}

fn recover(folder: &Path) -> Result<Recovered, StorageError> {
    open(folder)?.recover()
}

fn log_file(folder: &Path) -> PathBuf {
    let files = fs::read_dir(folder.join("log")).expect("the log's folder");
    let mut names: Vec<_> = files.map(|file| file.expect("a readable folder").path()).collect();
    names.retain(|path| path.extension().is_some_and(|end| end == "raftlog"));
    assert_eq!(names.len(), 1, "a small log is one file: {names:?}");
    names.remove(0)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temporary folder");
    for file in fs::read_dir(from).expect("a folder") {
        let file = file.expect("a readable folder").path();
        let target = to.join(file.file_name().expect("a name"));
        if file.is_dir() {
            copy(&file, &target);
        } else {
            fs::copy(&file, &target).expect("room on the disk");
        }
    }
}

/// Damages a copy of `pristine` and starts from it.
fn after(pristine: &Path, damage: impl FnOnce(&Path)) -> Result<Recovered, StorageError> {
    let copied = tempfile::tempdir().expect("a temporary folder");
    copy(pristine, copied.path());
    damage(copied.path());
    recover(copied.path())
}

fn truncate(path: &Path, bytes: u64) {
    fs::File::options().write(true).open(path).and_then(|file| file.set_len(bytes)).expect("truncates");
}

/// Batches as a member might give them, from a generator of their own.
fn random_batch(draw: &mut impl FnMut(u64) -> u64, last: &mut u64, base: &mut u64, term: &mut u64) -> Persist {
    match draw(10) {
        0 => {
            *term += 1;
            vote(*term, 1 + draw(3))
        }
        1 if *last > *base => {
            let index = *base + 1 + draw(*last - *base);
            *base = index;
            checkpoint(index, *term, index.saturating_sub(draw(3)).max(1))
        }
        2 => {
            *term += 1;
            *last += 1 + draw(9);
            *base = *last;
            install(*last, *term)
        }
        _ => {
            let first = *last + 1 - draw((*last - *base).min(2) + 1);
            *last = first + draw(4);
            let text = "x".repeat(draw(300) as usize);
            append(&(first..=*last).map(|index| entry(index, *term, &text)).collect::<Vec<_>>())
        }
    }
}

/// The files as a killed process leaves them: not closed, with room allocated ahead. Whatever was acknowledged is there.
#[test]
fn a_killed_process_loses_nothing() {
    for seed in 0..6u64 {
        let mut state = seed;
        let mut draw = move |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % bound
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut disk = open(folder.path()).expect("a new folder");
        let mut memory = MemoryLog::new();
        let (mut last, mut base, mut term) = (0, 0, 1);
        for step in 0..15 {
            let batch = random_batch(&mut draw, &mut last, &mut base, &mut term);
            disk.persist(&batch).expect("room on the disk");
            memory.persist(&batch).expect("memory does not fail");
            let found = after(folder.path(), |_| {}).expect("nothing is damaged");
            let wanted = memory.recover().expect("memory does not fail");
            assert_eq!(found, wanted, "seed {seed}, step {step}: {batch:?}");
        }
    }
}

#[test]
fn a_log_cut_at_any_byte_is_refused() {
    let pristine = tempfile::tempdir().expect("a temporary folder");
    let wanted = write(pristine.path(), &batches());
    let length = fs::metadata(log_file(pristine.path())).expect("the log").len();
    for bytes in 0..=length {
        match after(pristine.path(), |folder| truncate(&log_file(folder), bytes)) {
            Ok(found) => assert_eq!((found, bytes), (wanted.clone(), length), "cut at byte {bytes}"),
            Err(StorageError::LogShorter { acknowledged: 9, .. }) => {}
            Err(other) => panic!("cut at byte {bytes}: {other}"),
        }
    }
}

#[test]
fn a_torn_tail_that_nobody_was_told_of_is_dropped() {
    let pristine = tempfile::tempdir().expect("a temporary folder");
    let all = batches();
    let told = write(pristine.path(), &all[..all.len() - 1]);
    let mark = fs::read(pristine.path().join("mark")).expect("the mark");
    let told_bytes = fs::metadata(log_file(pristine.path())).expect("the log").len();
    open(pristine.path()).and_then(|mut disk| disk.persist(&all[all.len() - 1])).expect("room");
    // The power went after the log's sync had begun and before the mark was written.
    fs::write(pristine.path().join("mark"), mark).expect("room");
    let length = fs::metadata(log_file(pristine.path())).expect("the log").len();
    assert!(length > told_bytes);
    for bytes in told_bytes..length {
        let found = after(pristine.path(), |folder| truncate(&log_file(folder), bytes));
        assert_eq!(found.expect("nothing acknowledged is lost"), told, "cut at byte {bytes}");
    }
}

#[test]
fn a_bent_byte_loses_nothing_in_silence() {
    let pristine = tempfile::tempdir().expect("a temporary folder");
    let wanted = write(pristine.path(), &batches());
    let bytes = fs::read(log_file(pristine.path())).expect("the log");
    for place in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[place] ^= 0x41;
        let found = after(pristine.path(), |folder| fs::write(log_file(folder), &bent).expect("room"));
        if let Ok(found) = found {
            assert_eq!(found, wanted, "byte {place} was bent");
        }
    }
}

/// Refusing does no harm: with the damage undone, the same folder is as it was.
#[test]
fn a_refused_log_can_be_mended() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wanted = write(folder.path(), &batches());
    let path = log_file(folder.path());
    let whole = fs::read(&path).expect("the log");
    let place = whole.len() - 30;
    let mut bent = whole.clone();
    bent[place] ^= 0x41;
    fs::write(&path, &bent).expect("room");
    for _ in 0..2 {
        let error = recover(folder.path()).expect_err("the last batch is damaged");
        assert!(matches!(error, StorageError::LogShorter { .. }), "{error}");
    }
    let kept = fs::read(&path).expect("the log").len();
    let torn = path.with_file_name(format!("{}.torn-at-{kept}", path.file_name().expect("a name").display()));
    let mut tail = fs::read(&torn).expect("what was cut off");
    tail[place - kept] ^= 0x41;
    fs::write(&path, [&whole[..kept], &tail].concat()).expect("room");
    assert_eq!(recover(folder.path()).expect("mended"), wanted);
    assert!(!torn.exists(), "what was kept is not needed any more");
}

#[test]
fn a_lost_log_is_refused() {
    let pristine = tempfile::tempdir().expect("a temporary folder");
    write(pristine.path(), &batches());
    let error = after(pristine.path(), |folder| fs::remove_dir_all(folder.join("log")).expect("removes"));
    let error = error.expect_err("a lost log");
    assert!(matches!(error, StorageError::LogShorter { found: 0, acknowledged: 9, acknowledged_index: 7, .. }));
    assert!(error.to_string().contains("from a backup"), "says how to mend it: {error}");
}

#[test]
fn either_slot_of_the_mark_may_be_torn_but_not_both() {
    let pristine = tempfile::tempdir().expect("a temporary folder");
    let wanted = write(pristine.path(), &batches());
    for slots in [vec![0], vec![4096], vec![0, 4096]] {
        let found = after(pristine.path(), |folder| {
            let path = folder.join("mark");
            let mut bytes = fs::read(&path).expect("the mark");
            slots.iter().for_each(|&slot: &usize| bytes[slot + 9] ^= 1);
            fs::write(&path, bytes).expect("room");
        });
        match slots.len() {
            1 => assert_eq!(found.expect("the other slot, or the log, knows"), wanted),
            _ => assert!(matches!(found, Err(StorageError::MarkLost { .. }))),
        }
    }
    let gone = after(pristine.path(), |folder| fs::remove_file(folder.join("mark")).expect("removes"));
    assert!(matches!(gone, Err(StorageError::MarkLost { .. })));
}

#[test]
fn a_damaged_or_lost_snapshot_is_refused() {
    let pristine = tempfile::tempdir().expect("a temporary folder");
    let mut all = batches();
    all.push(checkpoint(7, 2, 7));
    write(pristine.path(), &all);
    let bytes = fs::read(pristine.path().join("snapshot")).expect("the snapshot");
    for place in 0..bytes.len() {
        let mut bent = bytes.clone();
        bent[place] ^= 0x10;
        let found = after(pristine.path(), |folder| fs::write(folder.join("snapshot"), &bent).expect("room"));
        assert!(matches!(found, Err(StorageError::SnapshotDamaged { .. })), "byte {place} was bent");
        let cut = after(pristine.path(), |folder| truncate(&folder.join("snapshot"), place as u64));
        assert!(matches!(cut, Err(StorageError::SnapshotDamaged { .. })), "cut at byte {place}");
    }
    let gone = after(pristine.path(), |folder| fs::remove_file(folder.join("snapshot")).expect("removes"));
    assert!(matches!(gone, Err(StorageError::SnapshotLost { wanted: 7, found: None, .. })));
}

#[test]
fn a_crash_between_a_received_snapshot_and_its_log_is_healed() {
    let with_snapshot = tempfile::tempdir().expect("a temporary folder");
    write(with_snapshot.path(), &[install(20, 5)]);
    let pristine = tempfile::tempdir().expect("a temporary folder");
    let before = write(pristine.path(), &batches());
    fs::copy(with_snapshot.path().join("snapshot"), pristine.path().join("snapshot")).expect("room");
    let found = recover(pristine.path()).expect("both states are whole");
    assert_eq!(found.hard_state, before.hard_state);
    assert_eq!(found.snapshot.expect("installed").get_metadata().index, 20);
    assert!(found.entries.is_empty(), "the snapshot replaced them");
    let mut disk = open(pristine.path()).expect("healed");
    disk.persist(&append(&[entry(21, 5, "goes on")])).expect("room");
    drop(disk);
    assert_eq!(recover(pristine.path()).expect("healed").entries, [entry(21, 5, "goes on")]);
}
