use super::*;

fn reduce<V: Reducible>(op: ReduceOp, values: &[V]) -> Result<V, ReduceError> {
    let messages: Vec<Bytes> = values.iter().map(|value| value.to_bytes()).collect();
    SharedFold::default().fold_value(op, &messages.into())
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
    let types = [1_f64.to_bytes(), 1_u64.to_bytes()].into();
    let (first, second) = (SharedFold::default(), SharedFold::default());
    let wrong = first.fold_value::<f64>(ReduceOp::Sum, &types);
    assert_eq!(wrong, Err(ReduceError::Type { partition: 1 }));
    assert_eq!(
        first.fold_value::<u64>(ReduceOp::Sum, &types),
        Err(ReduceError::Type { partition: 0 })
    );
    assert_eq!(
        second.fold_value::<u64>(ReduceOp::Sum, &types),
        Err(ReduceError::Type { partition: 0 })
    );
}

#[test]
fn it_is_folded_once_for_all_and_forgotten_with_the_last() {
    let messages: Arc<[Bytes]> = [1_u64, 2, 3].map(|value| value.to_bytes()).to_vec().into();
    let shared = SharedFold::default();
    let place = |op| Arc::as_ptr(&shared.place::<u64>(op, &messages)).cast::<()>();
    let first = place(ReduceOp::Sum);
    assert_eq!(place(ReduceOp::Sum), first);
    assert!(shared.0.lock().unwrap().is_some());
    assert_eq!(shared.fold_value(ReduceOp::Sum, &messages), Ok(6_u64));
    assert!(shared.0.lock().unwrap().is_none(), "all three have taken it");
    assert_eq!(shared.fold_value(ReduceOp::Max, &messages), Ok(3_u64), "another fold of the same");
    let again: Arc<[Bytes]> = messages.to_vec().into();
    assert_eq!(shared.fold_value(ReduceOp::Max, &again), Ok(3_u64), "another round");
    assert_eq!(shared.0.lock().unwrap().as_ref().map(|it| it.takers), Some(1));
}

#[test]
fn shared_numbers_are_sent_and_taken_without_copying() {
    let mine = Numbers::from(vec![1.5_f32, 2.0]);
    let message = mine.to_bytes();
    assert_eq!(message.as_ptr(), mine.as_ptr().cast());
    assert_eq!(message, vec![1.5_f32, 2.0].to_bytes(), "the bytes are those of a copy");
    let messages: Arc<[Bytes]> = vec![message, vec![1_f32, 1.0].to_bytes()].into();
    let shared = SharedFold::default();
    let [first, second] = [(); 2].map(|()| shared.fold::<f32>(ReduceOp::Sum, &messages).unwrap());
    assert_eq!(*first, [2.5, 3.0]);
    assert_eq!(first.as_ptr(), second.as_ptr());
}

#[test]
fn what_others_still_read_is_copied_before_it_changes() {
    let mut mine = Numbers::from(vec![1_u64, 2]);
    let alone = mine.as_ptr();
    mine.to_mut()[0] = 7;
    assert_eq!(mine.as_ptr(), alone);
    let sent = mine.to_bytes();
    mine.to_mut()[1] = 9;
    assert_eq!((&*mine, &*sent), (&[7, 9][..], &*vec![7_u64, 2].to_bytes()));
}

#[test]
fn numbers_of_another_type_are_not_taken_for_these() {
    let narrow = Numbers::from(vec![f32::from_bits(2), 0.0, f32::from_bits(2)]);
    for messages in [[narrow.to_bytes()], [Bytes::new()], [Bytes::from_static(&[2, 0, 0])]] {
        let folded = SharedFold::default().fold::<f64>(ReduceOp::Sum, &messages.to_vec().into());
        assert!(matches!(folded, Err(ReduceError::Type { partition: 0 })));
    }
}
