# SimpleChat Gateway. `make help` lists the targets; each installs the tools that it needs (make/*.mk).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

STORE ?= files
ARGS ?=
# Cargo's target directory: CARGO_TARGET_DIR, or the value in Cargo's configuration. Test tools are in target/.
BUILT = $(shell cargo metadata --locked --offline --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
# The Dockerfile names the same version of cargo-auditable.
CARGO_AUDITABLE_VERSION := 0.7.7
CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_DENY_VERSION := 0.20.2

include make/tools.mk make/release.mk make/image.mk make/fuzz.mk make/bench.mk

.PHONY: help demo test unit lint deny docs
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

ifeq ($(STORE),redis)
demo: redis
endif
demo: python ## Show a sign-in, a request and a sign-out on screen [STORE=redis] [ARGS=--once]
	cargo build --locked --bin simplechat-gateway --example demo
	$(BUILT)/debug/examples/demo --store $(STORE) $(ARGS)

test: setup lint deny unit image-lint image-try ## Install the test tools and run every check
	$(MAKE) --no-print-directory fuzz SECONDS=5
	mkdir -p target
	for store in files redis; do \
		$(BUILT)/debug/examples/demo --store $$store --once > target/demo.log || { cat target/demo.log; exit 1; }; \
	done
	@echo 'all tests passed'

unit: setup ## Run the unit and integration tests
	cargo build --locked --bin simplechat-gateway --example demo
	# --show-output prints counts: spellings, header sets, tokens, vectors, targets, forms.
	cargo test --locked --lib --test it -- --show-output

lint: ## Check formatting and run clippy
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings

deny: $(CARGO_DENY) ## Check licences, bans and sources of all crates, and that the lock files are current
	# cargo-deny reads every crate of the lock file, those of other platforms included.
	cargo fetch --quiet --locked
	$(CARGO_DENY) --offline --locked check -A license-exception-not-encountered bans licenses sources
	for package in fips tests/fuzz; do \
		cargo update --quiet --locked --workspace --manifest-path $$package/Cargo.toml \
			|| { echo "cargo update --workspace --manifest-path $$package/Cargo.toml"; exit 1; }; \
	done

docs: ## Write the settings table, openapi/gateway.json and the chart's schema from the program
	cargo build --locked --quiet --bin simplechat-gateway
	mkdir -p target
	$(BUILT)/debug/simplechat-gateway openapi > openapi/gateway.json
	$(BUILT)/debug/simplechat-gateway settings --markdown > target/settings.md
	sed -i -e '/<!-- settings -->/,/<!-- end of settings -->/{//!d}' -e '/<!-- settings -->/r target/settings.md' docs/reference/settings.md
	python3 charts/settings.py $(BUILT)/debug/simplechat-gateway
