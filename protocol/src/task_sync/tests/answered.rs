use super::*;

fn answered(epoch: u64, release: Release, calls: &[u64]) -> TaskSync {
    let callers = calls.iter().copied().map(CallId).collect();
    TaskSync { state: State::Answered { release, callers }, ..idle(epoch) }
}

#[test]
fn an_answer_that_a_caller_has_seen_is_settled() {
    let mut state = waiting(0, AllGather, "b", &[1, 2]);
    feed(&mut state, reply(0, Ok(gathered())));
    assert_eq!(state, answered(1, gathered(), &[1, 2]));
    assert_eq!(feed(&mut state, taken(2)), []);
    assert_eq!(state, idle(1));
    assert_ignored(&mut state, dropped(1));
}

#[test]
fn an_answer_that_was_dropped_unseen_is_kept_for_the_same_call() {
    let mut state = waiting(0, AllGather, "b", &[1]);
    feed(&mut state, reply(0, Ok(gathered())));
    assert_eq!(feed(&mut state, dropped(1)), []);
    assert_eq!(state, unclaimed(0, gathered()));
    assert_eq!(feed(&mut state, call(2, AllGather, "b")), [complete(&[2], Ok(gathered()))]);
    assert_eq!(feed(&mut state, taken(2)), []);
    assert_eq!(state, idle(1), "the sync is not entered a second time");
}

#[test]
fn one_of_two_dropped_unseen_leaves_the_answer_to_the_other() {
    let mut state = waiting(0, AllGather, "b", &[1, 2]);
    feed(&mut state, reply(0, Ok(gathered())));
    feed(&mut state, dropped(1));
    assert_eq!(state, answered(1, gathered(), &[2]));
    feed(&mut state, taken(2));
    assert_eq!(state, idle(1));
}

#[test]
fn a_new_call_while_an_answer_is_unseen_is_of_the_next_epoch() {
    let mut state = answered(1, gathered(), &[1]);
    assert_eq!(feed(&mut state, call(2, Barrier, "")), [arrive(1, Barrier, "")]);
    assert_eq!(state, waiting(1, Barrier, "", &[2]));
    assert_ignored(&mut state, dropped(1));
    assert_ignored(&mut state, taken(1));
}

#[test]
fn nothing_answers_an_answered_call_again_and_others_cannot_settle_it() {
    let mut state = answered(1, gathered(), &[1]);
    for epoch in [0, 1, 2] {
        assert_ignored(&mut state, reply(epoch, Err(failure())));
        assert_ignored(&mut state, reply(epoch, Ok(gathered())));
    }
    assert_ignored(&mut state, taken(7));
    assert_ignored(&mut state, dropped(7));
}
