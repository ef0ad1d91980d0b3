//! Executors that are killed again and again, at random moments.

use crate::support_cluster::executor::Process;
use crate::support_cluster::tasks::{Stepped, Steps};
use crate::support_cluster::{alone, attempts, joined, listening, quick};
use phalanx::{EventStream, RuntimeEvent, Stage, StageAttemptId, StageId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use std::time::{Duration, Instant, SystemTime};

/// Executors that are started again under their names as soon as they are killed.
struct Victims {
    address: String,
    executors: Vec<Process>,
}

impl Victims {
    fn start(address: String, count: usize) -> Self {
        let start = |index| Process::executor(&format!("victim-{index}"), &address, &[]);
        Victims { executors: (0..count).map(start).collect(), address }
    }

    fn kill(&mut self, index: usize) {
        self.executors[index].send(Signal::KILL);
        let next = Process::executor(&format!("victim-{index}"), &self.address, &[]);
        std::mem::replace(&mut self.executors[index], next).ended();
    }
}

/// When the second attempt has met for the first time. `None`: nothing was left to be done.
fn met_again(events: &mut EventStream, stage: StageId) -> Option<SystemTime> {
    loop {
        let record = events.next_blocking().unwrap();
        match record.event {
            RuntimeEvent::RoundReleased { attempt, epoch, .. }
                if (attempt, epoch.0) == (StageAttemptId { stage, attempt: 1 }, 0) =>
            {
                return Some(record.at);
            }
            RuntimeEvent::StageCompleted { stage: ended, .. } if ended == stage => return None,
            _ => {}
        }
    }
}

#[test]
fn an_executor_killed_at_any_moment_costs_one_attempt_and_changes_no_result() {
    const KILLS: usize = 50;
    alone(|| {
        let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        println!("-- seed {seed}");
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let (runtime, mut events, address) = listening(quick());
        let mut victims = Victims::start(address, 3);
        joined(&mut events, 3);
        let work = Steps { count: 20, pause: Duration::from_millis(1), fault: None };
        let (mut joins, mut rounds) = (runtime.subscribe(), runtime.subscribe());
        let begun = Instant::now();
        Stage::named("steps", [work; 3]).run::<Stepped>(&runtime).wait().unwrap();
        // Some kills come too early or too late to hit.
        let life = begun.elapsed() * 5 / 4;
        let (mut hits, mut resumed, mut recoveries) = (0, 0, Vec::new());
        for kill in 0..KILLS {
            let stage = Stage::named("steps", [work; 3]).max_attempts(1);
            let stage = stage.run::<Stepped>(&runtime);
            let delay = life.mul_f64(random.random_range(0.0..1.0));
            // When it happens is what the test varies; nothing waits for it.
            std::thread::sleep(delay);
            let killed = SystemTime::now();
            victims.kill(random.random_range(0..3));
            let which = format!("kill {kill} after {delay:?}, seed {seed}");
            let id = stage.id();
            let values = stage.wait().unwrap_or_else(|error| panic!("{which}: {error}"));
            assert!(values.iter().all(|it| it.total == work.total(3)), "{which}: {values:?}");
            let (attempts, causes) = attempts(&mut events, id);
            assert!(causes.len() <= 1, "{which}: {causes:?}");
            assert_eq!(attempts as usize, 1 + causes.len(), "{which}");
            if let Some(cause) = causes.first() {
                assert!(cause.failure.is_infrastructure(), "{which}: {cause}");
                resumed += usize::from(values[0].resumed_from.is_some());
                let met = met_again(&mut rounds, id);
                recoveries.extend(met.map(|met| met.duration_since(killed).unwrap()));
                hits += 1;
            }
            // Or the next stage would begin on one that is about to be lost.
            joined(&mut joins, 1);
        }
        recoveries.sort();
        let median = recoveries.get(recoveries.len() / 2);
        println!("-- {hits} of {KILLS} kills hit, {resumed} times a checkpoint was restored");
        println!("-- from kill -9 to the next attempt's first sync: {median:?} (median)");
        assert!(hits >= KILLS / 4 && resumed > 0, "{hits} hits, {resumed} resumed, seed {seed}");
    });
}
