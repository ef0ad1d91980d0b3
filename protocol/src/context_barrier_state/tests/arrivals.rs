use super::*;

#[test]
fn a_gang_in_one_message_is_released_at_once_with_one_reply() {
    let mut state = gang(3);
    let effects = arrive(&mut state, 1, AllGather, &[(2, "c"), (0, "a"), (1, "b")]);
    let release = released(&[1], FIRST, AllGather, &["a", "b", "c"]);
    assert_eq!(effects, [opened(FIRST, AllGather), release].concat());
    assert_eq!(state, between_rounds(3, 1, 1));
}

#[test]
fn a_gang_in_several_messages_waits_for_the_last() {
    let mut state = gang(3);
    assert_eq!(arrive(&mut state, 1, AllGather, &[(1, "b")]), opened(FIRST, AllGather));
    assert_eq!(state, in_round(3, FIRST, AllGather, &[(1, "b")], &[1]));
    assert_eq!(arrive(&mut state, 2, AllGather, &[(2, "c")]), []);
    assert_eq!(state, in_round(3, FIRST, AllGather, &[(1, "b"), (2, "c")], &[1, 2]));
    let effects = arrive(&mut state, 3, AllGather, &[(0, "a")]);
    assert_eq!(effects, released(&[1, 2, 3], FIRST, AllGather, &["a", "b", "c"]));
    assert_eq!(state, between_rounds(3, 1, 1));
}

fn orders(partitions: &[u32]) -> Vec<Vec<u32>> {
    if partitions.is_empty() {
        return vec![Vec::new()];
    }
    let mut orders_found = Vec::new();
    for &first in partitions {
        let others: Vec<u32> = partitions.iter().copied().filter(|p| *p != first).collect();
        for rest in orders(&others) {
            orders_found.push([vec![first], rest].concat());
        }
    }
    orders_found
}

/// Cuts after arrival `i` if bit `i` of `cuts` is set.
fn split(order: &[u32], cuts: u32) -> Vec<Vec<u32>> {
    let mut messages = vec![Vec::new()];
    for (i, &partition) in order.iter().enumerate() {
        messages.last_mut().unwrap().push(partition);
        if i + 1 < order.len() && cuts & (1 << i) != 0 {
            messages.push(Vec::new());
        }
    }
    messages
}

