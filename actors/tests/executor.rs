//! The executor's and the scheduler's actors, alone, as a user's unit test would drive them.

use actix::prelude::*;
use bytes::Bytes;
use phalanx_actors::testing::{InjectPanic, ManualTimer};
use phalanx_actors::{
    Ask, ContextBarrierStateActor, EventBus, ExecutorActor, ExecutorConfig, ExecutorLink,
    ExecutorLost, GangBarrier, GetMissing, GetStageStatus, JoinExecutor, LaunchOnExecutor, Payload,
    RetireExecutor, SchedulerLink, SharedBarrier, Shutdown, Submit, TaskBody, TaskEnded,
    TaskSchedulerActor, Tell, Threads,
};
use phalanx_protocol::{
    Arrival, Epoch, ExecutorId, ExecutorJoined, ExecutorResources, Incarnation, KillTask,
    LaunchTask, LaunchTasks, OnFailure, OpenBarrier, PartitionId, RequestToSync, SchedulerConfig,
    StageAttemptId, StageFailure, StageId, StageKind, StagePhase, StageSpec, SubmitStage,
    SyncMethod, TaskAttemptId, TaskFailure, TaskOutcome, TaskReport, TaskResources,
};
use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

const ATTEMPT: StageAttemptId = StageAttemptId { stage: StageId(3), attempt: 0 };
const SECOND: Duration = Duration::from_secs(1);

/// What a scheduler hears from its executors.
enum Heard {
    Joined(Box<JoinExecutor>),
    Ended(TaskReport),
    Lost(ExecutorLost),
}

/// Stands in for the scheduler.
struct Ear(mpsc::UnboundedSender<Heard>);

impl Actor for Ear {
    type Context = Context<Self>;
}

impl Handler<JoinExecutor> for Ear {
    type Result = ();

    fn handle(&mut self, joined: JoinExecutor, _ctx: &mut Self::Context) {
        self.0.send(Heard::Joined(Box::new(joined))).unwrap_or_default();
    }
}

impl Handler<TaskEnded> for Ear {
    type Result = ();

    fn handle(&mut self, ended: TaskEnded, _ctx: &mut Self::Context) {
        self.0.send(Heard::Ended(ended.report)).unwrap_or_default();
    }
}

impl Handler<ExecutorLost> for Ear {
    type Result = ();

    fn handle(&mut self, lost: ExecutorLost, _ctx: &mut Self::Context) {
        self.0.send(Heard::Lost(lost)).unwrap_or_default();
    }
}

struct Fixture {
    executor: Addr<ExecutorActor>,
    heard: mpsc::UnboundedReceiver<Heard>,
}

impl Fixture {
    async fn start() -> Self {
        let (sender, mut heard) = mpsc::unbounded_channel();
        let ear = Ear(sender).start();
        let scheduler = SchedulerLink {
            join: ear.clone().recipient(),
            ended: Arc::new(ear.clone().recipient::<TaskEnded>()),
            lost: ear.recipient(),
        };
        let config = ExecutorConfig {
            executor: ExecutorId(5),
            incarnation: Incarnation(2),
            address: "here".into(),
            resources: ExecutorResources::new(4),
            worker_threads: 2,
        };
        let executor = ExecutorActor::start_local(config, Threads::new(), scheduler).unwrap();
        let Some(Heard::Joined(joined)) = heard.recv().await else { panic!("joins first") };
        assert_eq!(joined.joined.incarnation, Incarnation(2));
        Fixture { executor, heard }
    }

    /// Launches the first `count` tasks of a gang that has one more.
    fn launch(&self, count: u32, body: TaskBody, barrier: Option<Arc<SharedBarrier>>) {
        let num_tasks = count + 1;
        let tasks = (0..count).map(|partition| LaunchTask {
            partition: PartitionId(partition),
            task_attempt: TaskAttemptId(partition.into()),
            cpus: 1,
            addresses: Default::default(),
        });
        let tasks = tasks.collect();
        let launch = LaunchTasks { attempt: ATTEMPT, num_tasks, tasks, task_infos: Arc::new([]) };
        let (name, barrier) = ("unit".into(), barrier.map(GangBarrier::Here));
        self.executor.do_send(LaunchOnExecutor { launch, name, body, barrier });
    }

