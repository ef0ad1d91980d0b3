//! Folding the values of all tasks, the same way everywhere.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::any::Any;
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
    pub trait Number: bytemuck::NoUninit + Send + Sync {
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
        fn from_numbers(numbers: Vec<Self::Number>) -> Option<Self>;
    }
}
use sealed::{Number, Value};

/// A number (`f32`, `f64`, `i32`, `i64`, `u32`, `u64`) or a vector of them.
pub trait Reducible: Value {
    /// The bytes that travel.
    #[doc(hidden)]
    fn to_bytes(&self) -> Vec<u8> {
        let numbers = self.numbers();
        let mut out = Vec::with_capacity(1 + size_of_val(numbers));
        out.push(Self::Number::TAG);
        if cfg!(target_endian = "little") {
            out.extend_from_slice(bytemuck::cast_slice(numbers));
        } else {
            numbers.iter().for_each(|number| number.put(&mut out));
        }
        out
    }
}

impl<V: Value> Reducible for V {}

impl<N: Number> Value for Vec<N> {
    type Number = N;

    fn numbers(&self) -> &[N] {
        self
    }

    fn from_numbers(numbers: Vec<N>) -> Option<Self> {
        Some(numbers)
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

            fn from_numbers(numbers: Vec<$type>) -> Option<Self> {
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
fn fold<N: Number>(op: ReduceOp, messages: &[Bytes]) -> Result<Vec<N>, ReduceError> {
    let mut folded: Vec<N> = Vec::new();
    for (partition, message) in messages.iter().enumerate() {
        let numbers = match message.split_first() {
            Some((tag, bytes)) if *tag == N::TAG && bytes.len() % N::WIDTH == 0 => bytes,
            Some(_) | None => return Err(ReduceError::Type { partition }),
        };
        if partition == 0 {
            folded = numbers.chunks_exact(N::WIDTH).map(N::get).collect();
            continue;
        }
        let (length, expected) = (numbers.len() / N::WIDTH, folded.len());
        if length != expected {
            return Err(ReduceError::Lengths { partition, length, expected });
        }
        N::fold(op, &mut folded, numbers)
            .map_err(|element| ReduceError::Overflow { element, partition })?;
    }
    Ok(folded)
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

type Folded<N> = Result<Vec<N>, ReduceError>;

impl SharedFold {
    /// A task is at most one round ahead of another, and is so only when that one has folded or
    /// never will: one place is enough.
    pub(crate) fn fold<V: Reducible>(
        &self,
        op: ReduceOp,
        messages: &Arc<[Bytes]>,
    ) -> Result<V, ReduceError> {
        let Ok(shared) =
            self.place::<V::Number>(op, messages).downcast::<OnceLock<Folded<V::Number>>>()
        else {
            // Another task expects another type: it is told so.
            return value::<V>(fold(op, messages));
        };
        value::<V>(shared.get_or_init(|| fold(op, messages)).clone())
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

fn value<V: Reducible>(folded: Folded<V::Number>) -> Result<V, ReduceError> {
    V::from_numbers(folded?).ok_or(ReduceError::Type { partition: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduce<V: Reducible>(op: ReduceOp, values: &[V]) -> Result<V, ReduceError> {
        let messages: Vec<Bytes> = values.iter().map(|value| value.to_bytes().into()).collect();
        SharedFold::default().fold(op, &messages.into())
    }

    #[test]
    fn numbers_and_vectors_are_folded_element_by_element() {
        assert_eq!(reduce(ReduceOp::Sum, &[1_u64, 2, 3]), Ok(6));
        assert_eq!(reduce(ReduceOp::Min, &[vec![3, -1], vec![2, 5]]), Ok(vec![2, -1]));
        assert_eq!(reduce(ReduceOp::Max, &[2.5_f32, -1.0]), Ok(2.5));
        assert_eq!(reduce(ReduceOp::Sum, &[Vec::<f64>::new(), vec![]]), Ok(vec![]));
    }

    #[test]
    fn a_floating_sum_is_taken_in_partition_order() {
        let values = [1e16_f64, 1.0, -1e16];
        assert_eq!(reduce(ReduceOp::Sum, &values), Ok((1e16 + 1.0) - 1e16));
    }

    #[test]
    fn nan_is_not_lost() {
        for values in [[f64::NAN, 1.0], [1.0, f64::NAN]] {
            assert!(reduce(ReduceOp::Min, &values).unwrap().is_nan());
            assert!(reduce(ReduceOp::Max, &values).unwrap().is_nan());
        }
    }

    #[test]
    fn values_that_do_not_fit_together_are_refused_by_name() {
        let lengths = reduce(ReduceOp::Sum, &[vec![1_i32, 2], vec![3]]);
        assert_eq!(lengths, Err(ReduceError::Lengths { partition: 1, length: 1, expected: 2 }));
        let overflow = reduce(ReduceOp::Sum, &[vec![0, i64::MAX], vec![0, 1]]);
        assert_eq!(overflow, Err(ReduceError::Overflow { element: 1, partition: 1 }));
        let types = [Bytes::from(1_f64.to_bytes()), Bytes::from(1_u64.to_bytes())].into();
        let (first, second) = (SharedFold::default(), SharedFold::default());
        let wrong = first.fold::<f64>(ReduceOp::Sum, &types);
        assert_eq!(wrong, Err(ReduceError::Type { partition: 1 }));
        assert_eq!(
            first.fold::<u64>(ReduceOp::Sum, &types),
            Err(ReduceError::Type { partition: 0 })
        );
        assert_eq!(
            second.fold::<u64>(ReduceOp::Sum, &types),
            Err(ReduceError::Type { partition: 0 })
        );
    }

    #[test]
    fn it_is_folded_once_for_all_and_forgotten_with_the_last() {
        let messages: Arc<[Bytes]> =
            [1_u64, 2, 3].map(|value| Bytes::from(value.to_bytes())).to_vec().into();
        let shared = SharedFold::default();
        let place = |op| Arc::as_ptr(&shared.place::<u64>(op, &messages)).cast::<()>();
        let first = place(ReduceOp::Sum);
        assert_eq!(place(ReduceOp::Sum), first);
        assert!(shared.0.lock().unwrap().is_some());
        assert_eq!(shared.fold(ReduceOp::Sum, &messages), Ok(6_u64));
        assert!(shared.0.lock().unwrap().is_none(), "all three have taken it");
        assert_eq!(shared.fold(ReduceOp::Max, &messages), Ok(3_u64), "another fold of the same");
        let again: Arc<[Bytes]> = messages.to_vec().into();
        assert_eq!(shared.fold(ReduceOp::Max, &again), Ok(3_u64), "another round");
        assert_eq!(shared.0.lock().unwrap().as_ref().map(|it| it.takers), Some(1));
    }
}
