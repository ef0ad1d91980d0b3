//! A driver to be dialled, and what its tests ask it.
#![allow(dead_code, reason = "each test uses a part")]

pub mod certificates;
pub mod raw;
pub mod samples;

use bytes::Bytes;
use phalanx_actors::remote::wire::{ExecutorHello, Message, Payloads, Program};
use phalanx_actors::remote::{
    ExecutorEnd, ExecutorProcess, LinkConfig, LinkEvent, Loss, RemoteLaunch,
};
use phalanx_actors::testing::Peer;
use phalanx_actors::{
    ActorSystem, NamedBody, NamedCode, Payload, StageEnded, Submit, SystemConfig, TaskBody,
};
use phalanx_protocol::{
    ExecutorId, ExecutorResources, Incarnation, LaunchTasks, OnFailure, SchedulerConfig, StageId,
    StageKind, StageSpec, SubmitStage, TaskOutcome, TaskReport, TaskResources,
};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

/// Nothing here takes so long; more only if something is broken.
pub const WAIT: Duration = Duration::from_secs(30);

/// Where time is the subject.
pub const SHORT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

pub struct Driver {
    pub system: ActorSystem,
    pub address: String,
    link: mpsc::UnboundedReceiver<LinkEvent>,
}

/// What happens within a time in which it must.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match timeout(WAIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} takes longer than {WAIT:?}"),
    }
}

pub fn program() -> Program {
    let (application, version) = ("unit".to_owned(), "1.0.0".to_owned());
    Program { application, version, code: vec!["f(u32) -> u32".to_owned()] }
}

pub fn hello(name: &str) -> ExecutorHello {
    let resources = ExecutorResources::new(2);
    ExecutorHello { program: program(), name: name.to_owned(), lives: 0, resources, address: None }
}

pub fn config() -> LinkConfig {
    LinkConfig {
        address: ([127, 0, 0, 1], 0).into(),
        program: program(),
        token: None,
        tls: None,
        heartbeat_interval: Duration::from_secs(1),
        heartbeat_timeout: Duration::from_secs(60),
        max_payload: 1 << 30,
        max_queued: 1 << 30,
        takes_back: true,
        events: None,
    }
}

pub fn system() -> ActorSystem {
    let scheduler = SchedulerConfig {
        slot_check_interval: Duration::from_secs(60),
        slot_check_max_failures: 3,
        reserve_after: Duration::from_secs(60),
        kill_grace: Duration::from_secs(60),
        zombie_deadline: None,
        queue_max: 1000,
        dynamic_allocation: false,
    };
    let progress_interval = Duration::from_secs(60);
    let config =
        SystemConfig { scheduler, progress_interval, events_capacity: 1000, manual_time: false };
    ActorSystem::start(config).unwrap()
}

impl Driver {
    pub fn start() -> Self {
        Driver::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut LinkConfig)) -> Self {
        let system = system();
        let (events, link) = mpsc::unbounded_channel();
        let mut config = LinkConfig { events: Some(events), ..config() };
        change(&mut config);
        let address = system.listen(config).unwrap().to_string();
        Driver { system, address, link }
    }

    /// With short heartbeats.
    pub fn with_short(change: impl FnOnce(&mut LinkConfig)) -> Self {
        Driver::with(|config| {
            (config.heartbeat_interval, config.heartbeat_timeout) = SHORT;
            change(config);
        })
    }

    /// A peer of this name, which is welcome.
    pub async fn peer(&mut self, name: &str) -> Peer {
        let dialled = within("a greeting", Peer::dial(&self.address, hello(name), None, None));
        let (peer, _) = dialled.await.unwrap();
        self.joined().await;
        peer
    }

    pub async fn event(&mut self) -> LinkEvent {
        within("the next event", self.link.recv()).await.expect("the driver listens")
    }

    /// What has happened and was not asked for.
    pub fn event_now(&mut self) -> Option<LinkEvent> {
        self.link.try_recv().ok()
    }

    pub async fn joined(&mut self) -> (String, ExecutorId, Incarnation) {
        match self.event().await {
            LinkEvent::Joined { name, executor, incarnation } => {
                (name.to_string(), executor, incarnation)
            }
            lost @ LinkEvent::Lost { .. } => panic!("{lost:?}"),
        }
    }

    pub async fn lost(&mut self) -> (String, String, Loss) {
        match self.event().await {
            LinkEvent::Lost { name, reason, loss, .. } => (name.to_string(), reason, loss),
            joined @ LinkEvent::Joined { .. } => panic!("{joined:?}"),
        }
    }

    pub fn submit(&self, stage: u64, spec: StageSpec, body: TaskBody) -> Submitted {
        let (ended, result) = oneshot::channel();
        let (outcome, _) = watch::channel(None);
        let submit = SubmitStage { stage: StageId(stage), spec, of_job: None };
        self.system.scheduler().do_send(Submit { submit, body, ended, outcome });
        Submitted(result)
    }

    pub async fn shutdown(self) {
        within("the shutdown", self.system.shutdown(Duration::from_secs(1))).await;
    }
}

