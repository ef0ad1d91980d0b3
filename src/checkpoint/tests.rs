use super::*;
use crate::codec;
use std::fs;

const ME: PartitionId = PartitionId(0);

fn value(text: &str) -> Bytes {
    codec::encode(text).unwrap()
}

/// What the first task of an attempt finds.
fn restored(checkpoints: &Checkpoints, attempt: u32) -> Option<Restored<String>> {
    checkpoints.begin(attempt);
    let restored = checkpoints.restore(attempt).unwrap();
    restored.map(|(step, bytes)| Restored { step, value: codec::decode(&bytes).unwrap() })
}

fn at(step: u64, value: &str) -> Option<Restored<String>> {
    Some(Restored { step, value: value.to_owned() })
}

/// The checkpoints of a submission of "train" that looks at earlier runs, too.
fn later(directory: &tempfile::TempDir) -> Checkpoints {
    Checkpoints::new(Some(directory.path().to_owned()), "train", 2, true)
}

/// What holds in memory and in a directory alike.
fn behaves(checkpoints: &Checkpoints) {
    assert_eq!(restored(checkpoints, 0), None);
    checkpoints.save(0, 1, ME, value("a")).unwrap();
    checkpoints.save(0, 2, ME, value("b")).unwrap();
    assert_eq!(restored(checkpoints, 0), None, "an attempt does not see its own");
    assert_eq!(restored(checkpoints, 1), at(2, "b"));
    checkpoints.save(1, 1, ME, value("c")).unwrap();
    assert_eq!(restored(checkpoints, 1), at(2, "b"), "the same for all of the attempt");
    assert_eq!(restored(checkpoints, 2), at(1, "c"), "the newest, not the furthest");
    checkpoints.save(2, 1, ME, value("d")).unwrap();
    let refused = checkpoints.save(2, 1, PartitionId(3), value("e")).unwrap_err();
    assert!(refused.to_string().contains("by partition 0 already"), "{refused}");
}

/// What is promised to the tasks of an attempt while others save.
fn is_the_same_for_all(checkpoints: &Checkpoints) {
    checkpoints.save(0, 10, ME, value("ten")).unwrap();
    assert_eq!(restored(checkpoints, 1), at(10, "ten"));
    for step in 11..20 {
        checkpoints.save(1, step, ME, value("later")).unwrap();
        assert_eq!(restored(checkpoints, 1), at(10, "ten"), "after step {step}");
    }
    let late = checkpoints.save(0, 20, ME, value("of a zombie")).unwrap_err().to_string();
    assert!(late.contains("comes from attempt 0, but attempt 1 has begun"), "{late}");
    assert_eq!(restored(checkpoints, 2), at(19, "later"));
    assert_eq!(checkpoints.restore(1).unwrap(), None, "to a zombie");
}

#[test]
fn in_memory_all_tasks_of_an_attempt_restore_the_same() {
    is_the_same_for_all(&Checkpoints::new(None, "train", 2, false));
}

#[test]
fn in_a_directory_all_tasks_of_an_attempt_restore_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let directory = Some(directory.path().to_owned());
    is_the_same_for_all(&Checkpoints::new(directory, "train", 2, false));
}

#[test]
fn in_memory() {
    behaves(&Checkpoints::new(None, "train", 2, false));
}

#[test]
fn in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    behaves(&Checkpoints::new(Some(directory.path().to_owned()), "train", 2, false));
}

/// A directory with two checkpoints, and the newest of the two files.
fn two_saved(stage: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let checkpoints = Checkpoints::new(Some(directory.path().to_owned()), stage, 2, false);
    checkpoints.save(0, 1, ME, value("first")).unwrap();
    checkpoints.save(0, 2, ME, value("second")).unwrap();
    let files = list(&directory.path().join(folder(stage))).unwrap();
    let newest = files.into_values().next_back().unwrap();
    (directory, newest)
}

