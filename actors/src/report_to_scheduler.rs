//! How executors tell the scheduler how their tasks end.

use crate::orders::Orders;
use crate::reporter::{Report, Take};
use crate::run_task::TaskOutput;
use crate::shared_scheduler::{SharedScheduler, Taker};
use crate::{GetStatus, TaskEnded, TaskSchedulerActor};
use actix::Addr;
use phalanx_protocol::{ExecutorLife, SchedulerEvent, TaskOutcome, TaskReport};
use std::sync::Arc;
use std::thread;

/// The way of reports to the scheduler of this process.
pub(crate) struct ReportToScheduler {
    pub(crate) shared: Arc<SharedScheduler>,
    pub(crate) orders: Orders,
}

impl Report for ReportToScheduler {
    fn report(&self, report: TaskReport, output: Option<TaskOutput>) {
        let failed = report.outcome != TaskOutcome::Succeeded;
        let ended = TaskEnded { report, output };
        if failed {
            // No success overtakes it: it may be the end of the stage.
            self.orders.send(ended);
        } else {
            self.orders.scheduler().do_send(ended);
        }
    }

    /// Straight to the machine, on this thread, if the stage has more tasks to be launched. Its end
    /// goes through the mailbox.
    fn report_and_take(&self, report: TaskReport, output: TaskOutput, take: Take<'_>) {
        // Dropped after the lock.
        let _tells = TellsOfPanic(self.orders.scheduler());
        if !self.orders.are_under_way()
            && let Some(mut locked) = self.shared.lock_soon()
            && let Some(state) = &mut *locked
            && state.machine.has_tasks_in_line(report.attempt.stage)
        {
            let TaskReport { executor, incarnation, .. } = report;
            let taker = Taker { executor: ExecutorLife { executor, incarnation }, take };
            state.handle_event(SchedulerEvent::TaskReport(report), Some(output), Some(taker));
        } else {
            self.report(report, Some(output));
        }
    }
}

/// A step that panics ends the scheduler. Its actor sees that with the next message.
struct TellsOfPanic<'a>(&'a Addr<TaskSchedulerActor>);

impl Drop for TellsOfPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.do_send(GetStatus);
        }
    }
}
