#!/usr/bin/env bash
# A real Slurm of two nodes on this machine, in one folder: munged, slurmctld and two slurmd, as root.
#
#   tests/slurm/cluster.sh start FOLDER    writes FOLDER/slurm.conf and starts the daemons
#   tests/slurm/cluster.sh stop FOLDER     stops exactly those
#
# Commands find the cluster by SLURM_CONF=FOLDER/slurm.conf and, first in PATH, FOLDER/bin: Snakemake takes SLURM_CONF
# away from the `srun` within a job, which otherwise reads /etc/slurm. Nothing in /etc is read or changed, and nothing else that
# runs here is touched. Memory limits are enforced by accounting (JobAcctGather), which needs no cgroups.
set -euo pipefail

MEMORY_MB=6000 # of each node; what is said to jobs, not a promise of the machine
CPUS=2         # of each node, however many the machine has

start() {
  local folder=$1 host
  host=$(hostname -s)
  mkdir -p "$folder"/{bin,state,spool1,spool2,log}
  folder=$(cd "$folder" && pwd)
  printf '#!/bin/sh\nSLURM_CONF=%q exec %q "$@"\n' "$folder/slurm.conf" "$(command -v srun)" >"$folder/bin/srun"
  chmod +x "$folder/bin/srun"
  head -c 1024 /dev/urandom >"$folder/munge.key"
  chmod 400 "$folder/munge.key"
  munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
    --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed" --force
  cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
CryptoType=crypto/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd-%n.log
PluginDir=/usr/lib/$(uname -m)-linux-gnu/slurm-wlm
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
MinJobAge=3600
KillWait=5
MpiDefault=none
ReturnToService=2
NodeName=1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((PORT + 1)) CPUs=$CPUS RealMemory=$MEMORY_MB
NodeName=2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((PORT + 2)) CPUs=$CPUS RealMemory=$MEMORY_MB
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
CONF
  export SLURM_CONF=$folder/slurm.conf
  slurmctld
  slurmd -N 1
  slurmd -N 2
  for _ in $(seq 40); do
    [[ $(sinfo -h -t idle -o %D 2>/dev/null) == 2 ]] && return
    sleep 0.5
  done
  echo "error: the cluster did not come up; see $folder/log" >&2
  return 1
}
stop() {
  local folder=$1 pid file
  SLURM_CONF=$folder/slurm.conf scancel --partition main 2>/dev/null || true
  for file in "$folder"/slurmd-*.pid "$folder"/slurmctld.pid "$folder"/munged.pid; do
    [[ -f $file ]] || continue
    pid=$(<"$file")
    kill "$pid" 2>/dev/null || continue
    for _ in $(seq 40); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.25
    done
  done
}

PORT=${SLURM_TEST_PORT:-16817} # and the two after it
case ${1-} in
  start | stop) "$1" "${2:?FOLDER}" ;;
  *) sed -n '2,/^set/s/^# \?//p' "$0" >&2 && exit 2 ;;
esac