#[test]
fn a_later_run_finds_what_an_earlier_left_if_it_asks_for_it() {
    let (directory, _) = two_saved("train");
    let fresh = Checkpoints::new(Some(directory.path().to_owned()), "train", 2, false);
    assert_eq!(restored(&fresh, 0), None);
    let later = later(&directory);
    assert_eq!(restored(&later, 0), at(2, "second"));
    later.save(0, 1, ME, value("again")).unwrap();
    assert_eq!(restored(&later, 1), at(1, "again"), "a later run's are newer");
}

#[test]
fn two_runs_of_one_name_at_a_time_do_not_meet() {
    let directory = tempfile::tempdir().unwrap();
    let both = [(); 2].map(|()| later(&directory));
    for (checkpoints, text) in both.iter().zip(["a", "b"]) {
        for step in 0..5 {
            checkpoints.save(0, step, ME, value(text)).unwrap();
        }
    }
    assert_eq!(restored(&both[0], 1), at(4, "a"));
    assert_eq!(restored(&both[1], 1), at(4, "b"));
}

#[test]
fn other_stages_have_other_checkpoints() {
    let (directory, _) = two_saved("a/b");
    let other = Checkpoints::new(Some(directory.path().to_owned()), "a b", 2, true);
    assert_eq!(restored(&other, 0), None);
}

#[test]
fn a_torn_or_foreign_file_is_refused_and_the_previous_one_used() {
    let (directory, newest) = two_saved("train");
    let whole = fs::read(&newest).unwrap();
    let mut flipped = whole.clone();
    flipped[20] ^= 1;
    let cuts = (0..whole.len()).map(|length| whole[..length].to_vec());
    let foreign = b"not one of ours at all, yet long enough".to_vec();
    for bytes in cuts.chain([flipped, foreign]) {
        fs::write(&newest, &bytes).unwrap();
        let later = later(&directory);
        assert_eq!(restored(&later, 0), at(1, "first"), "{} bytes", bytes.len());
    }
}

#[test]
fn another_stages_file_and_a_renamed_one_are_refused() {
    let (directory, newest) = two_saved("train");
    let (_other_directory, others) = two_saved("other");
    fs::copy(&others, &newest).unwrap();
    let later = later(&directory);
    assert_eq!(restored(&later, 0), at(1, "first"));
    let renamed = newest.with_file_name("000001-0000-000000000009.ckpt");
    fs::rename(newest.with_file_name("000001-0000-000000000001.ckpt"), renamed).unwrap();
    let again = self::later(&directory);
    let error = again.restore(0).unwrap_err().to_string();
    assert!(error.contains("renamed"), "nothing usable is left, and that is said: {error}");
}

#[test]
fn only_the_newest_are_kept() {
    let (directory, _) = two_saved("train");
    let later = later(&directory);
    for step in 0..5 {
        later.save(0, step, ME, value("x")).unwrap();
    }
    let steps: Vec<u64> =
        list(&directory.path().join("train")).unwrap().into_keys().map(|key| key.step).collect();
    assert_eq!(steps, [1, 2, 3, 4], "the earlier run's are its own");
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "in the way").unwrap();
    let checkpoints = Checkpoints::new(Some(file.clone()), "train", 2, false);
    let error = checkpoints.save(0, 1, ME, value("x")).unwrap_err().to_string();
    assert!(error.contains(&file.display().to_string()), "{error}");
}

#[test]
fn a_task_that_begins_does_not_wait_for_a_disk() {
    let checkpoints = Checkpoints::new(None, "train", 2, false);
    let writes = checkpoints.lock();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            checkpoints.begin(1);
            tell.send(()).unwrap();
        });
        let begun = told.recv_timeout(std::time::Duration::from_secs(10));
        drop(writes);
        assert_eq!(begun, Ok(()));
    });
    let late = checkpoints.save(0, 1, ME, value("late")).unwrap_err();
    assert!(matches!(late, CheckpointError::Outdated { current: 1, .. }), "{late}");
}