    /// The next report: whose, and how it ended.
    async fn report(&mut self) -> (u32, TaskOutcome) {
        match self.heard.recv().await.expect("the executor is there") {
            Heard::Ended(report) => (report.partition.0, report.outcome),
            Heard::Lost(lost) => panic!("{lost:?}"),
            Heard::Joined(_) => panic!("joined again"),
        }
    }
}

fn nothing() -> Payload {
    Box::new(())
}

fn failed(failure: TaskFailure) -> TaskOutcome {
    TaskOutcome::Failed(failure)
}

#[actix::test]
async fn every_task_is_reported_whatever_happens_to_it() {
    let mut fixture = Fixture::start().await;
    let ends = |partition| match partition {
        0 => Ok(nothing()),
        1 => Err("an error".into()),
        _ => std::panic::panic_any("a panic"),
    };
    let bodies = [
        TaskBody::Async(Arc::new(move |task| Box::pin(async move { ends(task.partition().0) }))),
        TaskBody::Async(Arc::new(move |task| {
            // A panic before there is a future.
            let end = ends(task.partition().0);
            Box::pin(async move { end })
        })),
        TaskBody::Blocking(Arc::new(move |task| ends(task.partition().0))),
    ];
    for body in bodies {
        fixture.launch(3, body, None);
        let mut reports = [fixture.report().await, fixture.report().await, fixture.report().await];
        reports.sort_by_key(|(partition, _)| *partition);
        let [(0, TaskOutcome::Succeeded), (1, error), (2, panic)] = reports else {
            panic!("{reports:?}")
        };
        assert_eq!(error, failed(TaskFailure::Error("an error".to_owned())));
        assert_eq!(panic, failed(TaskFailure::Panicked("a panic".to_owned())));
    }
}

fn arrival(partition: u32, message: &str) -> Arrival {
    let task_attempt = TaskAttemptId(partition.into());
    let message = Bytes::copy_from_slice(message.as_bytes());
    Arrival { partition: PartitionId(partition), task_attempt, message }
}

fn request(num_tasks: u32, partition: u32) -> RequestToSync {
    RequestToSync {
        attempt: ATTEMPT,
        num_tasks,
        epoch: Epoch(0),
        method: SyncMethod::Barrier,
        arrivals: vec![arrival(partition, "")],
    }
}

fn barrier(num_tasks: u32) -> (Arc<SharedBarrier>, Addr<ContextBarrierStateActor>) {
    let task_attempts = (0..u64::from(num_tasks)).map(TaskAttemptId).collect();
    let open = OpenBarrier { attempt: ATTEMPT, task_attempts, sync_timeout: SECOND };
    let timer = ManualTimer::default().start().recipient();
    let barrier = Arc::new(SharedBarrier::new(open, SECOND, timer, EventBus::new(8)));
    (barrier.clone(), ContextBarrierStateActor::around(barrier).start())
}

/// Tasks that wait in `barrier()` and return its error.
fn waits() -> TaskBody {
    TaskBody::Async(Arc::new(|task| {
        Box::pin(async move {
            let call = task.sync(SyncMethod::Barrier, Bytes::new(), Location::caller());
            match call.await {
                Ok(_) => Ok(nothing()),
                Err(error) => Err(error.into()),
            }
        })
    }))
}

#[actix::test]
async fn a_kill_is_handled_while_ten_thousand_requests_are_queued() {
    let mut fixture = Fixture::start().await;
    let (shared, barrier) = barrier(3);
    fixture.launch(2, waits(), Some(shared));
    while barrier.send(GetMissing).await.unwrap().is_none_or(|missing| missing.len() > 1) {
        tokio::task::yield_now().await;
    }
    for _ in 0..10_000 {
        // Of tasks 0 and 1 once more: harmless, but work for the barrier's mailbox.
        barrier.do_send(Ask(request(3, 0)));
    }
    let kill = KillTask { tasks: vec![TaskAttemptId(0)], reason: "enough".to_owned() };
    fixture.executor.do_send(Tell(kill));
    // Nothing of the flood was handled before: this thread has not been given away since.
    let mut reports = [fixture.report().await, fixture.report().await];
    reports.sort_by_key(|(partition, _)| *partition);
    let [(0, killed), (1, pulled_down)] = reports else { panic!("{reports:?}") };
    assert_eq!(killed, failed(TaskFailure::Killed("enough".to_owned())));
    let TaskOutcome::Failed(TaskFailure::Error(text)) = pulled_down else {
        panic!("{pulled_down:?}")
    };
    assert!(text.ends_with("cannot be completed: partition 0 was killed: enough"), "{text}");
}

