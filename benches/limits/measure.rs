//! Samples, and how two contenders take turns.

use std::time::{Duration, Instant};

pub type Fallible<T> = Result<T, phalanx::BoxError>;

/// Microseconds (or another unit) of one round each.
pub type Samples = Vec<f64>;

/// What one turn of a contender has to do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds timed together as one sample, so that reading the clock does not count.
    pub rounds: usize,
    /// Samples to take.
    pub samples: usize,
}

impl Plan {
    /// Rounds before the first that counts.
    pub fn warm_up(self) -> usize {
        (self.rounds * self.samples / 10).clamp(1, 500)
    }

    pub fn total(self) -> usize {
        self.warm_up() + self.rounds * self.samples
    }
}

/// The stopwatch of one participant that goes through all rounds of a plan.
pub struct Laps {
    plan: Plan,
    done: usize,
    since: Instant,
    samples: Samples,
}

impl Laps {
    pub fn new(plan: Plan) -> Self {
        let samples = Vec::with_capacity(plan.samples);
        Laps { plan, done: 0, since: Instant::now(), samples }
    }

    /// A round is over.
    pub fn round(&mut self) {
        self.done += 1;
        let warm_up = self.plan.warm_up();
        if self.done < warm_up {
            return;
        }
        let counted = self.done - warm_up;
        if counted.is_multiple_of(self.plan.rounds) {
            let now = Instant::now();
            if counted > 0 {
                self.samples.push(micros(now - self.since) / self.plan.rounds as f64);
            }
            self.since = now;
        }
    }

    pub fn samples(self) -> Samples {
        self.samples
    }
}

/// Takes the samples of a plan from something that is done once per round.
pub fn timed(plan: Plan, mut round: impl FnMut() -> Fallible<()>) -> Fallible<Samples> {
    let mut laps = Laps::new(plan);
    for _ in 0..plan.total() {
        round()?;
        laps.round();
    }
    Ok(laps.samples())
}

pub fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// How long to look.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    pub quick: bool,
    /// Time for each contender of a row, in microseconds.
    budget: f64,
    /// Turns of each contender.
    turns: usize,
    /// Samples taken in all, however long they take.
    at_least: usize,
}

impl Effort {
    pub fn new(quick: bool) -> Self {
        if quick {
            Effort { quick, budget: 120_000.0, turns: 4, at_least: 4 }
        } else {
            Effort { quick, budget: 2_000_000.0, turns: 20, at_least: 30 }
        }
    }

    fn plan(&self, once: f64, turns: usize) -> Plan {
        let once = once.max(0.01);
        let rounds = (50.0 / once).clamp(1.0, 200.0) as usize;
        let affordable = self.budget / (once * rounds as f64);
        let at_least = if once > 500_000.0 { self.at_least.div_ceil(6) } else { self.at_least };
        let samples = (affordable as usize).clamp(at_least, 20_000);
        Plan { rounds, samples: samples.div_ceil(turns) }
    }

    /// Whether one sample has to do.
    fn is_enough(&self, once: f64) -> bool {
        self.quick && once > 500_000.0
    }

    /// Contenders of slow rounds take fewer turns: each has to set up its tasks first.
    fn turns(&self, once: f64) -> usize {
        match once {
            slow if slow > 20_000.0 => (self.turns / 4).max(2),
            slow if slow > 1_000.0 => (self.turns / 2).max(3),
            _ => self.turns,
        }
    }
}

/// One side of a comparison: does a plan and says how long its rounds took.
pub type Contender<'a> = &'a mut dyn FnMut(Plan) -> Fallible<Samples>;

/// Has all contenders measured in turn, warm, so that what else the machine does meets all alike.
pub fn alternate<const K: usize>(
    effort: Effort,
    contenders: [Contender<'_>; K],
) -> Fallible<[Spread; K]> {
    let mut samples = [const { Samples::new() }; K];
    let mut once = [0.0; K];
    for at in 0..K {
        let first = contenders[at](Plan { rounds: 1, samples: 1 })?;
        once[at] = Spread::of(first.clone()).p50;
        if once[at] < 20_000.0 {
            once[at] = Spread::of(contenders[at](Plan { rounds: 1, samples: 20 })?).p50;
        } else if effort.is_enough(once[at]) {
            samples[at] = first;
        }
    }
    let turns = effort.turns(once.iter().copied().fold(0.0, f64::max));
    for turn in 0..turns {
        // Not always the same one first.
        for at in (0..K).map(|at| (at + turn) % K) {
            if !effort.is_enough(once[at]) {
                samples[at].extend(contenders[at](effort.plan(once[at], turns))?);
            }
        }
    }
    Ok(samples.map(Spread::of))
}

/// What is said of many samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub p50: f64,
    pub p99: f64,
}

impl Spread {
    pub fn of(mut samples: Samples) -> Self {
        assert!(!samples.is_empty(), "a measurement without samples");
        samples.sort_by(f64::total_cmp);
        let at = |part: f64| samples[((samples.len() - 1) as f64 * part).round() as usize];
        Spread { p50: at(0.5), p99: at(0.99) }
    }
}
