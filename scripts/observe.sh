#!/usr/bin/env bash
# A cluster on this machine with a Prometheus and the page of Jaeger that watch it, while a sweep runs: a coordinator, two
# workers, the alerts of helm/evenkeel/rules. Ends with Ctrl-C, or after $OBSERVE_SECONDS.
#
#   scripts/observe.sh [SPEC]      the sweep (examples/synthetic-500.yaml)
#   SICK=1                         a third worker, which cannot keep what sweeps with small encoders need: it fails them
#
# Ports are those of the programs' defaults: 7070 and 7080, 7071 and 7081 (further workers: 7072 and 7082, 7073 and 7083), 9090
# for Prometheus, 16686 and 4317 for traces.
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
      - targets: [$(printf "'127.0.0.1:%s'," 7080 7081 7082 ${SICK:+7083})]
YAML

start traces "$bin/traces" 127.0.0.1:16686 127.0.0.1:4317
until_answers traces 4317
export OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://127.0.0.1:4317 OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=grpc
start coordinator "$bin/evenkeel" coordinator --store "$work/store" --listen 127.0.0.1:7070 --http 127.0.0.1:7080 \
  --trace-url 'http://127.0.0.1:16686/trace/{trace_id}'
until_answers coordinator 7070
worker() { # worker NUMBER STORE NAME
  start "$3" "$bin/evenkeel-worker" --coordinator http://127.0.0.1:7070 --name "$3" --store "$2" \
    --listen "127.0.0.1:707$1" --http "127.0.0.1:708$1"
}
worker 1 "$work/store" worker-1
worker 2 "$work/store" worker-2
if [[ -n ${SICK:-} ]]; then
  mkdir "$work/broken"
  echo 'in the way' >"$work/broken/encoders"
  worker 3 "$work/broken" sick
fi
start prometheus "$prometheus" --config.file "$work/prometheus.yaml" --storage.tsdb.path "$work/prometheus" \
  --web.listen-address 127.0.0.1:9090 --enable-feature exemplar-storage
until_answers prometheus 9090
sweep=$("$bin/evenkeel" submit "$spec")

cat <<TEXT
sweep $sweep runs

  http://127.0.0.1:7080/          sweeps, their progress and figures, workers
  http://127.0.0.1:16686/         traces, in the page of Jaeger; this sweep's is
  $("$bin/evenkeel" trace "$sweep")
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
