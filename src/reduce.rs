//! Folding the values of all tasks, the same way everywhere.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
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
    pub trait Number: Copy + Send + 'static {
        /// Tells the type apart from others of the same width.
        const TAG: u8;
        const WIDTH: usize;
        fn put(self, out: &mut Vec<u8>);
        /// `bytes` has [`Number::WIDTH`] bytes.
        fn get(bytes: &[u8]) -> Self;
        /// `None`: the sum overflows.
        fn fold(op: ReduceOp, left: Self, right: Self) -> Option<Self>;
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
        let mut out = Vec::with_capacity(1 + numbers.len() * Self::Number::WIDTH);
        out.push(Self::Number::TAG);
        numbers.iter().for_each(|number| number.put(&mut out));
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

            fn fold(op: ReduceOp, left: Self, right: Self) -> Option<Self> {
                let is_nan: fn($type) -> bool = $is_nan;
                match op {
                    ReduceOp::Sum => {
                        let add: fn($type, $type) -> Option<$type> = $add;
                        add(left, right)
                    }
                    ReduceOp::Min => Some(if right < left || is_nan(right) { right } else { left }),
                    ReduceOp::Max => Some(if right > left || is_nan(right) { right } else { left }),
                }
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
    f32, 1, |a, b| Some(a + b), |x| x.is_nan();
    f64, 2, |a, b| Some(a + b), |x| x.is_nan();
    i32, 3, |a, b| a.checked_add(b), |_| false;
    i64, 4, |a, b| a.checked_add(b), |_| false;
    u32, 5, |a, b| a.checked_add(b), |_| false;
    u64, 6, |a, b| a.checked_add(b), |_| false;
}

/// Folds in partition order: floating-point sums depend on the order, so it is part of the result.
pub(crate) fn fold<V: Reducible>(op: ReduceOp, messages: &[Bytes]) -> Result<V, ReduceError> {
    let mut folded: Vec<V::Number> = Vec::new();
    for (partition, message) in messages.iter().enumerate() {
        let wrong_type = ReduceError::Type { partition };
        let width = V::Number::WIDTH;
        let numbers = match message.split_first() {
            Some((tag, bytes)) if *tag == V::Number::TAG && bytes.len() % width == 0 => bytes,
            Some(_) | None => return Err(wrong_type),
        };
        let numbers = numbers.chunks_exact(width).map(V::Number::get);
        if partition == 0 {
            folded = numbers.collect();
            continue;
        }
        let (length, expected) = (numbers.len(), folded.len());
        if length != expected {
            return Err(ReduceError::Lengths { partition, length, expected });
        }
        for (element, (left, right)) in folded.iter_mut().zip(numbers).enumerate() {
            *left = V::Number::fold(op, *left, right)
                .ok_or(ReduceError::Overflow { element, partition })?;
        }
    }
    V::from_numbers(folded).ok_or(ReduceError::Type { partition: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduce<V: Reducible>(op: ReduceOp, values: &[V]) -> Result<V, ReduceError> {
        let messages: Vec<Bytes> = values.iter().map(|value| value.to_bytes().into()).collect();
        fold(op, &messages)
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
        let types = [Bytes::from(1_f64.to_bytes()), Bytes::from(1_u64.to_bytes())];
        assert_eq!(fold::<f64>(ReduceOp::Sum, &types), Err(ReduceError::Type { partition: 1 }));
    }
}
