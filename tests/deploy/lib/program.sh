# shellcheck shell=bash disable=SC2153
# The program under test, sourced by `run`: starting it, waiting for it, and what is asserted of it.
# A driver leaves in `DIR`: out, err, and exit, which is there when it has ended.

# What the program logs.
JOINED="executor ([0-9]+) is 'NAME' at " # an address follows
LOST='executor [0-9]+ is lost'
SILENT='executor ID is lost: was silent' # and not by a connection that ended
SCHEDULED='all [0-9]+ tasks scheduled'
UNDER_WAY='epoch [0-9]*[1-9][0-9] of [0-9]+' # the tenth or later: there are checkpoints
ENDED_BY_SLURM='error: .*Slurm ends job'
KILLED='^srun: error: .*: Killed' # said by Slurm, of an executor
TOO_FEW_SLOTS='error: .*needs 4 slots.*lost its executor: executor [0-9]+ was silent'

PORT=7077

# Ends the test, which runs in a shell of its own.
fail() {
  echo "$*" >"$DIR/why"
  exit 1
}

# await SECONDS WHAT COMMAND...: until COMMAND succeeds.
await() {
  local deadline=$((SECONDS + $1)) seconds=$1 what=$2
  shift 2
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || fail "no $what within $seconds s"
    sleep 0.05
  done
}

ended() {
  [ -s "$DIR/exit" ]
}

# await_log SECONDS WHAT COMMAND...: as await, but a driver that has ended will log no more.
await_log() {
  local seconds=$1 what=$2
  shift 2
  await "$seconds" "$what" ended_or "$@"
  "$@" || fail "the driver ended (exit $(cat "$DIR/exit")) without $what"
}

ended_or() {
  ended || "$@"
}

logged() {
  grep -qE "$1" "$DIR/err" 2>/dev/null
}

# joins [HOST [NAME]]: the ids of the executors that have joined from there, oldest first.
joins() {
  local address='' joined
  [ $# = 0 ] || address=${ADDRESS[$1]//./[.]}:
  joined=${JOINED/NAME/${2-[^\']*}}$address
  grep -E "$joined" "$DIR/err" 2>/dev/null | sed -E "s/.*$joined.*/\1/"
}

# has_joined HOST [NAME [TIMES]]
has_joined() {
  [ "$(joins "${@:1:2}" | wc -l)" -ge "${3-1}" ]
}

await_under_way() {
  await_log 60 "progress ($UNDER_WAY)" logged "$UNDER_WAY"
}

# await_lost HOST ID: given up for its silence, as no FIN or RST can come of the faults here.
await_lost() {
  await_log 30 "loss of executor $2 on $1" logged "${SILENT/ID/$2}"
}

# start_driver HOST ARGUMENT...
start_driver() {
  (
    in_host "$1" "$PROGRAM" "${@:2}" >"$DIR/out" 2>"$DIR/err" </dev/null
    echo $? >"$DIR/exit"
  ) &
}

# start_executor HOST [NAME]: leaves NAME.err and NAME.exit. NAME is the host unless told.
start_executor() {
  local name=${2-$1}
  (
    export PHALANX_ROLE=executor PHALANX_DRIVER=${ADDRESS[driver]}:$PORT
    export PHALANX_TOKEN_FILE=$DIR/token PHALANX_EXECUTOR_NAME=$name PHALANX_SLOTS=2
    in_host "$1" "$PROGRAM" >"$DIR/$name.err" 2>&1 </dev/null
    echo $? >"$DIR/$name.exit"
  ) &
}

# await_end SECONDS: the driver's.
await_end() {
  await "$1" "end of the driver" ended
}

# The shape of the job under test: how many tasks, epochs, and how long a pause after each.
training() {
  echo --tasks "$1" --epochs "$2" --epoch-pause "$3" --json
}

# field NAME [FILE]: of the report.
field() {
  python3 -c 'import json, sys; print(json.load(open(sys.argv[2]))[sys.argv[1]])' \
    "$1" "${2-$DIR/out}"
}

# assert_field NAME OPERATOR NUMBER
assert_field() {
  local value
  value=$(field "$1") || fail "no $1 in the report: $(cat "$DIR/out")"
  [[ $value =~ ^[0-9]+$ ]] && test "$value" "$2" "$3" || fail "$1 is $value, expected: $2 $3"
}

# assert_trained TASKS EPOCHS: success, with the same model as a run in one process has.
assert_trained() {
  local reference=$RUN/$1-$2.json sha256
  [ "$(cat "$DIR/exit")" = 0 ] || fail "exit $(cat "$DIR/exit"), expected 0"
  [ -s "$reference" ] || in_one_process "$1" "$2" >"$reference" || fail "the reference run failed"
  sha256=$(field sha256 "$reference") || fail "no hash: $(cat "$reference")"
  [ "$(field sha256)" = "$sha256" ] || fail "hash $(field sha256), in one process $sha256"
  echo "same hash as in one process: $sha256"
}

in_one_process() (
  unset "${!PHALANX_@}"
  "$PROGRAM" --tasks "$1" --epochs "$2" --json
)

# assert_failed REGEX: exit 1, with such a text on stderr.
assert_failed() {
  [ "$(cat "$DIR/exit")" = 1 ] || fail "exit $(cat "$DIR/exit"), expected 1"
  logged "$1" || fail "no '$1' on stderr"
}

# assert_untroubled: one attempt, nothing lost.
assert_untroubled() {
  assert_field attempts -eq 1
  assert_field infrastructure_failures -eq 0
  ! logged "$LOST" || fail "an executor was lost"
  [ "$(grep -cE "$SCHEDULED" "$DIR/err")" = 1 ] || fail "not one line '$SCHEDULED'"
}

# assert_resumed: after one loss, from a checkpoint.
assert_resumed() {
  assert_field attempts -eq 2
  assert_field infrastructure_failures -ge 1
  assert_field resumed_from -ge 1
  [ "$(grep -cE "$SCHEDULED" "$DIR/err")" = 2 ] || fail "not two lines '$SCHEDULED'"
}

# assert_said_goodbye NAME...: these executors end, and with exit code 0.
assert_said_goodbye() {
  local name
  for name; do
    await 15 "end of executor $name" test -s "$DIR/$name.exit"
    [ "$(cat "$DIR/$name.exit")" = 0 ] || fail "executor $name: exit $(cat "$DIR/$name.exit")"
  done
}

# assert_nothing_left: no process in any host that lives, but Slurm's daemons.
assert_nothing_left() {
  # As long as an executor may look for a driver that is gone, and a little.
  local deadline=$((SECONDS + 15)) host left
  for host in "${!INIT[@]}"; do
    [ "$host" != switch ] || continue
    while left=$(leftovers "$host") || fail "no list of processes on $host"; [ -n "$left" ]; do
      [ "$SECONDS" -lt "$deadline" ] || fail "still there on $host: $left"
      sleep 0.1
    done
  done
}

leftovers() {
  local all
  all=$(processes "$1") || return 1
  grep -vE '^((slurmd|slurmctld|munged) |.*slurmscriptd)' <<<"$all"
  return 0
}

# assert_runs HOST: the program does. A check also of what `assert_nothing_left` relies on.
assert_runs() {
  processes "$1" | grep -qF "$PROGRAM" || fail "no executor runs on $1"
}
