# Measurements with the release binary: throughput, logins, endurance.

PEERS := target/python/peers/ready

.PHONY: bench logins soak
# QUICK=1 takes less than three minutes; DOCS=1 writes the table and the plot of the documentation.
bench: python redis $(PEERS) ## Compare the gateway with nginx, HAProxy, Envoy, Caddy and Traefik [QUICK=1] [DOCS=1]
	command -v nginx haproxy wrk > /dev/null || { $(call install,nginx-light haproxy wrk); }
	cargo build --locked --release --bin simplechat-gateway --bench load
	load=$$(cargo build --locked --release --bench load --message-format json 2> /dev/null \
		| sed -n 's/.*"executable":"\([^"]*load-[^"]*\)".*/\1/p'); \
	GATEWAY_BINARY=$(BUILT)/release/simplechat-gateway python3 benches/run.py --load "$$load" $(if $(QUICK),--quick) $(if $(DOCS),--docs) $(ARGS)

# Without a database, over SQLite and over PostgreSQL: rate, latency, ratios.
logins: redis postgres ## Measure the cost of the activity log at 2,000 logins a second
	cargo build --locked --release --bin simplechat-gateway
	GATEWAY_BINARY=$(BUILT)/release/simplechat-gateway \
		cargo test --locked --test it -- login_rate --ignored --nocapture

# Large transfers, long streams and many connections one after another; then all clients at once, for MINUTES,
# while dependencies fail and recover. Prints figures and a verdict.
soak: setup ## Load and endurance test with failing dependencies [MINUTES=20]
	cargo build --locked --release --bin simplechat-gateway
	GATEWAY_BINARY=$(BUILT)/release/simplechat-gateway SOAK=$$(($(or $(MINUTES),10) * 60)) \
		cargo test --locked --test it -- soak autobahn endurance --nocapture --test-threads 1

$(PEERS): benches/requirements.txt | $(VENV)/ready
	$(venv)
