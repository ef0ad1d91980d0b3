//! The machines that ship, model-checked: every order of every step, in small worlds.

mod barrier;
mod planner;
mod scheduler;

use stateright::{Checker, HasDiscoveries, Model};
use std::fmt::Debug;
use std::hash::Hash;
use std::io::Write;
use std::time::Instant;

/// Past the test harness, which keeps what is printed.
fn tell(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Explores everything; returns the number of states.
fn prove<M>(name: &str, model: M) -> usize
where
    M: Model<State: Clone + Debug + PartialEq + Hash + Send + Sync>,
    M: Model<Action: Clone + Debug + PartialEq> + Send + Sync + 'static,
{
    let start = Instant::now();
    let checker = model.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    let (unique, depth) = (checker.unique_state_count(), checker.max_depth());
    let elapsed = start.elapsed();
    tell(&format!("model: {name}: {unique} states, depth {depth}, {elapsed:.1?}"));
    unique
}

/// Breaks the property in as few steps as possible; returns their number.
fn refute<M>(name: &str, property: &'static str, model: M) -> usize
where
    M: Model<State: Clone + Debug + PartialEq + Hash + Send + Sync>,
    M: Model<Action: Clone + Debug + PartialEq> + Clone + Send + Sync + 'static,
{
    // The checker keeps the last counterexample that it saw, so the depth is what bounds it.
    for depth in 2..20 {
        let found = HasDiscoveries::AnyOf([property].into());
        let checker = model.clone().checker().finish_when(found).target_max_depth(depth);
        if let Some(path) = checker.spawn_bfs().join().discovery(property) {
            let actions = path.into_actions();
            tell(&format!("refuted: {name}: after {} steps not: {property}", actions.len()));
            println!("{actions:?}");
            return actions.len();
        }
    }
    panic!("{name} is not refuted: {property}");
}
