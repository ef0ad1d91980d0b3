//! An executor that does what the test says.

use actix::prelude::*;
use phalanx::actors::{
    ExecutorLink, JoinExecutor, LaunchOnExecutor, Payload, RetireExecutor, TaskEnded, Tell,
};
use phalanx::protocol::{
    ExecutorJoined, KillTask, LaunchTasks, TaskFailure, TaskOutcome, TaskReport,
};
use phalanx::{ExecutorId, ExecutorResources, Incarnation, Runtime};
use tokio::sync::mpsc;

/// An executor with seats. It runs nothing: the test reads its orders and writes its reports.
pub struct PlayedExecutor {
    executor: ExecutorId,
    pub incarnation: Incarnation,
    seats: usize,
    scheduler: Addr<phalanx::actors::TaskSchedulerActor>,
    orders: mpsc::UnboundedReceiver<Order>,
}

enum Order {
    Launch(LaunchTasks),
    Kill(KillTask),
    Retire { comes_back: bool },
}

impl PlayedExecutor {
    pub fn join(runtime: &Runtime, executor: ExecutorId, seats: usize) -> Self {
        PlayedExecutor::join_as(runtime, executor, Incarnation(0), seats)
    }

    /// Its next life joins, with an empty memory.
    pub fn comes_back(&self, runtime: &Runtime) -> Self {
        let incarnation = Incarnation(self.incarnation.0 + 1);
        PlayedExecutor::join_as(runtime, self.executor, incarnation, self.seats)
    }

    fn join_as(
        runtime: &Runtime,
        executor: ExecutorId,
        incarnation: Incarnation,
        seats: usize,
    ) -> Self {
        let (give, orders) = mpsc::unbounded_channel();
        let ear = Ear(give).start();
        let names = (0..seats).map(|seat| seat.to_string());
        let resources = ExecutorResources::new(seats as u32).with("seat", names);
        let address = "played".into();
        let joined = ExecutorJoined { executor, incarnation, address, resources };
        let link = ExecutorLink {
            launch: ear.clone().recipient(),
            kill: ear.clone().recipient(),
            retire: ear.recipient(),
        };
        let scheduler = runtime.scheduler().clone();
        scheduler.do_send(JoinExecutor { joined, link });
        PlayedExecutor { executor, incarnation, seats, scheduler, orders }
    }

    pub async fn launched(&mut self) -> LaunchTasks {
        match self.orders.recv().await.expect("the executor is linked") {
            Order::Launch(launch) => launch,
            Order::Kill(kill) => panic!("{kill:?} instead of a launch"),
            Order::Retire { .. } => panic!("retired instead of a launch"),
        }
    }

    pub async fn killed(&mut self) -> KillTask {
        match self.orders.recv().await.expect("the executor is linked") {
            Order::Kill(kill) => kill,
            Order::Launch(launch) => panic!("{launch:?} instead of a kill"),
            Order::Retire { .. } => panic!("retired instead of a kill"),
        }
    }

    /// It is told to end; says whether it shall come back.
    pub async fn is_retired(&mut self) -> bool {
        match self.orders.recv().await.expect("the executor is linked") {
            Order::Retire { comes_back } => comes_back,
            Order::Launch(launch) => panic!("{launch:?} instead of an end"),
            Order::Kill(kill) => panic!("{kill:?} instead of an end"),
        }
    }

    /// Says that the task launched as `index`-th ended like this.
    pub fn report(&self, launch: &LaunchTasks, index: usize, output: Result<u32, &str>) {
        let task = &launch.tasks[index];
        let outcome = match output {
            Ok(_) => TaskOutcome::Succeeded,
            Err(text) => TaskOutcome::Failed(TaskFailure::Error(text.to_owned())),
        };
        let report = TaskReport {
            executor: self.executor,
            incarnation: self.incarnation,
            attempt: launch.attempt,
            partition: task.partition,
            task_attempt: task.task_attempt,
            outcome,
        };
        let output = output.map(|value| Box::new(value) as Payload).map_err(Into::into);
        self.scheduler.do_send(TaskEnded { report, output: Some(output) });
    }
}

struct Ear(mpsc::UnboundedSender<Order>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Ear {
    fn hears(&self, order: Order) {
        // The test may be over.
        let _ = self.0.send(order);
    }
}

impl Handler<LaunchOnExecutor> for Ear {
    type Result = ();

    fn handle(&mut self, message: LaunchOnExecutor, _ctx: &mut Self::Context) {
        self.hears(Order::Launch(message.launch));
    }
}

impl Handler<Tell<KillTask>> for Ear {
    type Result = ();

    fn handle(&mut self, Tell(kill): Tell<KillTask>, _ctx: &mut Self::Context) {
        self.hears(Order::Kill(kill));
    }
}

impl Handler<RetireExecutor> for Ear {
    type Result = ();

    fn handle(&mut self, retire: RetireExecutor, _ctx: &mut Self::Context) {
        self.hears(Order::Retire { comes_back: retire.comes_back });
    }
}
