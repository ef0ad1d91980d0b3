//! Work for `.ci/costs`, which has its instructions counted: so many rounds of one thing.

use crate::measure::{Fallible, Plan};
use crate::{collectives, ours};

pub fn child(what: &str, rounds: usize) -> Fallible<()> {
    let plan = Plan { rounds, samples: 1 };
    match what {
        "barrier" => drop(ours::barrier(&ours::runtime(64, 2)?, 64, plan)?),
        "launch" => {
            let runtime = ours::runtime(64, 2)?;
            for _ in 0..plan.total() {
                pollster::block_on(ours::launch(&runtime, 64))?;
            }
        }
        "all_gather" => {
            collectives::gather(&ours::runtime(16, 2)?, 16, 64 << 10, plan)?;
        }
        _ => return Err(format!("there is no cost of {what}").into()),
    }
    println!("{}", plan.total());
    Ok(())
}
