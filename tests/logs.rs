//! What a task logs about its syncs: the texts of the field, and who is missing.

use phalanx::actors::testing::{Advance, GetArmed};
use phalanx::{Config, Runtime, Stage};
use std::io::Write;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Log;

    fn make_writer(&'a self) -> Log {
        self.clone()
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// The only line with this text.
    #[track_caller]
    fn line(&self, text: &str) -> String {
        let lines = self.lines();
        let found: Vec<_> = lines.iter().filter(|line| line.contains(text)).collect();
        assert_eq!(found.len(), 1, "{text}: {lines:#?}");
        found[0].clone()
    }
}

/// One test only: the subscriber is the process'.
#[test]
fn a_sync_is_told_from_entry_to_end() {
    let log = Log::default();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .init();
    let config = Config { slots: 2, ..Config::default() };
    let runtime = Runtime::builder().config(config).manual_time().start().unwrap();
    let timer = runtime.manual_timer().unwrap().clone();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let stage = Stage::tasks(2).max_attempts(1).run_blocking(&runtime, move |ctx| {
        if ctx.rank() == 1 {
            gate.lock().unwrap().recv().unwrap();
        }
        ctx.barrier()?;
        if ctx.rank() == 1 {
            return Err("gone home".into());
        }
        Ok(ctx.barrier()?)
    });
    while pollster::block_on(timer.send(GetArmed)).unwrap().len() < 2 {
        std::thread::yield_now();
    }
    pollster::block_on(timer.send(Advance(Duration::from_secs(60)))).unwrap();
    let waiting = "Task 0 from Stage 0(Attempt 0) waiting under the global sync since 20";
    while !log.lines().iter().any(|line| line.contains(waiting)) {
        std::thread::yield_now();
    }
    go.send(()).unwrap();
    stage.wait().unwrap_err();
    runtime.shutdown_blocking(Duration::from_secs(5)).unwrap();

    let entered = log.line(
        "Task 0 from Stage 0(Attempt 0) has entered the global sync, \
         current barrier epoch is 0.",
    );
    assert!(entered.contains(" INFO "), "{entered}");
    for field in ["task_attempt=0", "stage=0", "attempt=0", "epoch=0"] {
        assert!(entered.contains(field), "{entered}");
    }
    let waiting = log.line(waiting);
    assert!(waiting.contains("Z, has been waiting for 0 seconds, current barrier epoch is 0"));
    assert!(waiting.contains("missing partitions: 1.") && waiting.contains("missing=1"));
    let finished = log.line("Task 0 from Stage 0(Attempt 0) finished global sync successfully");
    assert!(finished.contains(" seconds, current barrier epoch is 1."), "{finished}");
    let failed = log.line("Task 0 from Stage 0(Attempt 0) failed to perform global sync, waited");
    assert!(failed.contains("current barrier epoch is 1: Stage 0 (Attempt 0)"), "{failed}");
    assert!(failed.contains("gone home"), "the reason stands there, too: {failed}");
    let sites: Vec<_> =
        log.lines().into_iter().filter(|line| line.contains("Current callSite: ")).collect();
    assert_eq!(sites.len(), 3, "{sites:#?}");
    for site in sites {
        assert!(site.contains(" TRACE ") || site.contains("TRACE"), "{site}");
        assert!(site.contains(concat!("Current callSite: ", file!(), ":")), "{site}");
    }
}
