# shellcheck shell=bash disable=SC2153
# Hosts on one machine, sourced by `run`. A host is a set of namespaces of its own: network, process
# ids, host name, IPC, mounts. Hosts are joined by a switch, a bridge in a namespace of its own; the
# machine's own network gets nothing and there is no route out. Files are shared.
#
# The process ids matter: the kernel kills whatever runs in a host together with the host's init,
# so that neither a crash nor the end of a test can leave a process behind, not even a daemon.
#
# `DIR` is the folder of the test. Faults sit in the switch; nothing in a host shows them but their
# effect.

declare -A ADDRESS=() # by host
declare -A INIT=()    # the host's init, as the machine counts processes; none: the host is down
declare -A HOLDER=()  # what holds that init; a child of this shell

# net_up HOST...: makes the hosts, with the addresses 10.77.0.1, .2, ... in this order.
net_up() {
  local host last=0
  {
    echo "127.0.0.1 localhost"
    for host; do
      ADDRESS[$host]=10.77.0.$((last += 1))
      echo "${ADDRESS[$host]} $host"
    done
  } >"$DIR/hosts"
  boot switch
  switch ip link add br0 type bridge stp_state 0 forward_delay 0
  switch ip link set br0 up
  switch nft "add table bridge faults; add chain bridge faults forward \
    { type filter hook forward priority 0; }" || fail "the switch needs nftables for bridges"
  for host; do
    boot "$host"
    plug "$host"
  done
}

# Ends every process in every host, and with them the hosts. May be repeated.
net_down() {
  local host
  for host in "${!INIT[@]}"; do
    kill_host "$host"
  done
}

# in_host HOST COMMAND...: its exit status is the command's; a signal must be sent to the command.
in_host() {
  local host=$1
  shift
  nsenter -t "${INIT[$host]}" --net --pid --uts --ipc --mount --wd="$PWD" -- "$@"
}

# switch COMMAND...: with the switch's network, but with the machine's process ids, as `ip` takes
# them for the name of a namespace.
switch() {
  nsenter -t "${INIT[switch]}" --net -- "$@"
}

# Makes the namespaces of a host.
boot() {
  local init='' ready=$DIR/$1.ready fd
  mkfifo "$ready"
  # If this shell is killed, all hosts go with it.
  setpriv --pdeathsig KILL unshare --net --pid --uts --ipc --mount --fork --kill-child \
    bash -ec '
      read -r init _ </proc/self/stat # still the /proc of the machine, and its number of us
      hostname "$1"
      mount -t proc proc /proc
      mount -t tmpfs -o mode=1777 none /dev/shm
      mount --bind "$2" /etc/hosts
      ip link set lo up
      # No traffic but what is asked for: a count of dropped frames is then a count of ours.
      for family in all default; do
        file=/proc/sys/net/ipv6/conf/$family/disable_ipv6
        [ ! -e "$file" ] || echo 1 >"$file"
      done
      echo "$init" >"$3"
      # A shell and not `sleep` alone, as an init must collect orphans.
      sleep infinity & wait' \
    init "$1" "$DIR/hosts" "$ready" </dev/null >/dev/null 2>"$DIR/$1.boot" &
  HOLDER[$1]=$!
  exec {fd}<>"$ready" # for reading alone would block for ever if nobody wrote
  read -r -t 10 -u "$fd" init || fail "no host $1: $(cat "$DIR/$1.boot")"
  exec {fd}<&-
  rm "$ready"
  INIT[$1]=$init
}

# Joins a host to the switch; the port has the host's name.
plug() {
  switch ip link add "$1" type veth peer name eth0 netns "${INIT[$1]}"
  switch ip link set "$1" master br0 up
  in_host "$1" ip addr add "${ADDRESS[$1]}/24" dev eth0
  in_host "$1" ip link set eth0 up
  # A frame that comes before the port forwards is lost, and who asked for an address waits 1 s.
  await 5 "a port of the switch that forwards, for $1" forwards "$1"
}

forwards() {
  switch bridge link show dev "$1" | grep -q 'state forwarding'
}

kill_host() {
  kill -KILL "${INIT[$1]}" 2>/dev/null
  # Returns when all processes are gone: an init ends after all others. The message that bash has
  # for a child that was killed is not wanted.
  wait "${HOLDER[$1]}" 2>/dev/null
  unset "INIT[$1]"
}

# processes HOST: the command lines of all that runs there but its init. Not zombies, which have
# no command line any more.
processes() {
  # shellcheck disable=SC2016 # the host's shell is to expand it
  in_host "$1" bash -c '
    for folder in /proc/[0-9]*; do
      [ "$folder" != "/proc/$$" ] && [ "$folder" != /proc/1 ] || continue
      mapfile -d "" words 2>/dev/null <"$folder/cmdline" || continue
      [ "${words[*]}" = "" ] || [ "${words[*]}" = "sleep infinity" ] || echo "${words[*]}"
    done
    exit 0'
}

# Faults ---------------------------------------------------------------------------------------

# one_way FROM TO: what FROM sends to TO is lost, silently; what TO sends arrives.
one_way() {
  switch nft add rule bridge faults forward \
    iifname "$1" oifname "$2" counter drop comment "\"$1 to $2\"" || fail "no fault rule"
}

# partition A B: silence between the two. What is queued by then is sent again after `heal`.
partition() {
  one_way "$1" "$2"
  one_way "$2" "$1"
}

# Ends partitions and losses. Nobody is told: a host may find a neighbour unreachable for a moment
# longer, as after a real one.
heal() {
  switch nft flush chain bridge faults forward
}

# assert_dropped: every fault rule in force has cost at least one frame.
assert_dropped() {
  local rules
  rules=$(switch nft list chain bridge faults forward | grep counter)
  echo "$rules"
  [ -n "$rules" ] || fail "no fault is in force"
  ! grep -q 'packets 0 ' <<<"$rules" || fail "a fault did not fire: $rules"
}

# delay HOST MILLISECONDS: all frames to and from HOST come that much later. A relay between the
# host's port and the switch, as many kernels come without netem.
delay() {
  switch ip link add "$1-slow" type veth peer name "$1-relay"
  switch ip link set "$1-slow" master br0 up
  switch ip link set "$1-relay" up
  in_host switch python3 "$HERE/lib/delay.py" "$1" "$1-relay" "$2" >"$DIR/delay.log" 2>&1 &
  await 5 "relay for the delay" grep -q ready "$DIR/delay.log"
  switch ip link set "$1" nomaster
  await 5 "a port of the switch that forwards, for $1" forwards "$1-slow"
}

# round_trip_ms FROM TO: how long a refusal takes that FROM gets from TO.
round_trip_ms() {
  # shellcheck disable=SC2016 # the host's shell is to expand it
  in_host "$1" bash -c '
    for attempt in 1 2; do # the first may have to ask for the address
      start=${EPOCHREALTIME/./}
      (exec 3<>"/dev/tcp/$1/9") 2>/dev/null # nobody listens there
      took=$((${EPOCHREALTIME/./} - start))
    done
    echo $((took / 1000))' _ "${ADDRESS[$2]}"
}

# crash HOST: as in a power failure, nobody gets a FIN or an RST.
crash() {
  local init=${INIT[$1]}
  switch ip link set "$1" down # first, so that what dying processes send stays in the host
  kill_host "$1"
  [ ! -e "/proc/$init" ] || fail "$1 did not crash"
}
