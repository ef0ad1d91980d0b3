//! A gang that can never be complete is refused with numbers instead of waiting for ever.
//!
//! There is one slot and the gang needs three. The runtime looks again a little later, because an
//! executor may still join, then gives up.

use phalanx::{Config, Runtime, Stage, StageFailure};
use std::time::Duration;

fn main() -> anyhow::Result<()> {
    let config = Config {
        slots: 1,
        slot_check_interval: Duration::from_millis(100),
        slot_check_max_failures: 1,
        ..Config::default()
    };
    let runtime = Runtime::start(config)?;
    let gang =
        Stage::tasks(3).name("too large").run(&runtime, async |ctx| Ok(ctx.barrier().await?));
    match gang.wait() {
        Err(error) if matches!(error.failure(), StageFailure::NotEnoughSlots { .. }) => {
            println!("as expected: {error}");
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(_) => anyhow::bail!("three tasks ran at once on one slot"),
    }
}
