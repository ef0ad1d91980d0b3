# shellcheck shell=bash disable=SC2153
# A real Slurm cluster, sourced by `run`: munged and slurmctld on the host `ctl`, one slurmd on each
# node; hosts as net.sh makes them. All state is in `DIR`. No daemon detaches: all end with their
# hosts.

# slurm_up NODE...: returns when all nodes are idle.
slurm_up() {
  local node
  net_up ctl "$@"
  export SLURM_CONF=$DIR/slurm.conf
  mkdir -p "$DIR/state" "$DIR/spool" "$DIR/log"
  slurm_conf "$@" >"$SLURM_CONF"
  (umask 077 && head -c 128 /dev/urandom >"$DIR/munge.key")
  # One for all hosts, as they share files: a daemon is known by its socket's path.
  in_host ctl munged --foreground --force --key-file="$DIR/munge.key" \
    --socket="$DIR/munge.sock" --pid-file="$DIR/munged.pid" --seed-file="$DIR/munge.seed" \
    --log-file="$DIR/log/munged.log" >/dev/null 2>&1 &
  await 10 "munged" test -S "$DIR/munge.sock"
  in_host ctl slurmctld -D -c >/dev/null 2>&1 &
  for node; do
    mkdir "$DIR/spool/$node"
    in_host "$node" slurmd -D >/dev/null 2>&1 &
  done
  await 40 "idle nodes of Slurm" nodes_are_idle $#
}

nodes_are_idle() {
  [ "$(in_host ctl sinfo -h -N -t idle -o %N 2>/dev/null | sort -u | wc -l)" = "$1" ]
}

slurm_conf() {
  local node
  cat <<CONF
ClusterName=deploy
SlurmctldHost=ctl(${ADDRESS[ctl]})
SlurmUser=root
SlurmdUser=root
AuthInfo=socket=$DIR/munge.sock
SlurmctldPidFile=$DIR/slurmctld.pid
SlurmdPidFile=$DIR/spool/%n/slurmd.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/slurmd.%n.log
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
# Neither cgroups nor pinning: what a container has of them is not Slurm's to use.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
MailProg=/bin/true
PropagateResourceLimits=NONE
# The CPUs that a node declares count, whatever the machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0
# How fast a node is given up, and how long a job that is to end may take for it.
SlurmdTimeout=10
MessageTimeout=5
KillWait=$KILL_WAIT
OverTimeLimit=0
CONF
  for node; do
    echo "NodeName=$node NodeAddr=${ADDRESS[$node]} CPUs=2 State=UNKNOWN"
  done
  echo "PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP"
}

# submit NODES SBATCH_OPTION... -- ARGUMENT...: a job whose script runs the driver on the first node
# of the allocation; prints its id. The script notes where the driver ran and how it ended; a
# SIGTERM is for the driver, the script has to live until then.
submit() {
  local nodes=$1 options=()
  shift
  while [ "$1" != -- ]; do
    options+=("$1")
    shift
  done
  shift
  cat >"$DIR/job.sh" <<JOB
#!/bin/bash
hostname >"$DIR/driver_host"
trap : TERM
"$PROGRAM" $(printf '%q ' "$@")>"$DIR/out" 2>"$DIR/err"
echo \$? >"$DIR/exit"
JOB
  # --no-kill: without it the death of one node ends the job, and the driver with it.
  in_host ctl sbatch --parsable --no-kill -N "$nodes" --ntasks-per-node=1 --cpus-per-task=2 \
    -o "$DIR/job.log" "${options[@]}" "$DIR/job.sh"
}
