//! Orders to the scheduler that are under way.

use crate::{PlannerActor, TaskSchedulerActor};
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
pub struct Order<A: Actor> {
    carry_out: CarryOut<A>,
    counted: Counted,
}

type CarryOut<A> = Box<dyn FnOnce(&mut A, &mut <A as Actor>::Context) + Send>;

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Orders {
    /// Orders to this scheduler.
    pub fn new(scheduler: Addr<TaskSchedulerActor>) -> Self {
        Orders { scheduler, under_way: Arc::default() }
    }

    /// Has the scheduler do this. Without effect if it is gone.
    pub fn send<M>(&self, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        TaskSchedulerActor: Handler<M, Result = ()>,
    {
        let order = self.order(Box::new(|actor: &mut TaskSchedulerActor, ctx: &mut _| {
            actor.handle(message, ctx);
        }));
        deliver(&self.scheduler, order);
    }

    /// Has the planner do this, and what follows from it for the scheduler.
    pub fn send_to_planner<M>(&self, planner: &Addr<PlannerActor>, message: M)
    where
        M: Message<Result = ()> + Send + 'static,
        PlannerActor: Handler<M, Result = ()>,
    {
        let order = self.order(Box::new(|actor: &mut PlannerActor, ctx: &mut _| {
            actor.handle(message, ctx);
        }));
        deliver(planner, order);
    }

    fn order<A: Actor>(&self, carry_out: CarryOut<A>) -> Order<A> {
        self.under_way.fetch_add(1, Ordering::SeqCst);
        Order { carry_out, counted: Counted(self.under_way.clone()) }
    }

    /// The scheduler itself.
    pub fn scheduler(&self) -> &Addr<TaskSchedulerActor> {
        &self.scheduler
    }

    pub(crate) fn are_under_way(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) > 0
    }
}

/// Apart from those above: their bounds on the message hide from the compiler that an actor handles
/// orders.
fn deliver<A: Actor<Context = Context<A>> + Handler<Order<A>>>(to: &Addr<A>, order: Order<A>) {
    to.do_send(order);
}

impl<A: Actor> Order<A> {
    fn carry_out(self, actor: &mut A, ctx: &mut A::Context) {
        (self.carry_out)(actor, ctx);
        drop(self.counted);
    }
}

impl Handler<Order<Self>> for TaskSchedulerActor {
    type Result = ();

    fn handle(&mut self, order: Order<Self>, ctx: &mut Self::Context) {
        order.carry_out(self, ctx);
    }
}

impl Handler<Order<Self>> for PlannerActor {
    type Result = ();

    fn handle(&mut self, order: Order<Self>, ctx: &mut Self::Context) {
        order.carry_out(self, ctx);
    }
}
