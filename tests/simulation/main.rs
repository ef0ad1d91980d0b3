//! The machines that ship, in a simulated world where everything goes wrong that may.
//!
//! More seeds: `PHALANX_SEEDS=2000..100000 cargo test --release --test simulation -- --ignored
//! --nocapture`. One seed, with its plan and all events: `PHALANX_SEED=17 cargo test --test
//! simulation one_seed -- --nocapture`.

mod doctored;
mod facts;
mod invariants;
mod recorded;
mod user_plans;
mod workload;

use facts::Facts;
use phalanx::protocol::{SchedulerEffect, StageSpec};
use phalanx::simulation::{EventLog, FaultKind, Observation, Plan, Simulator};
use phalanx::{StageFailure, StageId, SyncError};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// No seed takes as many.
const STEPS_MAX: u64 = 500_000;

/// What was seen in some seeds.
#[derive(Debug, Default)]
struct Seen {
    seeds: u64,
    steps: u64,
    /// When the last stage of all ended.
    last: Duration,
    faults: BTreeMap<FaultKind, u64>,
    told: BTreeSet<String>,
    ends: BTreeSet<String>,
}

impl Seen {
    fn note(&mut self, observation: &Observation) {
        match observation {
            Observation::Fault(fault) => *self.faults.entry(*fault).or_insert(0) += 1,
            Observation::Answered { result: Err(error), .. } => {
                self.told.insert(kind(error));
            }
            Observation::Scheduler { effects, .. } => {
                for effect in effects {
                    match effect {
                        SchedulerEffect::StageEnded { result: Err(failure), .. } => {
                            self.ends.insert(end(failure).to_owned());
                        }
                        SchedulerEffect::RetireExecutor { .. } => {
                            self.ends.insert("RetireExecutor".to_owned());
                        }
                        SchedulerEffect::Drained => {
                            self.ends.insert("Drained".to_owned());
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, other: Seen) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.last = self.last.max(other.last);
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_insert(0) += count;
        }
        self.told.extend(other.told);
        self.ends.extend(other.ends);
    }
}

fn kind(error: &SyncError) -> String {
    let text = format!("{error:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

fn end(failure: &StageFailure) -> &'static str {
    match failure {
        StageFailure::AttemptsExhausted { .. } => "AttemptsExhausted",
        StageFailure::InfrastructureExhausted { .. } => "InfrastructureExhausted",
        StageFailure::Aborted { .. } => "Aborted",
        StageFailure::Committed { .. } => "Committed",
        StageFailure::DynamicAllocation { .. } => "DynamicAllocation",
        StageFailure::NotEnoughSlots { .. } => "NotEnoughSlots",
        StageFailure::QueueFull { .. } => "QueueFull",
        StageFailure::Refused { .. } => "Refused",
        StageFailure::Cancelled { .. } => "Cancelled",
        StageFailure::Shutdown => "Shutdown",
    }
}

/// Plays a plan and checks everything. On failure says what, and how to see it again.
fn play(plan: &mut Plan, seen: &mut Seen) -> Result<EventLog, String> {
    let specs: BTreeMap<StageId, StageSpec> =
        plan.stages_mut().map(|(id, stage)| (id, stage.spec.clone())).collect();
    let mut facts = Facts::new(specs);
    let mut invariants = invariants::all();
    let mut simulator = Simulator::new(plan).map_err(|error| error.to_string())?;
    let mut steps = 0;
    while simulator.step() {
        steps += 1;
        let now = simulator.now();
        for observation in simulator.observed() {
            seen.note(observation);
            facts.note(observation);
            for (name, invariant) in &mut invariants {
                invariant
                    .check(&facts, now, observation)
                    .map_err(|wrong| format!("at {now:?}, {name}: {wrong}"))?;
            }
        }
        if steps > STEPS_MAX {
            return Err(format!("after {STEPS_MAX} steps it goes on, at {now:?}"));
        }
    }
    seen.seeds += 1;
    seen.steps += steps;
    for (name, invariant) in &mut invariants {
        let end = invariant.at_end(&facts, &simulator);
        end.map_err(|wrong| format!("at the end, {name}: {wrong}"))?;
    }
    let log = simulator.finish().map_err(|unfinished| unfinished.to_string())?;
    let last = log.stage_times().into_iter().filter_map(|stage| stage.ended).max();
    let last = last.unwrap_or_default();
    seen.last = seen.last.max(last);
    if last > workload::ALL_IS_OVER {
        return Err(format!("the last stage ended only at {last:?}"));
    }
    Ok(log)
}

fn play_seed(seed: u64, seen: &mut Seen) -> Result<EventLog, String> {
    play(&mut workload::plan(seed), seen).map_err(|wrong| {
        format!(
            "seed {seed}: {wrong}\n  again: PHALANX_SEED={seed} cargo test --test simulation \
             one_seed -- --nocapture"
        )
    })
}

/// Plays all seeds on two threads; fails with the first ones that break a promise.
fn play_all(seeds: Range<u64>) -> Seen {
    let start = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let (all, wrong) = (Mutex::new(Seen::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut seen = Seen::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) || wrong.lock().unwrap().len() > 5 {
                        break;
                    }
                    if let Err(broken) = play_seed(seed, &mut seen) {
                        wrong.lock().unwrap().push(broken);
                    }
                }
                all.lock().unwrap().add(seen);
            });
        }
    });
    let (seen, wrong) = (all.into_inner().unwrap(), wrong.into_inner().unwrap());
    let elapsed = start.elapsed();
    let per_minute = seen.seeds as f64 / elapsed.as_secs_f64() * 60.0;
    let Seen { seeds, steps, last, .. } = &seen;
    // Past the test harness, which keeps what is printed.
    let told = writeln!(
        std::io::stderr(),
        "simulation: {seeds} seeds, {steps} steps, {elapsed:.1?}, {per_minute:.0} seeds per \
         minute; the last stage of all ended at {last:.0?}"
    );
    drop(told);
    assert!(wrong.is_empty(), "{} promises broken:\n{}", wrong.len(), wrong.join("\n"));
    seen
}