/// A stage under way.
pub struct Submitted(oneshot::Receiver<StageEnded>);

impl Submitted {
    async fn result(self) -> Result<Vec<Payload>, String> {
        let ended = within("the stage", self.0).await.expect("a stage has an end");
        ended.result.map_err(|(failure, _)| failure.to_string())
    }

    pub async fn values(self) -> Vec<Bytes> {
        let values = self.result().await.unwrap();
        values.into_iter().map(|value| *value.downcast::<Bytes>().unwrap()).collect()
    }

    pub async fn failure(self) -> String {
        self.result().await.map(|values| values.len()).unwrap_err()
    }
}

pub fn spec(kind: StageKind, num_tasks: u32) -> StageSpec {
    StageSpec {
        name: "unit".to_owned(),
        kind,
        num_tasks,
        resources: TaskResources::default(),
        max_attempts: 1,
        max_infrastructure_failures: 2,
        retry_delay: Duration::ZERO,
        priority: 0,
        sync_timeout: WAIT,
        on_failure: OnFailure::Restart,
    }
}

/// Code for executors elsewhere.
pub fn named(inputs: Vec<Bytes>) -> TaskBody {
    served(inputs, |asked| asked)
}

/// As [`named`], with what answers its calls.
pub fn served(inputs: Vec<Bytes>, serve: fn(Bytes) -> Bytes) -> TaskBody {
    let here = NamedCode::Blocking(Arc::new(|_| Err("runs elsewhere".into())));
    let code = "f".to_owned();
    let serve = Arc::new(move |_, _, asked: &[Bytes]| vec![serve(asked[0].clone())]);
    TaskBody::Named(Arc::new(NamedBody { code, settings: Bytes::new(), inputs, serve, here }))
}

/// What the driver says next but that it is there.
pub async fn heard(peer: &mut Peer) -> Option<(Message, Payloads)> {
    loop {
        match within("the driver's next word", peer.hear()).await.unwrap() {
            Some((Message::Heartbeat, _)) => {}
            other => return other,
        }
    }
}

pub async fn launched(peer: &mut Peer) -> LaunchTasks {
    match heard(peer).await {
        Some((Message::Launch { launch, .. }, _)) => launch,
        other => panic!("{other:?}"),
    }
}

/// The report that a task of the launch has succeeded.
pub fn succeeded(launch: &LaunchTasks, task: usize) -> Message {
    let report = TaskReport {
        executor: ExecutorId(0),
        incarnation: Incarnation(0),
        attempt: launch.attempt,
        partition: launch.tasks[task].partition,
        task_attempt: launch.tasks[task].task_attempt,
        outcome: TaskOutcome::Succeeded,
    };
    Message::Ended { report }
}

/// An executor's process as a thread of this one; its tasks wait until they are killed.
pub fn start_process(driver: &str, change: impl FnOnce(&mut ExecutorProcess)) -> Process {
    let mut process = ExecutorProcess {
        driver: driver.to_owned(),
        token: None,
        tls: None,
        hello: hello("process"),
        worker_threads: 1,
        max_queued: 1 << 30,
        reconnect_timeout: WAIT,
        grace: Duration::from_secs(1),
    };
    change(&mut process);
    let waits = |_: RemoteLaunch| {
        Ok(TaskBody::Async(Arc::new(|task| {
            Box::pin(async move {
                task.killed().cancelled().await;
                Err("killed".into())
            })
        })))
    };
    Process(std::thread::spawn(move || process.run(waits)))
}

pub struct Process(JoinHandle<ExecutorEnd>);

impl Process {
    pub async fn end(self) -> ExecutorEnd {
        let joined = tokio::task::spawn_blocking(|| self.0.join().unwrap());
        within("the end of the process", joined).await.unwrap()
    }
}
