//! Tasks that do not heed their kill.

use phalanx::{Config, PartitionId, Runtime, RuntimeEvent, Stage};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

#[test]
fn a_zombie_keeps_its_slot_is_named_and_delays_the_next_attempt_visibly() {
    let config = Config {
        slots: 2,
        stage_retry_delay: Duration::ZERO,
        kill_grace: Duration::ZERO,
        ..Config::default()
    };
    let runtime = Runtime::start(config).unwrap();
    let mut events = runtime.subscribe();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let stage = Stage::tasks(2).run_blocking(&runtime, move |ctx| {
        // So that both have begun; whether it was a kill that ended it does not matter.
        let met = ctx.barrier();
        if ctx.stage_attempt_number() > 0 {
            return Ok(met?);
        }
        if ctx.rank() == 0 {
            return Err("boom".into());
        }
        gate.lock().unwrap().recv().unwrap();
        let late = ctx.barrier().unwrap_err();
        assert!(late.to_string().contains("partition 0"), "{late}");
        Ok(())
    });
    loop {
        if let RuntimeEvent::TaskIgnoresKill { partition, .. } =
            events.next_blocking().unwrap().event
        {
            assert_eq!(partition, PartitionId(1));
            break;
        }
    }
    let status = pollster::block_on(stage.status()).unwrap();
    assert!(format!("{:?}", status.phase).contains("Stopping"), "{:?}", status.phase);
    assert!(status.tasks[0].ignores_kill && status.tasks[0].partition == PartitionId(1));
    go.send(()).unwrap();
    stage.wait().unwrap();
}

#[test]
fn after_the_zombie_deadline_the_executor_is_replaced_and_the_stage_goes_on() {
    let config = Config {
        slots: 2,
        stage_retry_delay: Duration::ZERO,
        kill_zombie_deadline: Some(Duration::from_millis(20)),
        ..Config::default()
    };
    let runtime = Runtime::start(config).unwrap();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let stage = Stage::tasks(2).run_blocking(&runtime, move |ctx| {
        // As above.
        let met = ctx.barrier();
        if ctx.stage_attempt_number() == 0 && ctx.rank() == 0 {
            return Err("boom".into());
        }
        if ctx.stage_attempt_number() == 0 {
            gate.lock().unwrap().recv().unwrap();
            return Ok(0);
        }
        met?;
        Ok(ctx.stage_attempt_number())
    });
    assert_eq!(stage.wait().unwrap(), [1, 1], "it went on without waiting for the zombie");
    let executors = pollster::block_on(runtime.status()).executors;
    assert_eq!(executors[0].incarnation.0, 1);
    go.send(()).unwrap();
}