#[actix::test]
async fn when_the_barrier_dies_its_tasks_are_told() {
    let mut fixture = Fixture::start().await;
    let (shared, barrier) = barrier(3);
    fixture.launch(2, waits(), Some(shared));
    while barrier.send(GetMissing).await.unwrap().is_none_or(|missing| missing.len() > 1) {
        tokio::task::yield_now().await;
    }
    assert!(barrier.send(InjectPanic).await.is_err(), "it did panic");
    for _ in 0..2 {
        let (_, outcome) = fixture.report().await;
        let TaskOutcome::Failed(TaskFailure::Error(text)) = outcome else { panic!("{outcome:?}") };
        assert!(text.ends_with("the barrier coordinator is gone"), "{text}");
    }
}

#[actix::test]
async fn an_executor_that_is_given_up_comes_back_as_its_next_life() {
    let mut fixture = Fixture::start().await;
    fixture.executor.do_send(RetireExecutor { comes_back: true });
    let Some(Heard::Joined(joined)) = fixture.heard.recv().await else { panic!("comes back") };
    assert_eq!(
        (joined.joined.executor, joined.joined.incarnation),
        (ExecutorId(5), Incarnation(3))
    );
    joined.link.retire.do_send(RetireExecutor { comes_back: false });
    while joined.link.launch.connected() || fixture.executor.connected() {
        tokio::task::yield_now().await;
    }
    assert!(fixture.heard.try_recv().is_err(), "who gave it up need not be told that it is lost");
}

/// Plays an executor for a real scheduler: keeps what it is sent.
struct Hands(mpsc::UnboundedSender<LaunchTasks>, mpsc::UnboundedSender<KillTask>);

impl Actor for Hands {
    type Context = Context<Self>;
}

impl Handler<LaunchOnExecutor> for Hands {
    type Result = ();

    fn handle(&mut self, message: LaunchOnExecutor, _ctx: &mut Self::Context) {
        assert!(message.barrier.is_some(), "a gang has a barrier before it is launched");
        self.0.send(message.launch).unwrap();
    }
}

impl Handler<Tell<KillTask>> for Hands {
    type Result = ();

    fn handle(&mut self, Tell(kill): Tell<KillTask>, _ctx: &mut Self::Context) {
        self.1.send(kill).unwrap();
    }
}

impl Handler<RetireExecutor> for Hands {
    type Result = ();

    fn handle(&mut self, _: RetireExecutor, _ctx: &mut Self::Context) {}
}

fn spec(num_tasks: u32) -> StageSpec {
    StageSpec {
        name: "unit".to_owned(),
        kind: StageKind::Barrier,
        num_tasks,
        resources: TaskResources::default(),
        max_attempts: 1,
        max_infrastructure_failures: 0,
        retry_delay: SECOND,
        priority: 0,
        sync_timeout: SECOND,
        on_failure: OnFailure::Restart,
    }
}

fn scheduler() -> Addr<TaskSchedulerActor> {
    let config = SchedulerConfig {
        slot_check_interval: SECOND,
        slot_check_max_failures: 3,
        reserve_after: SECOND,
        kill_grace: SECOND,
        zombie_deadline: None,
        queue_max: 10,
        dynamic_allocation: false,
    };
    let timer = ManualTimer::default().start().recipient();
    TaskSchedulerActor::new(config, SECOND, timer, EventBus::new(8)).start()
}

type Outcome = watch::Receiver<Option<Result<(), StageFailure>>>;

