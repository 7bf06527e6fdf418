#!/usr/bin/env bash
# Start a private SLURM for the tests (Debian's packages, root; no systemd, no cgroups): one node, and a second
# on the same machine that only the partition `pair` has.
# Configuration, state, logs, sockets and pids live under $SLURM_ROOT; the machine's own are not touched.
#   SLURM_ROOT=/tmp/x tests/slurm/cluster_up.sh && . /tmp/x/env.sh     sbatch, srun, sacct work now
#   SLURM_ROOT=/tmp/x tests/slurm/cluster_down.sh --purge              ends what this started, no more
# Called again while it is up, it starts those daemons that are missing.
set -euo pipefail
ROOT=${SLURM_ROOT:?where the cluster lives}
CPUS=${SLURM_CPUS:-8} MEM=${SLURM_MEM_MB:-8000} GPUS=${SLURM_GPUS:-2}   # advertised, not real
ACCT=${SLURM_ACCT:-1}                       # 1: mariadbd + slurmdbd, so that sacct works (submitit needs it)
CTLD=${SLURM_PORT_BASE:-16817}; SLURMD=$((CTLD + 1)) DBD=$((CTLD + 2)) SQL=$((CTLD + 3)) SLURMD2=$((CTLD + 4))
HOST=$(hostname -s) PAIR=${HOST}-2 T0=${EPOCHREALTIME/[.,]/}
export SLURM_CONF=$ROOT/etc/slurm.conf
say() { local d=$(((${EPOCHREALTIME/[.,]/} - T0) / 100000)); echo "[cluster $((d / 10)).$((d % 10))s] $*"; }
die() { say "FAILED: $*"; for f in "$ROOT"/log/*.log; do echo "== $f"; tail -n 12 "$f"; done; exit 1; } >&2
alive() { [ -s "$1" ] && [[ $(ps -o stat= -p "$(cat "$1")" 2>/dev/null) =~ ^[^Z] ]]; }   # a zombie is dead
wait_for() { local n=$(($1 * 10)) i; shift; for ((i = 0; i < n; i++)); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; return 1; }
port() { bash -c "exec 3<>/dev/tcp/127.0.0.1/$1"; }

# 1. packages -----------------------------------------------------------------------------------------
pkgs=(munge slurmctld slurmd slurm-client procps); [ "$ACCT" != 1 ] || pkgs+=(slurmdbd mariadb-server-core mariadb-client-core)
need=(); for p in "${pkgs[@]}"; do dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || need+=("$p"); done
if [ ${#need[@]} -gt 0 ]; then
  deny=/usr/sbin/policy-rc.d made=             # do not let the packages start daemons of their own
  [ -e $deny ] || { printf '#!/bin/sh\nexit 101\n' >$deny; chmod +x $deny; made=1; }
  log=$(mktemp); { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${need[@]}"; } >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
  [ -z "$made" ] || rm -f $deny
fi
say "packages ready: $(slurmctld -V), newly installed: ${need[*]:-none}"

# 2. configuration (written once) ----------------------------------------------
mkdir -p "$ROOT"/{etc,run,log,ctld,slurmd,mysql}; chmod 755 "$ROOT" "$ROOT"/{etc,run,log}
echo "export SLURM_CONF=$SLURM_CONF SLURM_ROOT=$ROOT" >"$ROOT/env.sh"
[ -s "$ROOT/etc/munge.key" ] || (umask 277; head -c 128 /dev/urandom >"$ROOT/etc/munge.key")
if [ ! -s "$SLURM_CONF" ]; then
  gres= node= acct="AccountingStorageType=accounting_storage/none" devs=(null zero full random)
  : >"$ROOT/etc/gres.conf"; for ((g = 0; g < GPUS; g++)); do echo "Name=gpu File=/dev/${devs[g]}" >>"$ROOT/etc/gres.conf"; done
  [ "$GPUS" = 0 ] || { gres="GresTypes=gpu"; node="Gres=gpu:$GPUS"; }
  [ "$ACCT" != 1 ] || acct="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBD
AccountingStoragePass=$ROOT/run/munge.socket
AccountingStorageEnforce=associations,limits,qos
${gres:+AccountingStorageTRES=gres/gpu}"
  cat >"$SLURM_CONF" <<CONF
ClusterName=ci
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$CTLD
SlurmdPort=$SLURMD
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$ROOT/run/munge.socket,cred_expire=5
SlurmctldPidFile=$ROOT/run/slurmctld.pid
SlurmdPidFile=$ROOT/run/slurmd-%n.pid
SlurmctldLogFile=$ROOT/log/slurmctld.log
SlurmdLogFile=$ROOT/log/slurmd-%n.log
StateSaveLocation=$ROOT/ctld
SlurmdSpoolDir=$ROOT/slurmd/%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=$((MEM / CPUS))
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,bf_interval=2,sched_interval=2
MaxArraySize=9
FirstJobId=$(($(date +%s) % 600000 * 100 + 1))
ReturnToService=2
JobRequeue=1
KillWait=5
OverTimeLimit=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
$acct
$gres
NodeName=$HOST NodeAddr=127.0.0.1 Port=$SLURMD CPUs=$CPUS RealMemory=$MEM $node State=UNKNOWN
NodeName=$PAIR NodeAddr=127.0.0.1 Port=$SLURMD2 CPUs=2 RealMemory=$MEM State=UNKNOWN
PartitionName=main Nodes=$HOST Default=YES DefaultTime=60 MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=$HOST DefaultTime=60 MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=pair Nodes=ALL DefaultTime=60 MaxTime=INFINITE State=UP
CONF
  (umask 077; cat >"$ROOT/etc/slurmdbd.conf") <<CONF
AuthType=auth/munge
AuthInfo=socket=$ROOT/run/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$DBD
SlurmUser=root
LogFile=$ROOT/log/slurmdbd.log
PidFile=$ROOT/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$SQL
StorageUser=slurm
StoragePass=slurm
CONF
fi

# 3. daemons (each skipped if alive) --------------------------------------------------------------------
alive "$ROOT/run/munged.pid" || munged --key-file="$ROOT/etc/munge.key" --socket="$ROOT/run/munge.socket" \
  --pid-file="$ROOT/run/munged.pid" --seed-file="$ROOT/run/munged.seed" --log-file="$ROOT/log/munged.log" || die munged
if [ "$ACCT" = 1 ]; then
  if ! alive "$ROOT/run/mariadbd.pid"; then
    [ -d "$ROOT/mysql/mysql" ] || mariadb-install-db --no-defaults --user=root --datadir="$ROOT/mysql" --skip-test-db >"$ROOT/log/mariadb-install.log" 2>&1 || die mariadb-install-db
    printf '%s;\n' "CREATE USER IF NOT EXISTS slurm@'127.0.0.1' IDENTIFIED BY 'slurm'" "GRANT ALL ON slurm_acct_db.* TO slurm@'127.0.0.1'" >"$ROOT/etc/init.sql"  # one statement a line
    setsid mariadbd --no-defaults --user=root --datadir="$ROOT/mysql" --socket="$ROOT/run/mysql.sock" --pid-file="$ROOT/run/mariadbd.pid" \
      --bind-address=127.0.0.1 --port=$SQL --skip-name-resolve --init-file="$ROOT/etc/init.sql" --innodb-buffer-pool-size=64M \
      --innodb-lock-wait-timeout=900 </dev/null >"$ROOT/log/mariadbd.log" 2>&1 &
    wait_for 60 port $SQL || die mariadbd
  fi
  alive "$ROOT/run/slurmdbd.pid" || slurmdbd || die slurmdbd
  wait_for 60 port $DBD || die "slurmdbd does not listen"
  [ -e "$ROOT/etc/users" ] || {   # a user may submit no more than three jobs under the QOS `few`
    for what in "add cluster ci" "add qos few MaxSubmitJobsPerUser=3" "modify user root set qos+=few"; do
      sacctmgr -iQ $what >>"$ROOT/log/sacctmgr.log" 2>&1 || die "sacctmgr $what"
    done; touch "$ROOT/etc/users"; }
fi
alive "$ROOT/run/slurmctld.pid" || slurmctld || die slurmctld
for n in "$HOST" "$PAIR"; do alive "$ROOT/run/slurmd-$n.pid" || slurmd -N "$n" || die "slurmd of $n"; done
wait_for 60 sh -c 'sinfo -h -p main -o %T | grep -qE "^(idle|mixed|allocated)"' || die "node not up: $(sinfo -h -N -o '%N %T %E')"
say "up: $(sinfo -h -p main -o '%N %T cpus=%c mem=%m gres=%G')"
timeout 30 srun -Q true || die "srun"; say "first job done"
[ "$ACCT" != 1 ] || { wait_for 30 sh -c 'sacct -n -X | grep -q .' || die "sacct shows no job"; say "sacct shows it"; }
