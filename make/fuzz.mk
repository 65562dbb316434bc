# Fuzzing with libFuzzer and coverage, on stable Rust: every parser of external bytes, one core each.

FUZZED := wire target origin token form keys stored pickle cookie settings
FUZZER = target/fuzz/$(HOST)/release/fuzz
MINUTES ?=
SECONDS ?= $(if $(MINUTES),$(shell echo $$(($(MINUTES) * 60))),20)

.PHONY: fuzz corpus
fuzz: export RUSTC_WRAPPER := $(CURDIR)/tests/fuzz/instrumented
fuzz: ## Fuzz every parser for SECONDS each (default 20) [MINUTES=10]
	command -v c++ > /dev/null || { $(call install,g++); }
	cargo build --locked --release --manifest-path tests/fuzz/Cargo.toml --target-dir target/fuzz --target $(HOST)
	for part in $(FUZZED); do \
		mkdir -p target/fuzz/corpus/$$part tests/fuzz/seeds/$$part; \
		[ ! -e tests/fuzz/corpus/$$part.tar.gz ] || tar -xzf tests/fuzz/corpus/$$part.tar.gz -C target/fuzz/corpus/$$part; \
	done
	printf '%s\n' $(FUZZED) | xargs -P $$(nproc) -I@ sh -c 'PART=@ $(FUZZER) -max_total_time=$(SECONDS) -max_len=4096 \
		-timeout=10 -artifact_prefix=target/fuzz/@- target/fuzz/corpus/@ tests/fuzz/seeds/@ 2> target/fuzz/@.log \
		&& echo "@: $$(tail -n 1 target/fuzz/@.log)" || { tail -n 40 target/fuzz/@.log; exit 255; }'

corpus: ## Minimize the inputs that fuzzing found and save them in tests/fuzz/corpus
	for part in $(FUZZED); do \
		rm -rf target/fuzz/merged; mkdir -p target/fuzz/merged; \
		PART=$$part $(FUZZER) -merge=1 -max_len=512 target/fuzz/merged tests/fuzz/seeds/$$part \
			target/fuzz/corpus/$$part 2> target/fuzz/$$part.log; \
		tar --sort=name --owner=0 --group=0 --mtime=@0 -C target/fuzz/merged -czf tests/fuzz/corpus/$$part.tar.gz .; \
	done
