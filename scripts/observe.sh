#!/usr/bin/env bash
# A cluster on this machine with a Prometheus that watches it, while a sweep runs: a coordinator, two workers, the alerts of
# helm/evenkeel/rules. Ends with Ctrl-C, or after $OBSERVE_SECONDS.
#
#   scripts/observe.sh [SPEC]      the sweep (examples/synthetic-500.yaml)
#
# Ports are those of the programs' defaults: 7070 and 7080, 7071 and 7081 (the second worker: 7072 and 7082), 9090.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=${CARGO_TARGET_DIR:-$root/target}/release
spec=${1:-$root/examples/synthetic-500.yaml}
prometheus=$("$root/scripts/prometheus.sh")
work=$(mktemp -d)
pids=()

finish() {
  ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
  wait
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 0' INT TERM

start() { # start NAME COMMAND...
  local name=$1
  shift
  "$@" >"$work/$name.log" 2>&1 &
  pids+=($!)
}

until_answers() { # until_answers NAME PORT
  local tries
  for ((tries = 0; tries < 150; tries++)); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null; then return; fi
    sleep 0.2
  done
  echo "observe: $1 does not answer on port $2; its log:" >&2
  cat "$work/$1.log" >&2
  exit 1
}

cat >"$work/prometheus.yaml" <<YAML
global: {scrape_interval: 2s, evaluation_interval: 5s}
rule_files: ['$root/helm/evenkeel/rules/evenkeel.yaml']
scrape_configs:
  - job_name: evenkeel
    static_configs:
      - targets: ['127.0.0.1:7080', '127.0.0.1:7081', '127.0.0.1:7082']
YAML

start coordinator "$bin/evenkeel" coordinator --store "$work/store" --listen 127.0.0.1:7070 --http 127.0.0.1:7080
until_answers coordinator 7070
start worker-1 "$bin/evenkeel-worker" --coordinator http://127.0.0.1:7070 --name worker-1 \
  --listen 127.0.0.1:7071 --http 127.0.0.1:7081
start worker-2 "$bin/evenkeel-worker" --coordinator http://127.0.0.1:7070 --name worker-2 \
  --listen 127.0.0.1:7072 --http 127.0.0.1:7082
start prometheus "$prometheus" --config.file "$work/prometheus.yaml" --storage.tsdb.path "$work/prometheus" \
  --web.listen-address 127.0.0.1:9090
until_answers prometheus 9090
sweep=$("$bin/evenkeel" submit "$spec")

cat <<TEXT
sweep $sweep runs on two workers

  http://127.0.0.1:7080/          sweeps and their progress
  http://127.0.0.1:7080/metrics   what the coordinator says of itself (7081, 7082: the workers)
  http://127.0.0.1:9090/graph     Prometheus; http://127.0.0.1:9090/alerts for the alerts
  helm/evenkeel/dashboards        three dashboards to import into a Grafana with this Prometheus

  $bin/evenkeel status $sweep
  $bin/evenkeel workers

Ctrl-C ends everything. Results are not kept.
TEXT
if [[ -n ${OBSERVE_SECONDS:-} ]]; then
  sleep "$OBSERVE_SECONDS" &
  wait $!
else
  wait
fi
