//! Orders to the scheduler that are under way.

use crate::TaskSchedulerActor;
use actix::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The way to the scheduler for what must not be overtaken: as long as something that was sent here
/// is under way, no small task's thread begins with another one by itself. What is sent to the
/// actor's address is carried out in order, too, but for that.
#[derive(Clone)]
pub struct Orders {
    scheduler: Addr<TaskSchedulerActor>,
    under_way: Arc<AtomicUsize>,
}

/// An order, until it is carried out.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Order {
    carry_out: CarryOut,
    counted: Counted,
}

type CarryOut = Box<dyn FnOnce(&mut TaskSchedulerActor, &mut Context<TaskSchedulerActor>) + Send>;

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Orders {
    pub(crate) fn new(scheduler: Addr<TaskSchedulerActor>) -> Self {
        Orders { scheduler, under_way: Arc::default() }
    }

    /// Has the scheduler do this. Without effect if it is gone.
    pub fn send<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        TaskSchedulerActor: Handler<M, Result = ()>,
    {
        self.send_carried_out(Box::new(|actor, ctx| {
            actor.handle(message, ctx);
        }));
    }

    fn send_carried_out(&self, carry_out: CarryOut) {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        let counted = Counted(self.under_way.clone());
        self.scheduler.do_send(Order { carry_out, counted });
    }

    /// The scheduler itself.
    pub fn scheduler(&self) -> &Addr<TaskSchedulerActor> {
        &self.scheduler
    }

    pub(crate) fn are_under_way(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) > 0
    }
}

impl Handler<Order> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, Order { carry_out, counted }: Order, ctx: &mut Self::Context) {
        carry_out(self, ctx);
        drop(counted);
    }
}