fn submit(scheduler: &Addr<TaskSchedulerActor>, stage: u64, num_tasks: u32) -> Outcome {
    let (ended, _) = oneshot::channel();
    let (outcome, watched) = watch::channel(None);
    let submit = SubmitStage { stage: StageId(stage), spec: spec(num_tasks), of_job: None };
    scheduler.do_send(Submit { submit, body: waits(), ended, outcome });
    watched
}

#[actix::test]
async fn a_scheduler_alone_launches_kills_and_answers() {
    let scheduler = scheduler();
    let mut outcome = submit(&scheduler, 3, 2);
    let status = scheduler.send(GetStageStatus(StageId(3))).await.unwrap().unwrap();
    let phase = StagePhase::Deferred { required: 2, available: 0, checks_left: 3 };
    assert_eq!(status.phase, phase);
    let (launch_sender, mut launches) = mpsc::unbounded_channel();
    let (kill_sender, mut kills) = mpsc::unbounded_channel();
    let hands = Hands(launch_sender, kill_sender).start();
    let (executor, incarnation) = (ExecutorId(0), Incarnation(0));
    let resources = ExecutorResources::new(2);
    let joined = ExecutorJoined { executor, incarnation, address: "there".into(), resources };
    let link = ExecutorLink {
        launch: hands.clone().recipient(),
        kill: hands.clone().recipient(),
        retire: hands.recipient(),
    };
    scheduler.do_send(JoinExecutor { joined, link });
    let launch = launches.recv().await.unwrap();
    assert_eq!((launch.attempt, launch.tasks.len(), launch.task_infos.len()), (ATTEMPT, 2, 2));
    let end = |partition: usize, outcome| {
        let task = &launch.tasks[partition];
        let (attempt, partition, task_attempt) = (ATTEMPT, task.partition, task.task_attempt);
        let report =
            TaskReport { executor, incarnation, attempt, partition, task_attempt, outcome };
        scheduler.do_send(TaskEnded { report, output: None });
    };
    end(1, failed(TaskFailure::Error("no luck".to_owned())));
    assert_eq!(kills.recv().await.unwrap().tasks, [launch.tasks[0].task_attempt]);
    let ended = outcome.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    assert!(ended.unwrap_err().to_string().ends_with("failed: no luck"));
    let mut again = submit(&scheduler, 3, 1);
    let again = again.wait_for(Option::is_some).await.unwrap().clone().unwrap().unwrap_err();
    assert!(again.to_string().contains("stage id 3 is in use"), "its task still runs: {again}");
    let shutdown = tokio::spawn(scheduler.send(Shutdown));
    let status = scheduler.send(GetStageStatus(StageId(3))).await.unwrap().unwrap();
    assert_eq!((status.phase, status.tasks.len()), (StagePhase::Ended, 1), "its task holds a slot");
    assert!(!shutdown.is_finished());
    end(0, failed(TaskFailure::Killed("as asked".to_owned())));
    shutdown.await.unwrap().unwrap();
    let mut late = submit(&scheduler, 4, 1);
    let late = late.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(late, Some(Err(StageFailure::Shutdown)));
}

#[actix::test]
async fn an_executor_that_cannot_be_reached_is_lost_and_not_waited_for() {
    let scheduler = scheduler();
    let (launch_sender, launches) = mpsc::unbounded_channel();
    let (kill_sender, _kills) = mpsc::unbounded_channel();
    let dead = Hands::create(|ctx| {
        ctx.stop();
        Hands(launch_sender, kill_sender)
    });
    while dead.connected() {
        tokio::task::yield_now().await;
    }
    let (executor, incarnation) = (ExecutorId(0), Incarnation(0));
    let resources = ExecutorResources::new(2);
    let joined = ExecutorJoined { executor, incarnation, address: "gone".into(), resources };
    let link = ExecutorLink {
        launch: dead.clone().recipient(),
        kill: dead.clone().recipient(),
        retire: dead.recipient(),
    };
    scheduler.do_send(JoinExecutor { joined, link });
    let mut outcome = submit(&scheduler, 3, 2);
    let ended = outcome.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let text = ended.unwrap_err().to_string();
    assert!(text.contains("lost its executor: executor 0 cannot be reached"), "{text}");
    drop(launches);
}
