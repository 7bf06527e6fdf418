#!/usr/bin/env bash
# End the cluster that cluster_up.sh started: cancel its jobs, then end the pids in $SLURM_ROOT/run/*.pid, and only
# those that still are the daemon named.  --purge: also delete $SLURM_ROOT (the next start is then from nothing).
set -uo pipefail
ROOT=${SLURM_ROOT:?where the cluster lives}; export SLURM_CONF=$ROOT/etc/slurm.conf
is_ours() { [[ $(ps -o stat= -p "$1" 2>/dev/null) =~ ^[^Z] && $(readlink "/proc/$1/exe") == */$2* ]]; }
if [ -s "$ROOT/run/slurmctld.pid" ] && is_ours "$(cat "$ROOT/run/slurmctld.pid")" slurmctld; then
  timeout 10 squeue -h -o %A | sort -u | xargs -r timeout 10 scancel
  for ((i = 0; i < 75; i++)); do [ -z "$(timeout 5 squeue -h)" ] && break; sleep 0.2; done
fi
for f in "$ROOT"/run/{slurmd-*,slurmctld,slurmdbd,mariadbd,munged}.pid; do
  [ -s "$f" ] || continue; p=$(cat "$f") d=${f##*/}; d=${d%.pid} d=${d%%-*}
  if is_ours "$p" $d; then
    kill "$p"; for ((i = 0; i < 150; i++)); do is_ours "$p" $d || break; sleep 0.1; done
    is_ours "$p" $d && { echo "$d ($p) ignores SIGTERM: SIGKILL"; kill -9 "$p"; }
    echo "$d ($p) ended"
  fi
  rm -f "$f"
done
if [ "${1:-}" = --purge ]; then case $ROOT in /*/?*) rm -rf "$ROOT" ;; esac; fi
exit 0
