//! A dataset takes the memory of what its operations keep, and gives it back.

use phalanx::{Dataset, OnFailure, Rows, Runtime, TaskResult};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One test at a time, so that none is measured with another.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many rows are alive, and how many were at most.
#[derive(Default)]
struct Book {
    counts: Mutex<(usize, usize)>,
    fewer: Condvar,
}

impl Book {
    fn row(self: &Arc<Self>) -> Row {
        let mut counts = self.counts.lock().unwrap();
        counts.0 += 1;
        counts.1 = counts.1.max(counts.0);
        Row(self.clone())
    }

    /// Forgotten when it is told.
    fn most(&self) -> usize {
        std::mem::take(&mut self.counts.lock().unwrap().1)
    }

    /// Waits for threads in the background that drop rows.
    fn wait_for(&self, live: usize) {
        let counts = self.counts.lock().unwrap();
        let more = |counts: &mut (usize, usize)| counts.0 > live;
        let (counts, _) =
            self.fewer.wait_timeout_while(counts, Duration::from_secs(20), more).unwrap();
        assert_eq!(counts.0, live, "rows are kept");
    }
}

struct Row(Arc<Book>);

impl Clone for Row {
    fn clone(&self) -> Row {
        self.0.row()
    }
}

impl Drop for Row {
    fn drop(&mut self) {
        self.0.counts.lock().unwrap().0 -= 1;
        self.0.fewer.notify_all();
    }
}

/// Outputs of map stages are given back after the dataset is dropped, by a message.
fn wait_for_outputs(runtime: &Runtime, outputs: usize) {
    let system = actix_rt::System::new();
    let asked = || system.block_on(runtime.jobs()).map_outputs;
    let last = (0..10_000).map(|_| asked()).find(|it| *it == outputs);
    assert_eq!(last, Some(outputs), "there are {}", asked());
}

fn partitions_of_rows(runtime: &Runtime, count: usize, book: &Arc<Book>) -> Dataset<Row> {
    let book = book.clone();
    runtime.parallelize(0..count, count).flat_map(move |_| {
        let book = book.clone();
        (0..1_000).map(move |_| book.row())
    })
}

fn all_dropped<T>(rows: Rows<T>) -> TaskResult<()> {
    rows.for_each(drop);
    Ok(())
}

#[test]
fn a_streamed_stage_has_one_row_of_each_running_task() -> TaskResult<()> {
    let _alone = alone();
    let (runtime, book) = (Runtime::with_slots(2)?, Arc::new(Book::default()));
    let rows = partitions_of_rows(&runtime, 8, &book);
    let streamed = rows.map(|row| row).filter(|_| true).flat_map(|row| [row]).coalesce(4);
    assert_eq!(streamed.count().wait()?, 8_000);
    assert!((1..=2).contains(&book.most()), "one for each slot");
    streamed.for_each_partition(all_dropped).wait()?;
    assert!((1..=2).contains(&book.most()));
    let gang = partitions_of_rows(&runtime, 2, &book).barrier().map_partitions(|ctx, rows| {
        ctx.barrier()?;
        Ok(rows)
    });
    assert_eq!(gang.count().wait()?, 2_000);
    assert!((1..=2).contains(&book.most()));
    assert_eq!(rows.zip(&rows).count().wait()?, 8_000);
    assert!((2..=4).contains(&book.most()), "a pair for each slot");
    assert!(rows.reduce(|one, _| one).wait()?.is_some());
    assert!((2..=11).contains(&book.most()), "two for each slot, and one for each partition");
    assert_eq!(rows.take(3).wait()?.len(), 3);
    assert!((3..=8 * 3).contains(&book.most()), "three for each partition");
    book.wait_for(0);
    Ok(())
}

#[test]
fn a_shuffle_is_made_once_and_kept_until_its_last_dataset_is_dropped() -> TaskResult<()> {
    let _alone = alone();
    let (runtime, book) = (Runtime::with_slots(2)?, Arc::new(Book::default()));
    let made = Arc::new(AtomicUsize::new(0));
    let counted = made.clone();
    let rows = partitions_of_rows(&runtime, 4, &book).map_partitions(move |rows| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(rows)
    });
    let dealt = rows.repartition(3);
    for _ in 0..2 {
        assert_eq!(dealt.count().wait()?, 4_000);
    }
    let keyed = dealt.map(|row| (0, row));
    let reduced = keyed.reduce_by_key(|one, _| one);
    assert_eq!(reduced.count().wait()?, 1);
    assert!(dealt.first().wait()?.is_some());
    assert_eq!(made.load(Ordering::Relaxed), 4, "the map stage ran once");
    // Of the second shuffle: one row of each of three partitions.
    book.wait_for(4_000 + 3);
    wait_for_outputs(&runtime, 4 + 3);
    drop((dealt, keyed));
    assert_eq!(reduced.count().wait()?, 1);
    book.wait_for(4_000 + 3);
    wait_for_outputs(&runtime, 4 + 3);
    drop(reduced);
    book.wait_for(0);
    wait_for_outputs(&runtime, 0);
    assert_eq!(made.load(Ordering::Relaxed), 4);
    drop(rows);
    Ok(())
}

