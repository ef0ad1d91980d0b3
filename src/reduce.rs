//! Folding the values of all tasks, the same way everywhere.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::ops::Deref;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use thiserror::Error;

/// How `all_reduce` folds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ReduceOp {
    /// The sum. Integers that overflow are an error.
    Sum,
    /// The smallest; NaN if one is NaN.
    Min,
    /// The largest; NaN if one is NaN.
    Max,
}

/// Values that cannot be folded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReduceError {
    /// Not all vectors are equally long.
    #[error(
        "all_reduce: partition {partition} has {length} elements, partition 0 has {expected}: all tasks must pass values of the same type and length"
    )]
    Lengths {
        /// The first that differs.
        partition: usize,
        /// Its length.
        length: usize,
        /// Partition 0's length.
        expected: usize,
    },
    /// The bytes are not whole numbers of the type expected here.
    #[error("all_reduce: partition {partition} sent a value of another type")]
    Type {
        /// Whose.
        partition: usize,
    },
    /// An integer sum does not fit its type.
    #[error("all_reduce: the sum overflows at element {element} with partition {partition}")]
    Overflow {
        /// Index in the vector.
        element: usize,
        /// The partition whose value was one too much.
        partition: usize,
    },
}

mod sealed {
    use super::ReduceOp;

    /// One number of a value, as bytes and folded.
    pub trait Number: bytemuck::NoUninit + Send + Sync + std::fmt::Debug {
        /// Tells the type apart from others of the same width.
        const TAG: u8;
        const WIDTH: usize;
        /// Lowest byte first.
        fn put(self, out: &mut Vec<u8>);
        /// `bytes` has [`Number::WIDTH`] bytes.
        fn get(bytes: &[u8]) -> Self;
        /// Folds the numbers in `bytes` into as many others. The error is the index of the first
        /// sum that overflows.
        fn fold(op: ReduceOp, folded: &mut [Self], bytes: &[u8]) -> Result<(), usize>;
    }

    pub trait Value: Sized + Send + 'static {
        type Number: Number;
        fn numbers(&self) -> &[Self::Number];
        fn from_numbers(numbers: &[Self::Number]) -> Option<Self>;
    }
}
pub(crate) use sealed::Number;
use sealed::Value;

/// A number (`f32`, `f64`, `i32`, `i64`, `u32`, `u64`) or a vector of them.
pub trait Reducible: Value {
    /// The bytes that travel: the numbers, lowest byte first, and their type's mark.
    #[doc(hidden)]
    fn to_bytes(&self) -> Bytes {
        let numbers = self.numbers();
        let mut out = Vec::with_capacity((numbers.len() + 1) * Self::Number::WIDTH);
        if cfg!(target_endian = "little") {
            out.extend_from_slice(bytemuck::cast_slice(numbers));
        } else {
            numbers.iter().for_each(|number| number.put(&mut out));
        }
        mark::<Self::Number>().put(&mut out);
        out.into()
    }
}

/// The number that stands behind all others on the way: its bytes are the type's tag and zeros.
fn mark<N: Number>() -> N {
    let mut bytes = [0; 8];
    bytes[0] = N::TAG;
    N::get(&bytes[..N::WIDTH])
}

/// A vector of numbers (`f32`, `f64`, `i32`, `i64`, `u32`, `u64`) that clones share, made of a
/// `Vec`. [`all_reduce_shared`](crate::BarrierTaskContext::all_reduce_shared) takes and gives it
/// without copying.
///
/// ```
/// # use phalanx::Numbers;
/// let mut gradient = Numbers::from(vec![1.0_f32, 2.0]);
/// gradient.to_mut()[1] = 3.0;
/// assert_eq!(*gradient, [1.0, 3.0]);
/// ```
#[derive(Clone, Debug)]
pub struct Numbers<N: Number>(
    /// With their type's mark behind them.
    Arc<Vec<N>>,
);

impl<N: Number> Numbers<N> {
    /// The numbers, to be changed; copied before if a clone is still in use, for example by a task
    /// that is not through with the same sum.
    pub fn to_mut(&mut self) -> &mut [N] {
        let own = Arc::make_mut(&mut self.0);
        let length = own.len() - 1;
        &mut own[..length]
    }

    pub(crate) fn to_bytes(&self) -> Bytes {
        if cfg!(target_endian = "little") {
            return Bytes::from_owner(Owner(self.0.clone()));
        }
        let mut out = Vec::with_capacity(self.0.len() * N::WIDTH);
        self.0.iter().for_each(|number| number.put(&mut out));
        out.into()
    }
}

/// What keeps the bytes of shared numbers.
struct Owner<N>(Arc<Vec<N>>);

impl<N: Number> AsRef<[u8]> for Owner<N> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl<N: Number> From<Vec<N>> for Numbers<N> {
    fn from(mut numbers: Vec<N>) -> Self {
        numbers.push(mark::<N>());
        Numbers(Arc::new(numbers))
    }
}

impl<N: Number> Deref for Numbers<N> {
    type Target = [N];

    fn deref(&self) -> &[N] {
        &self.0[..self.0.len() - 1]
    }
}

impl<V: Value> Reducible for V {}

impl<N: Number> Value for Vec<N> {
    type Number = N;

    fn numbers(&self) -> &[N] {
        self
    }

    fn from_numbers(numbers: &[N]) -> Option<Self> {
        Some(numbers.to_vec())
    }
}

