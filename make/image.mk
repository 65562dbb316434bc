# Checks of the Dockerfile and of the production image's root directory, without a container engine.

.PHONY: image-lint image-check image-try
image-lint: $(IMAGE_TOOLS) $(CHECKOV) ## Lint the Dockerfile with hadolint and checkov
	target/python/hadolint/bin/hadolint --failure-threshold style Dockerfile
	# checkov also succeeds for a file that it cannot parse: require at least one passed check.
	target/python/checkov/bin/checkov --skip-download --compact --quiet --framework dockerfile -f Dockerfile > target/checkov.log \
		&& grep -H 'Passed checks: [1-9][0-9]*, Failed checks: 0' target/checkov.log || { cat target/checkov.log; exit 1; }

image-check: release python redis ## As root: run the release binary in the production image's root directory and test it
	# Not in a user namespace: there is no user 65532 in one.
	$(may_change_root) || { echo 'image-check mounts and changes root: run it as root'; exit 1; }
	$(call play_image,$(BUILT)/release/simplechat-gateway,handshake:: commands::check commands::healthcheck)

image-try: unit ## Run the image tests with the debug binary; skipped without root
	if $(may_change_root); then \
		$(call play_image,$(BUILT)/debug/simplechat-gateway); \
	else \
		echo 'SKIPPED: the production root is not tried without root; sudo make image-check does'; \
	fi

may_change_root = [ "$$(id -u)" = 0 ] && unshare --mount true

# Prints one verdict a line; fails if one of them is not ok.
play_image = python3 tests/image/root.py $(1) target/image/root && \
	GATEWAY_IMAGE=1 cargo test --locked --quiet --test it -- --include-ignored --format pretty image:: $(2)
