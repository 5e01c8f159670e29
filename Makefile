# Everything here works on a fresh machine: each target first sets up what it needs, and skips what is there already.
# `make` alone says what there is.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
MAKEFLAGS += --no-print-directory

CARGO ?= cargo
BIN := $(or $(CARGO_TARGET_DIR),target)/release
# Where rustup puts cargo, for shells that were opened before it was installed.
export PATH := $(PATH):$(HOME)/.cargo/bin

.PHONY: help setup data build quickstart test lint bench images observe chaos soak upgrade fuzz clean

help: ## Say what there is to make (this text)
	@echo 'Evenkeel: sweeps that measure how stable fine-tuning is, on one machine or on many.'
	@echo
	@echo 'First time here? Run `make quickstart`. It needs Rust (rustup) and nothing else; the first time takes some'
	@echo 'minutes, most of it compiling, and it ends with a table and the path of a report to open in a browser.'
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo 'Your own sweep, after `make build`:'
	@echo '  $(BIN)/evenkeel plan my.yaml                  what it would run, and what that costs'
	@echo '  $(BIN)/evenkeel run my.yaml --out out/mine    run it here; the same line again resumes it'
	@echo
	@echo 'Settings (environment):'
	@echo '  LIBTORCH=/path    use this libtorch 2.11.0, or the torch directory of a Python environment (CUDA)'
	@echo '  ETCD_BIN=/path    test against this etcd'
	@echo '  MOTO_BIN=/path    test against this moto_server (S3)'
	@echo '  PROMETHEUS_BIN=/path  test dashboards and alerts against this prometheus'
	@echo '  KUBERNETES_TOOLS=/path  test the chart with these: helm, schemas (see scripts/kubernetes.sh)'
	@echo '  ENGINE=podman     build images with this, docker or podman; scripts/images.sh names the other settings'
	@echo '  CHROMIUM=/path    look at reports with this Chromium in tests'

setup: ## Install what is missing: compiler, Python, libtorch (CPU, in .deps/)
	@scripts/system.sh
	@scripts/protoc.sh
	@scripts/libtorch.sh

data: ## Download small public data sets and a small encoder into .deps/data, for examples and tests
	@scripts/system.sh
	@scripts/examples-data.sh
	@scripts/text-data.sh

build: setup ## Compile the release binaries evenkeel and evenkeel-worker
	@echo '==> building $(BIN)/evenkeel and $(BIN)/evenkeel-worker'
	@$(CARGO) build --locked --release --workspace --bins

quickstart: build data ## Run a small synthetic sweep on this machine and write its report
	@echo '==> running examples/quickstart.yaml'
	@$(BIN)/evenkeel run examples/quickstart.yaml --out out/quickstart

test: setup data ## Run all tests, also those with real processes, a real etcd and a server of S3
	@echo '==> building the binaries and the tests'
	@$(CARGO) build --locked --release --workspace --bins --tests
	@etcd=$$(scripts/etcd.sh); chromium=$$(scripts/chromium.sh); moto=$$(scripts/moto.sh); \
	  prometheus=$$(scripts/prometheus.sh); kubernetes=$$(scripts/kubernetes.sh); \
	  echo "==> testing (etcd: $$etcd, chromium: $${chromium:-none}, S3: $$moto, Prometheus: $$prometheus, helm: $${kubernetes:-none})"; \
	  ETCD_BIN=$$etcd CHROMIUM=$$chromium MOTO_BIN=$$moto PROMETHEUS_BIN=$$prometheus KUBERNETES_TOOLS=$$kubernetes \
	  $(CARGO) test --locked --release --workspace

lint: setup ## Check formatting, clippy (warnings are errors), licences of dependencies, scripts and Dockerfiles
	@echo '==> formatting'
	@$(CARGO) fmt --all --check
	@echo '==> clippy'
	@$(CARGO) clippy --locked --release --workspace --all-targets -- -D warnings
	@echo '==> licences'
	@python3 scripts/licences.py
	@echo '==> table of the values of the chart'
	@python3 scripts/values_reference.py --check
	@echo '==> scripts and Dockerfiles'
	@shellcheck=$$(scripts/checkers.sh shellcheck); $$shellcheck --external-sources scripts/*.sh .ci/run
	@hadolint=$$(scripts/checkers.sh hadolint); $$hadolint coordinator/Dockerfile worker/Dockerfile

bench: build ## Measure: trials a second, scheduling, time to recover
	@echo '==> benchmarks'
	@etcd=$$(scripts/etcd.sh); \
	  ETCD_BIN=$$etcd $(BIN)/bench

ONLY ?=
images: ## Build the container images with docker or podman (ONLY='coordinator worker worker-cuda' REGISTRY=… PUSH=1)
	@scripts/images.sh $(ONLY)

WATCHED ?= examples/synthetic-500.yaml
observe: build ## Run a small cluster with Prometheus and Jaeger beside it, while a sweep runs (WATCHED=spec SICK=1); Ctrl-C ends it
	@SICK=$(SICK) scripts/observe.sh $(WATCHED)

ROUNDS ?= 3
SEED ?= 1
chaos: build ## Kill and freeze a cluster of real processes while it works (ROUNDS=3 SEED=1), and compare its results
	@etcd=$$(scripts/etcd.sh); \
	  ETCD_BIN=$$etcd $(BIN)/chaos $(ROUNDS) $(SEED)

FROM ?= HEAD~1
upgrade: setup ## Begin a sweep with the programs of an earlier commit and finish it with these (FROM=HEAD~1)
	@echo '==> building'
	@$(CARGO) build --locked --release --workspace --bins --tests
	@previous=$$(scripts/previous.sh $(FROM)); \
	  EVENKEEL_PREVIOUS=$$previous $(CARGO) test --locked --release --workspace --test upgrade

INPUT ?= spec
SECONDS ?= 60
fuzz: setup ## Fuzz what comes from outside (INPUT=spec csv parquet npy tsv json_lines records message, SECONDS=60); needs rustup's nightly
	@$(CARGO) fuzz --version >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	@cp Cargo.lock fuzz/Cargo.lock
	@$(CARGO) +nightly fuzz run --sanitizer none $(INPUT) -- -max_total_time=$(SECONDS) -rss_limit_mb=4096

SEEDS ?= 2000
START ?= 1
soak: setup ## Simulate clusters under faults (SEEDS=2000 START=1); what fails is replayed by its seed (START=seed SEEDS=1)
	@echo '==> building the simulation'
	@$(CARGO) build --locked --release --workspace --test simulation
	@echo '==> simulating $(SEEDS) clusters, from seed $(START) on'
	@START=$(START) SEEDS=$(SEEDS) $(CARGO) test --locked --release --workspace --test simulation -- \
	  --nocapture --exact no_seed_breaks_an_invariant

clean: ## Delete what was built and the results in out/ (not .deps/: delete that by hand)
	@echo '==> removing target/ and out/'
	@$(CARGO) clean
	@rm -rf out