#[test]
fn two_thousand_seeds_keep_every_promise() {
    let Seen { faults, told, ends, .. } = play_all(0..2_000);
    println!("faults: {faults:?}");
    let kinds: Vec<FaultKind> = faults.keys().copied().collect();
    assert_eq!(kinds, FaultKind::ALL, "every kind of fault struck");
    let expected = [
        "AbandonedCall",
        "AttemptClosed",
        "CoordinatorLost",
        "Killed",
        "MixedMethods",
        "NotOpen",
        "PeerLeft",
        "Timeout",
    ];
    assert!(told.iter().eq(expected), "tasks were told {told:?}");
    let expected = [
        "Aborted",
        "AttemptsExhausted",
        "Cancelled",
        "Drained",
        "InfrastructureExhausted",
        "NotEnoughSlots",
        "QueueFull",
        "RetireExecutor",
        "Shutdown",
    ];
    assert!(ends.iter().eq(expected), "stages ended by {ends:?}");
}

#[test]
#[ignore = "as long as one likes; PHALANX_SEEDS=2000..100000 gives the range"]
fn a_range_of_seeds_keeps_every_promise() {
    let range = std::env::var("PHALANX_SEEDS").unwrap_or_else(|_| "2000..10000".to_owned());
    let parse = |text: &str| text.parse::<u64>().ok();
    let seeds = range.split_once("..").and_then(|(from, to)| Some(parse(from)?..parse(to)?));
    play_all(seeds.expect("PHALANX_SEEDS is FROM..TO, for example 2000..100000"));
}

#[test]
fn one_seed() {
    let seed = std::env::var("PHALANX_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0);
    let mut plan = workload::plan(seed);
    println!("{plan:#?}");
    let mut simulator = Simulator::new(&plan).unwrap();
    while simulator.step() {
        for observation in simulator.observed() {
            println!("{:>12?} {observation:?}", simulator.now());
        }
    }
    play(&mut plan, &mut Seen::default()).unwrap();
}

#[test]
fn the_same_seed_gives_the_same_events() {
    for seed in 0..100 {
        let once = play_seed(seed, &mut Seen::default()).unwrap();
        let again = play_seed(seed, &mut Seen::default()).unwrap();
        assert_eq!(once.fingerprint(), again.fingerprint(), "seed {seed}");
        assert_eq!(once, again);
    }
}