#[test]
fn what_a_map_gang_had_made_when_it_failed_is_not_kept() -> TaskResult<()> {
    let _alone = alone();
    let (runtime, book) = (Runtime::with_slots(4)?, Arc::new(Book::default()));
    let settings = |dataset: &Dataset<Row>| {
        dataset.settings(|stage| stage.on_failure(OnFailure::Restart).retry_delay(Duration::ZERO))
    };
    let gang = partitions_of_rows(&runtime, 4, &book).barrier().map_partitions(|ctx, rows| {
        let rows: Vec<Row> = rows.collect();
        ctx.barrier()?;
        match (ctx.stage_attempt_number(), ctx.rank()) {
            (0, 2) => Err("half way".into()),
            _ => Ok(rows),
        }
    });
    let dealt = settings(&gang).repartition(2);
    assert_eq!(dealt.count().wait()?, 4_000);
    book.wait_for(4_000);
    let fails = dealt.map_partitions(|rows| match rows.count() {
        0 => Ok([()]),
        _ => Err("no result".into()),
    });
    drop(fails.settings(|stage| stage.max_attempts(1)).count().wait().unwrap_err());
    book.wait_for(4_000);
    drop((dealt, fails));
    book.wait_for(0);
    wait_for_outputs(&runtime, 0);
    Ok(())
}

#[test]
fn nothing_is_left_of_a_runtime_that_was_shut_down() -> TaskResult<()> {
    let _alone = alone();
    let (runtime, book) = (Runtime::with_slots(2)?, Arc::new(Book::default()));
    let dealt = partitions_of_rows(&runtime, 4, &book).repartition(2);
    let other = partitions_of_rows(&runtime, 4, &book).repartition(2);
    assert_eq!(dealt.zip(&other).count().wait()?, 4_000);
    book.wait_for(8_000);
    // A result that nobody takes.
    drop(dealt.collect());
    runtime.shutdown_blocking(Duration::from_secs(20))?;
    drop(other);
    drop(runtime);
    drop(dealt);
    book.wait_for(0);
    // Closures are gone, too; they are dropped in the background.
    let until = Instant::now() + Duration::from_secs(20);
    while Arc::strong_count(&book) > 1 {
        assert!(Instant::now() < until, "{} closures are left", Arc::strong_count(&book) - 1);
        std::thread::yield_now();
    }
    Ok(())
}

#[cfg(target_os = "linux")]
mod resident {
    use super::{all_dropped, alone};
    use phalanx::{Runtime, TaskResult};
    use std::fs::{self, File};
    use std::io::{BufWriter, Write};

    fn status_kib(key: &str) -> u64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// By how much the process was larger at its largest, while it did this, than before.
    fn grown_kib(code: impl FnOnce() -> TaskResult<()>) -> TaskResult<u64> {
        let before = status_kib("VmRSS:");
        fs::write("/proc/self/clear_refs", "5")?; // the peak begins anew
        code()?;
        Ok(status_kib("VmHWM:").saturating_sub(before))
    }

    const ROWS: usize = 1_024;
    const ROW_BYTES: usize = 4 << 10;
    const PARTITION_KIB: u64 = (ROWS * ROW_BYTES) as u64 >> 10;

    #[test]
    fn rows_that_are_streamed_are_never_there_together() -> TaskResult<()> {
        let _alone = alone();
        let runtime = Runtime::with_slots(2)?;
        let rows = runtime
            .parallelize(0..64_u8, 64)
            .flat_map(|partition| (0..ROWS).map(move |_| vec![partition; ROW_BYTES]));
        let streamed = rows.map(|row| row).filter(|row| row.len() == ROW_BYTES);
        let grown = grown_kib(|| {
            assert_eq!(streamed.count().wait()?, 64 * ROWS as u64);
            Ok(streamed.for_each_partition(all_dropped).wait()?)
        })?;
        assert!(grown < PARTITION_KIB, "64 partitions of {PARTITION_KIB} KiB took {grown} KiB");
        // What keeps a partition takes one for each slot; and it can be seen.
        let kept = rows.map_partitions(|rows| Ok(rows.collect::<Vec<_>>()));
        let grown = grown_kib(|| {
            assert_eq!(kept.count().wait()?, 64 * ROWS as u64);
            Ok(())
        })?;
        let expected = PARTITION_KIB / 2..4 * PARTITION_KIB;
        assert!(expected.contains(&grown), "2 slots of {PARTITION_KIB} KiB took {grown} KiB");
        Ok(())
    }

    #[test]
    fn a_csv_file_is_never_in_memory() -> TaskResult<()> {
        let _alone = alone();
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("rows.csv");
        let rows = 40_000_u64;
        let mut file = BufWriter::new(File::create(&path)?);
        writeln!(file, "number,text")?;
        let text = "x".repeat(1_000);
        for number in 0..rows {
            writeln!(file, "{number},{text}")?;
        }
        drop(file);
        let runtime = Runtime::with_slots(2)?;
        let grown = grown_kib(|| {
            let read = runtime.from_csv::<(u64, String)>(&path, 4)?;
            let sum = read.map(|(number, _)| number).reduce(|one, other| one + other).wait()?;
            assert_eq!(sum, Some(rows * (rows - 1) / 2));
            Ok(())
        })?;
        assert!(grown < 4 << 10, "{} KiB of a file took {grown} KiB", rows);
        Ok(())
    }
}