/// Implements [`Number`] and [`Value`] for a number type with its way to add.
macro_rules! number {
    ($($type:ty, $tag:literal, $add:expr, $is_nan:expr;)*) => {$(
        impl Number for $type {
            const TAG: u8 = $tag;
            const WIDTH: usize = size_of::<$type>();

            fn put(self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            #[inline]
            fn get(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<$type>()];
                own.copy_from_slice(bytes);
                <$type>::from_le_bytes(own)
            }

            fn fold(op: ReduceOp, folded: &mut [Self], bytes: &[u8]) -> Result<(), usize> {
                let numbers = bytes.chunks_exact(Self::WIDTH).map(Self::get);
                let pairs = folded.iter_mut().zip(numbers);
                let is_nan = $is_nan;
                // A loop for each, so that the compiler can make the best of it.
                match op {
                    ReduceOp::Sum => {
                        let add = $add;
                        for (element, (left, right)) in pairs.enumerate() {
                            *left = add(*left, right).ok_or(element)?;
                        }
                    }
                    ReduceOp::Min => pairs
                        .filter(|(left, right)| *right < **left || is_nan(*right))
                        .for_each(|(left, right)| *left = right),
                    ReduceOp::Max => pairs
                        .filter(|(left, right)| *right > **left || is_nan(*right))
                        .for_each(|(left, right)| *left = right),
                }
                Ok(())
            }
        }

        impl Value for $type {
            type Number = $type;

            fn numbers(&self) -> &[$type] {
                std::slice::from_ref(self)
            }

            fn from_numbers(numbers: &[$type]) -> Option<Self> {
                numbers.first().copied()
            }
        }
    )*};
}

number! {
    f32, 1, |a: f32, b: f32| Some(a + b), |x: f32| x.is_nan();
    f64, 2, |a: f64, b: f64| Some(a + b), |x: f64| x.is_nan();
    i32, 3, i32::checked_add, |_: i32| false;
    i64, 4, i64::checked_add, |_: i64| false;
    u32, 5, u32::checked_add, |_: u32| false;
    u64, 6, u64::checked_add, |_: u64| false;
}

/// Folds in partition order: floating-point sums depend on the order, so it is part of the result.
/// With room for the mark.
fn fold<N: Number>(op: ReduceOp, messages: &[Bytes]) -> Result<Vec<N>, ReduceError> {
    let mut all = Vec::with_capacity(messages.len());
    for (partition, message) in messages.iter().enumerate() {
        let numbers = unmarked::<N>(message).ok_or(ReduceError::Type { partition })?;
        let length = numbers.len() / N::WIDTH;
        let expected = all.first().map_or(length, |first: &&[u8]| first.len() / N::WIDTH);
        if length != expected {
            return Err(ReduceError::Lengths { partition, length, expected });
        }
        all.push(numbers);
    }
    let Some((first, others)) = all.split_first() else { return Ok(Vec::new()) };
    let mut folded = Vec::with_capacity(first.len() / N::WIDTH + 1);
    folded.extend(first.chunks_exact(N::WIDTH).map(N::get));
    for (partition, other) in (1..).zip(others) {
        N::fold(op, &mut folded, other)
            .map_err(|element| ReduceError::Overflow { element, partition })?;
    }
    Ok(folded)
}

/// The bytes of the numbers in a message, if they are of this type.
fn unmarked<N: Number>(message: &[u8]) -> Option<&[u8]> {
    let at = message.len().checked_sub(N::WIDTH)?;
    let (numbers, mark) = message.split_at(at);
    let is_this = mark[0] == N::TAG && mark[1..].iter().all(|byte| *byte == 0);
    (is_this && numbers.len() % N::WIDTH == 0).then_some(numbers)
}

/// What the first task of a gang in this process folds, the others take.
#[derive(Default)]
pub(crate) struct SharedFold(Mutex<Option<Folding>>);

/// The fold of one round.
struct Folding {
    /// Which round: whose messages. Weak, so that they are not kept for it.
    of: Weak<[Bytes]>,
    op: ReduceOp,
    /// A `OnceLock<Folded<N>>`.
    result: Arc<dyn Any + Send + Sync>,
    takers: usize,
}

type Folded<N> = Result<Numbers<N>, ReduceError>;

impl SharedFold {
    /// A task is at most one round ahead of another, and is so only when that one has folded or
    /// never will: one place is enough.
    pub(crate) fn fold<N: Number>(&self, op: ReduceOp, messages: &Arc<[Bytes]>) -> Folded<N> {
        let Ok(shared) = self.place::<N>(op, messages).downcast::<OnceLock<Folded<N>>>() else {
            // Another task expects another type: it is told so.
            return fold(op, messages).map(Numbers::from);
        };
        shared.get_or_init(|| fold(op, messages).map(Numbers::from)).clone()
    }

    /// The same as a value.
    pub(crate) fn fold_value<V: Reducible>(
        &self,
        op: ReduceOp,
        messages: &Arc<[Bytes]>,
    ) -> Result<V, ReduceError> {
        let folded = self.fold::<V::Number>(op, messages)?;
        V::from_numbers(&folded).ok_or(ReduceError::Type { partition: 0 })
    }

    fn place<N: Number>(
        &self,
        op: ReduceOp,
        messages: &Arc<[Bytes]>,
    ) -> Arc<dyn Any + Send + Sync> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_this = |it: &&mut Folding| {
            std::ptr::addr_eq(it.of.as_ptr(), Arc::as_ptr(messages)) && it.op == op
        };
        let result = match last.as_mut().filter(is_this) {
            Some(this) => {
                this.takers += 1;
                this.result.clone()
            }
            None => {
                let result: Arc<dyn Any + Send + Sync> = Arc::new(OnceLock::<Folded<N>>::new());
                let (of, result) = (Arc::downgrade(messages), result);
                *last = Some(Folding { of, op, result: result.clone(), takers: 1 });
                result
            }
        };
        last.take_if(|it| it.takers >= messages.len());
        result
    }
}

#[cfg(test)]
mod tests;
