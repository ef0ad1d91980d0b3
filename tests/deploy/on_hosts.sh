# shellcheck shell=bash disable=SC2153
# Tests on three hosts, sourced by `run`: the driver's and two with an executor of two slots each.

# hosts_up TASKS EPOCHS: the driver listens; no executor yet.
hosts_up() {
  net_up driver hosta hostb
  (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$DIR/token")
  # shellcheck disable=SC2046 # words on purpose
  start_driver driver --cluster "listen:0.0.0.0:$PORT" --token-file "$DIR/token" \
    $(training "$1" "$2" 20ms)
  await_log 20 "driver that listens" listens
}

listens() {
  [ -n "$(in_host driver ss -Hltn "sport = :$PORT")" ]
}

# executors_up: on both hosts, and the job is under way; leaves the id of the one on b in `B`.
executors_up() {
  start_executor hosta
  start_executor hostb
  await_log 20 "executor from hosta" has_joined hosta
  await_log 20 "executor from hostb" has_joined hostb
  B=$(joins hostb | tail -n 1)
  assert_runs hostb
  await_under_way
}

hosts_plain() {
  hosts_up 4 100
  executors_up
  await_end 60
  assert_trained 4 100
  assert_untroubled
  assert_said_goodbye hosta hostb
  assert_nothing_left
}

# Until the driver has given b up; then b's executor comes back by itself, as a new incarnation: the
# job needs its slots.
comes_back() {
  await_lost hostb "$B"
  assert_dropped
  [ ! -e "$DIR/hostb.exit" ] || fail "the executor on hostb has ended"
  heal
  await_log 30 "return of the executor on hostb" has_joined hostb hostb 2
  [ "$(joins hostb | tail -n 1)" = "$B" ] || fail "it came back as somebody else"
  await_end 90
  assert_trained 4 400
  assert_resumed
  assert_said_goodbye hosta hostb
  assert_nothing_left
}

hosts_partition() {
  hosts_up 4 400
  executors_up
  partition hostb driver
  comes_back
}

# b hears the driver and is not heard.
hosts_one_way() {
  hosts_up 4 400
  executors_up
  one_way hostb driver
  comes_back
}

hosts_delay() {
  local round_trip
  hosts_up 4 50
  delay hostb 20
  round_trip=$(round_trip_ms hostb driver)
  echo "a round trip takes $round_trip ms"
  [ "$round_trip" -ge 40 ] || fail "a round trip takes $round_trip ms, expected: 40 or more"
  executors_up
  await_end 90
  assert_trained 4 50
  assert_untroubled
  assert_said_goodbye hosta hostb
  assert_nothing_left
}

# A third executor has the slots that are lost with b.
hosts_power_failure() {
  hosts_up 4 400
  executors_up
  start_executor hosta spare
  await_log 20 "spare executor" has_joined hosta spare
  crash hostb
  await_lost hostb "$B"
  await_end 90
  assert_trained 4 400
  assert_resumed
  assert_said_goodbye hosta spare
  assert_nothing_left
}

# Too few slots, and nobody comes: the job fails, and soon.
hosts_power_failure_without_spare() {
  export PHALANX_SLOT_CHECK_INTERVAL=500ms PHALANX_SLOT_CHECK_MAX_FAILURES=4
  hosts_up 4 400
  executors_up
  crash hostb
  await_lost hostb "$B"
  await_end 30
  assert_failed "$TOO_FEW_SLOTS"
  assert_said_goodbye hosta # a driver that fails is not one that is lost
  assert_nothing_left
}