#[test]
fn a_gang_in_any_order_and_any_split_is_released_in_partition_order() {
    let payloads = ["a", "b", "c", "d"];
    let ways = orders(&[0, 1, 2, 3]);
    assert_eq!(ways.len(), 24);
    for order in ways {
        for cuts in 0..8 {
            let messages = split(&order, cuts);
            let tokens: Vec<u64> = (0..messages.len() as u64).collect();
            let mut state = gang(4);
            for (&token, partitions) in tokens.iter().zip(&messages) {
                let arriving: Vec<(u32, &'static str)> =
                    partitions.iter().map(|&p| (p, payloads[p as usize])).collect();
                let mut expected = Vec::new();
                if token == 0 {
                    expected.extend(opened(FIRST, AllReduce));
                }
                if token + 1 == messages.len() as u64 {
                    expected.extend(released(&tokens, FIRST, AllReduce, &payloads));
                }
                let effects = arrive(&mut state, token, AllReduce, &arriving);
                assert_eq!(effects, expected, "{messages:?}");
            }
            assert_eq!(state, between_rounds(4, 1, 1), "{messages:?}");
        }
    }
}

#[test]
fn each_method_is_released_as_itself_and_only_a_barrier_carries_nothing() {
    for method in METHODS {
        let mut state = gang(2);
        arrive(&mut state, 1, method, &[(1, "b")]);
        let messages: &[&'static str] = if method == Barrier { &[] } else { &["a", "b"] };
        let effects = arrive(&mut state, 2, method, &[(0, "a")]);
        assert_eq!(effects, released(&[1, 2], FIRST, method, messages));
        assert_eq!(state, between_rounds(2, 1, 1));
    }
}

#[test]
fn many_requests_of_one_partition_never_release() {
    let mut state = gang(3);
    arrive(&mut state, 0, Barrier, &[(1, "")]);
    for token in 1..10 {
        assert_eq!(arrive(&mut state, token, Barrier, &[(1, "")]), []);
        assert_eq!(state.missing(), Some(ranges([0, 2])));
        assert_eq!(state.epoch(), Epoch(0));
    }
    assert_eq!(state, in_round(3, FIRST, Barrier, &[(1, "")], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
}

#[test]
fn one_partition_named_many_times_in_one_message_is_one_arrival() {
    let mut state = gang(3);
    let effects = arrive(&mut state, 1, AllGather, &[(1, "b"), (1, "b"), (1, "b")]);
    assert_eq!(effects, opened(FIRST, AllGather));
    assert_eq!(state, in_round(3, FIRST, AllGather, &[(1, "b")], &[1]));
}

#[test]
fn a_repeat_with_a_new_token_is_idempotent_and_both_tokens_are_answered_once() {
    let mut state = gang(2);
    arrive(&mut state, 1, AllGather, &[(0, "a")]);
    assert_eq!(arrive(&mut state, 2, AllGather, &[(0, "a")]), []);
    assert_eq!(state, in_round(2, FIRST, AllGather, &[(0, "a")], &[1, 2]));
    let effects = arrive(&mut state, 3, AllGather, &[(1, "b")]);
    assert_eq!(effects, released(&[1, 2, 3], FIRST, AllGather, &["a", "b"]));
    assert_eq!(state, between_rounds(2, 1, 1));
}

#[test]
fn a_repeat_may_come_together_with_new_arrivals() {
    let mut state = gang(3);
    arrive(&mut state, 1, AllGather, &[(0, "a"), (1, "b")]);
    let effects = arrive(&mut state, 2, AllGather, &[(1, "b"), (2, "c")]);
    assert_eq!(effects, released(&[1, 2], FIRST, AllGather, &["a", "b", "c"]));
    assert_eq!(state, between_rounds(3, 1, 1));
}

fn conflicting(partition: u32) -> SyncError {
    let (attempt, epoch) = (ATTEMPT, Epoch(0));
    SyncError::ConflictingMessage { attempt, partition: PartitionId(partition), epoch }
}

#[test]
fn a_repeat_with_another_message_is_refused_and_changes_nothing() {
    let mut state = gang(2);
    arrive(&mut state, 1, AllGather, &[(0, "a")]);
    let other = request(&state, AllGather, &[(0, "z")]);
    assert_refused(&mut state, 2, other, conflicting(0));
    let effects = arrive(&mut state, 3, AllGather, &[(1, "b")]);
    assert_eq!(effects, released(&[1, 3], FIRST, AllGather, &["a", "b"]));
}

#[test]
fn an_empty_message_is_a_message_that_a_repeat_must_not_change() {
    let mut state = gang(2);
    arrive(&mut state, 1, Broadcast, &[(0, "")]);
    let other = request(&state, Broadcast, &[(0, "z")]);
    assert_refused(&mut state, 2, other, conflicting(0));
}

#[test]
fn one_conflicting_arrival_refuses_the_whole_message() {
    let mut state = gang(3);
    arrive(&mut state, 1, AllGather, &[(1, "b")]);
    let mixed = request(&state, AllGather, &[(0, "a"), (1, "z"), (2, "c")]);
    assert_refused(&mut state, 2, mixed, conflicting(1));
}

#[test]
fn two_messages_of_one_partition_in_one_request_are_refused() {
    let mut idle = gang(2);
    let mut open = gang(2);
    arrive(&mut open, 1, AllGather, &[(1, "b")]);
    for state in [&mut idle, &mut open] {
        let doubtful = request(state, AllGather, &[(0, "a"), (0, "z")]);
        assert_refused(state, 2, doubtful, conflicting(0));
    }
}

#[test]
fn a_next_round_has_its_own_epoch_messages_and_tokens() {
    let mut state = gang(2);
    arrive(&mut state, 1, AllGather, &[(0, "a"), (1, "b")]);
    let effects = arrive(&mut state, 2, Broadcast, &[(1, "")]);
    assert_eq!(effects, opened(SECOND, Broadcast));
    assert_eq!(state, in_round(2, SECOND, Broadcast, &[(1, "")], &[2]));
    let effects = arrive(&mut state, 3, Broadcast, &[(0, "root")]);
    assert_eq!(effects, released(&[2, 3], SECOND, Broadcast, &["root", ""]));
    assert_eq!(state, between_rounds(2, 2, 2));
}

#[test]
fn a_gang_of_one_is_released_at_once_every_time() {
    let mut state = gang(1);
    for i in 0..3 {
        let at = At { epoch: i, opening: i };
        let effects = arrive(&mut state, i, AllReduce, &[(0, "a")]);
        let release = released(&[i], at, AllReduce, &["a"]);
        assert_eq!(effects, [opened(at, AllReduce), release].concat());
        assert_eq!(state, between_rounds(1, i + 1, i + 1));
    }
}

#[test]
fn nothing_of_a_round_is_kept_after_its_release() {
    let mut state = gang(2);
    assert_eq!(state.missing(), None);
    arrive(&mut state, 1, AllGather, &[(0, "a")]);
    assert_eq!(state.missing(), Some(ranges([1])));
    let effects = arrive(&mut state, 2, AllGather, &[(1, "b")]);
    assert_eq!(effects, released(&[1, 2], FIRST, AllGather, &["a", "b"]));
    assert_eq!(state.missing(), None);
    assert_eq!(state.round, None);
    assert_eq!(state.epoch(), Epoch(1));
}
