# shellcheck shell=bash disable=SC2153
# Tests on a Slurm cluster of three nodes, sourced by `run`. A node has two CPUs, an executor two
# slots, and six tasks need all of them.

cluster_up() {
  export PHALANX_SLOTS=2 # the environment goes through sbatch and srun
  slurm_up node1 node2 node3
}

joined_from_all_nodes() {
  has_joined node1 && has_joined node2 && has_joined node3
}

# slurm_job SBATCH_OPTION... -- ARGUMENT...: submits it and waits until it is under way.
slurm_job() {
  cluster_up
  JOB=$(submit 3 "$@") || fail "sbatch failed"
  await 30 "start of job $JOB" test -s "$DIR/driver_host"
  await_log 30 "executor from each of the three nodes" joined_from_all_nodes
  await_under_way
}

job_is_gone() {
  [ -z "$(in_host ctl squeue -h)" ]
}

slurm_sbatch() {
  # shellcheck disable=SC2046 # words on purpose
  slurm_job -- --cluster slurm $(training 6 100 20ms)
  await_end 60
  assert_trained 6 100
  assert_untroubled
  assert_nothing_left
}

# Outside of an allocation the driver asks for one, and gives it back.
slurm_salloc() {
  cluster_up
  # shellcheck disable=SC2046 # words on purpose
  start_driver ctl --cluster slurm:3 $(training 6 100 20ms)
  await_log 30 "executor from each of the three nodes" joined_from_all_nodes
  ! job_is_gone || fail "executors without an allocation"
  await_end 60
  assert_trained 6 100
  assert_untroubled
  await 20 "end of the allocation" job_is_gone
  assert_nothing_left
}

# A node fails, not the driver's. An executor on a node that lives takes the place of the lost one.
slurm_node_crash() {
  local victim=node3 joins
  # shellcheck disable=SC2046 # words on purpose
  slurm_job -- --cluster slurm $(training 6 400 20ms)
  [ "$(cat "$DIR/driver_host")" != "$victim" ] || victim=node2
  joins=$(joins "$victim")
  assert_runs "$victim"
  crash "$victim"
  await_lost "$victim" "$(tail -n 1 <<<"$joins")"
  await_log 60 "replacement" joined_four_times
  await_end 90
  assert_trained 6 400
  assert_resumed
  [ "$(joins "$victim")" = "$joins" ] || fail "a replacement on $victim, which is dead"
  assert_nothing_left
}

joined_four_times() {
  [ "$(joins | wc -l)" -ge 4 ]
}

# slurm_ends_job SECONDS: driver and executors end by themselves, on SIGTERM. A driver that Slurm
# had to kill could not write down how it ended.
slurm_ends_job() {
  await_end "$1"
  assert_failed "$ENDED_BY_SLURM"
  assert_nothing_left
  ! logged "$KILLED" || fail "Slurm had to kill an executor: $(grep -E "$KILLED" "$DIR/err")"
  await 20 "end of job $JOB" job_is_gone
}

slurm_scancel() {
  # shellcheck disable=SC2046 # words on purpose
  slurm_job -- --cluster slurm $(training 6 100000 20ms)
  in_host ctl scancel "$JOB" || fail "scancel failed"
  slurm_ends_job "$KILL_WAIT"
}

# Slurm knows limits in whole minutes, and looks at them every 30 s.
slurm_time_limit() {
  # shellcheck disable=SC2046 # words on purpose
  slurm_job --time=1 -- --cluster slurm $(training 6 100000 20ms)
  slurm_ends_job 120
  in_host ctl scontrol show job "$JOB" | grep -o 'JobState=TIMEOUT' || fail "not by its time limit"
}
