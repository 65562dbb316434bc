# Release binary, SBOM, FIPS build.

CARGO_AUDITABLE := target/tools/bin/cargo-auditable
CARGO_CYCLONEDX := target/tools/bin/cargo-cyclonedx
SBOM := target/sbom/simplechat-gateway.cdx.json

.PHONY: release sbom fips
# The binary embeds the list of its crates, for `cargo audit bin`.
release: $(CARGO_AUDITABLE) ## Build the release binary, with an embedded list of its crates
	$(CARGO_AUDITABLE) auditable build --locked --release --bin simplechat-gateway

# CycloneDX 1.5, with the binary's hash. Fails unless the SBOM lists the crates of cargo tree exactly, and the
# binary's embedded list has at least these.
sbom: release $(CARGO_CYCLONEDX) ## Write target/sbom/simplechat-gateway.cdx.json (CycloneDX) and check it against the binary
	mkdir -p $(dir $(SBOM))
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(CARGO_CYCLONEDX) cyclonedx --quiet --format json --spec-version 1.5 --target $(HOST) --override-filename simplechat-gateway.cdx
	mv simplechat-gateway.cdx.json $(SBOM)
	python3 supply/sbom.py $(SBOM) $(BUILT)/release/simplechat-gateway $(HOST)

# Slow: about 15 minutes.
fips: redis python $(CARGO_DENY) ## Build target/fips/release/simplechat-gateway with AWS-LC's FIPS module and test it (docs/fips.md)
	command -v cmake go clang > /dev/null || { $(call install,cmake golang-go clang); }
	cargo fetch --quiet --locked --manifest-path fips/Cargo.toml
	$(CARGO_DENY) --offline --locked --manifest-path fips/Cargo.toml --config deny.toml check bans licenses sources
	cargo build --locked --release --manifest-path fips/Cargo.toml --target-dir target/fips
	GATEWAY_FIPS_BINARY=$(CURDIR)/target/fips/release/simplechat-gateway \
		cargo test --locked --test it -- fips handshake failures keys over_tls

$(CARGO_AUDITABLE):
	cargo install --locked --root target/tools --version $(CARGO_AUDITABLE_VERSION) cargo-auditable

$(CARGO_CYCLONEDX):
	cargo install --locked --root target/tools --version $(CARGO_CYCLONEDX_VERSION) cargo-cyclonedx
