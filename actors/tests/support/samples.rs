//! One of each message.

use bytes::Bytes;
use phalanx_actors::RuntimeStatus;
use phalanx_actors::remote::wire::{DriverStatus, Message, Payloads};
use phalanx_protocol::{
    Arrival, Epoch, ExecutorId, KillTask, LaunchTask, LaunchTasks, LeaveReason, PartitionId,
    Release, RequestToSync, StageAttemptId, StageId, StillWaiting, SyncError, SyncMethod,
    SyncReply, TaskAttemptId, TaskFailure, TaskInfo, TaskLeft, TaskOutcome, TaskReport,
    WithdrawSync,
};
use std::time::Duration;

const ATTEMPT: StageAttemptId = StageAttemptId { stage: StageId(300), attempt: 2 };
const EPOCH: Epoch = Epoch(70_000);
const PARTITION: PartitionId = PartitionId(1);
const TASK: TaskAttemptId = TaskAttemptId(1 << 40);

fn text() -> String {
    "words".to_owned()
}

fn launch() -> (Message, Payloads) {
    let address = "10.0.0.1".into();
    let tasks = (0..3).map(|partition| LaunchTask {
        partition: PartitionId(partition),
        task_attempt: TaskAttemptId(partition.into()),
        cpus: 1,
        addresses: [("gpu".to_owned(), vec!["0".to_owned()])].into(),
    });
    let launch = LaunchTasks {
        attempt: ATTEMPT,
        num_tasks: 3,
        tasks: tasks.collect(),
        task_infos: vec![TaskInfo { executor: ExecutorId(1), address }; 3].into(),
    };
    let launch = Message::Launch { launch, stage_name: text(), code: text(), is_gang: true };
    (launch, vec![Bytes::from_static(b"settings"), Bytes::new(), Bytes::from(vec![7; 400])])
}

fn replies() -> [(Message, Payloads); 2] {
    let release = Release { method: SyncMethod::AllGather, messages: Default::default() };
    let error = SyncError::Timeout {
        attempt: ATTEMPT,
        epoch: EPOCH,
        after: Duration::from_millis(1500),
        missing: [PARTITION, PartitionId(9)].into_iter().collect(),
    };
    let reply = |result| {
        let reply = SyncReply { attempt: ATTEMPT, epoch: EPOCH, result };
        Message::Reply { requests: vec![1, 1000], reply }
    };
    let messages = vec![Bytes::from_static(b"one"), Bytes::from_static(b"two")];
    [(reply(Ok(release)), messages), (reply(Err(error)), Vec::new())]
}

fn request() -> (Message, Payloads) {
    let arrival = |task| Arrival {
        partition: PartitionId(task),
        task_attempt: TaskAttemptId(task.into()),
        message: Bytes::new(),
    };
    let (method, arrivals) = (SyncMethod::AllReduce, vec![arrival(0), arrival(1)]);
    let request = RequestToSync { attempt: ATTEMPT, num_tasks: 4, epoch: EPOCH, method, arrivals };
    (Message::Request { id: 5, request }, vec![Bytes::from(vec![1; 32]), Bytes::from(vec![2; 32])])
}

fn ended() -> (Message, Payloads) {
    let report = TaskReport {
        executor: ExecutorId(1),
        incarnation: Default::default(),
        attempt: ATTEMPT,
        partition: PARTITION,
        task_attempt: TASK,
        outcome: TaskOutcome::Failed(TaskFailure::Error(text())),
    };
    (Message::Ended { report }, Vec::new())
}

fn status() -> Message {
    let runtime = RuntimeStatus { executors: Vec::new(), stages: Vec::new() };
    let names = vec![(ExecutorId(1), "a".into())];
    Message::Status(DriverStatus { application: text(), runtime, syncs: Vec::new(), names })
}

/// Messages with their payloads; the launch is the sixth.
pub fn samples() -> Vec<(Message, Payloads)> {
    let withdraw =
        WithdrawSync { attempt: ATTEMPT, epoch: EPOCH, partition: PARTITION, task_attempt: TASK };
    let reason = LeaveReason::Killed { reason: text() };
    let left = TaskLeft { attempt: ATTEMPT, partition: PARTITION, task_attempt: TASK, reason };
    let missing = [PARTITION].into_iter().collect();
    let note = StillWaiting { attempt: ATTEMPT, epoch: EPOCH, missing };
    let kill = KillTask { tasks: vec![TASK; 3], reason: text() };
    let call = Message::Call { call: Some(3), attempt: ATTEMPT, partition: PARTITION };
    let [released, refused] = replies();
    let alone = |message| (message, Vec::new());
    vec![
        alone(Message::Goodbye { reason: text(), is_done: true }),
        alone(Message::Heartbeat),
        alone(Message::Kill(kill)),
        alone(Message::Note { request: 4, note }),
        (Message::Answer { call: 9 }, vec![Bytes::from_static(b"answer")]),
        launch(),
        released,
        refused,
        request(),
        ended(),
        alone(Message::Withdraw(withdraw)),
        alone(Message::Left(left)),
        (call, vec![Bytes::from_static(b"what")]),
        alone(Message::Leaving { reason: text() }),
        alone(Message::GetStatus),
        alone(status()),
        alone(Message::Cancel { stage: StageId(9), reason: text() }),
        alone(Message::Cancelled(true)),
    ]
}
