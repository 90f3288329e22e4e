# `make` says what there is. Clusters are real Kubernetes in a network namespace of this machine (see e2e/README.md).

CARGO ?= cargo
# Errors of tests say what was expected and found; where in the harness they were made is no news.
export RUST_LIB_BACKTRACE = 0
# The cluster that `up` and `down` mean.
NAME ?= dev
HARNESS = $(CARGO) run --quiet --package tidegate-e2e --bin tidegate-e2e --

.DEFAULT_GOAL := help
.PHONY: help demo up down prune test unit e2e bench check

help:
	@echo 'make demo    the main job, shown: Git to production under load, and a bad commit back (root; KEEP=1 leaves it up)'
	@echo 'make up      start a cluster for development (NAME=dev) with Traefik, Prometheus and Git'
	@echo 'make down    take it down'
	@echo 'make prune   remove what killed runs left behind'
	@echo 'make test    all tests: unit, property, and end to end on a real cluster (root)'
	@echo 'make unit    the tests that need no cluster'
	@echo 'make e2e     the end-to-end tests (root); TESTS=name runs those whose name holds it'
	@echo 'make bench   what Rollouts cost beside plain Deployments, on simulated nodes (root; minutes);'
	@echo '             BENCH=applications: what Applications cost'
	@echo 'make check   formatting and lints'

# All binaries of the harness: the clusters' images are made from them.
.PHONY: harness
harness:
	$(CARGO) build --quiet --package tidegate-e2e

demo: harness
	$(HARNESS) demo $(if $(KEEP),--keep)

up: harness
	$(HARNESS) up --name $(NAME) --all

down:
	$(HARNESS) down --name $(NAME)

prune: harness
	$(HARNESS) prune

test: unit e2e

unit:
	$(CARGO) test --workspace --exclude tidegate-e2e
	$(CARGO) test --package tidegate-e2e --lib --bins

e2e:
	$(CARGO) build --package tidegate --bin tidegate
	$(CARGO) test --package tidegate-e2e --test e2e -- $(TESTS)

bench: harness
	$(CARGO) build --release --package tidegate --bin tidegate
	$(CARGO) run --quiet --package tidegate-e2e --bin tidegate-bench -- $(BENCH)

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- --deny warnings
