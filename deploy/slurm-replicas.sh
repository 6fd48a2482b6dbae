#!/bin/bash
# The server on all GPUs of a SLURM allocation, by Ray. Arguments are those of the server:
#
#   . .venv/bin/activate
#   sbatch --nodes=2 --gpus-per-node=8 deploy/slurm-replicas.sh checkpoints large --fast --furious
#
# All nodes need the same folders: the environment with the extra `ray`, and this project. The server listens on the
# first node, for programs of that node alone; with `--host 0.0.0.0 --api_key_file FILE` for others.
# `scancel --batch --signal=TERM JOB` lets it answer what it has before it ends. docs/deployment.md says more.
#
#SBATCH --job-name=sam2-amg
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --no-kill
#SBATCH --signal=B:TERM@90
set -euo pipefail

: "${SLURM_JOB_ID:?is not set: submit this script with sbatch}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')
export RAY_AUTH_TOKEN

# Ray ends with the job, whose processes SLURM ends.
ip=$(python -c 'import ray; print(ray.util.get_node_ip_address())')
address="$ip:$((20000 + SLURM_JOB_ID % 10000))"
echo "Ray: $address, on $SLURM_JOB_NUM_NODES nodes with $SLURM_GPUS_ON_NODE GPUs each"
ray start --head --node-ip-address="$ip" --port="${address##*:}" --include-dashboard=false \
  --object-store-memory=1000000000
others=$((SLURM_JOB_NUM_NODES - 1))
if ((others > 0)); then
  srun --relative=1 --nodes="$others" --ntasks="$others" --cpus-per-task="$SLURM_CPUS_ON_NODE" --cpu-bind=none \
    --no-kill --kill-on-bad-exit=0 ray start --address="$address" --object-store-memory=1000000000 --block &
fi

sam2-amg serve "$@" --ray_address "$address" --replicas "$((SLURM_JOB_NUM_NODES * SLURM_GPUS_ON_NODE))" &
server=$!
trap 'kill -TERM "$server"' INT TERM
status=0
wait "$server" || status=$?
if kill -0 "$server" 2>/dev/null; then # a signal has ended the first wait, and the server drains
  status=0
  wait "$server" || status=$?
fi
exit "$status"
