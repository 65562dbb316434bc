# syntax=docker/dockerfile:1
# Images of the gateway (docs/deploy/images.md). `make image-check` parses this file, builds the root directory of
# the last stage and tests it; it fails on instructions that it does not know.
#
# Base images are named by tag: digests here would become outdated. Production builds pass the current digests,
# --build-arg RUST_TAG=TAG@sha256:… (docs/deploy/images.md, "Pin base images").
# The builder's glibc (Debian 12: 2.36) must not be newer than production's (Azure Linux 3.0: 2.38), because the
# binary is linked against it. Rust packages of other distributions are too old.
ARG RUST_IMAGE=docker.io/library/rust
ARG RUST_TAG=1.95.0-slim-bookworm
ARG PRODUCTION_IMAGE=mcr.microsoft.com/azurelinux/distroless/base
ARG PRODUCTION_TAG=3.0
ARG DEBUG_IMAGE=mcr.microsoft.com/azurelinux/base/core
ARG DEBUG_TAG=3.0

# Builds natively for each platform: by emulation, or on one node for each platform.
FROM ${RUST_IMAGE}:${RUST_TAG} AS builder
ARG CARGO_AUDITABLE_VERSION=0.7.7
RUN cargo install --locked --version "$CARGO_AUDITABLE_VERSION" cargo-auditable
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY src ./src
COPY templates ./templates
COPY migrations ./migrations
# The build context has no .git: this is the commit that `--version` prints.
ARG SOURCE_COMMIT=unknown
ARG TARGETARCH
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=target-${TARGETARCH} \
    SOURCE_COMMIT="$SOURCE_COMMIT" cargo auditable build --locked --release --bin simplechat-gateway \
    && install -D target/release/simplechat-gateway /out/simplechat-gateway
# A new named volume inherits the owner of its mount point.
RUN install -d -m 0700 /out/app/flask_session /out/app/flask_session.gateway /out/app/database

# The same binary, with a shell and diagnostic tools.
FROM ${DEBUG_IMAGE}:${DEBUG_TAG} AS debug
RUN tdnf install -y bind-utils ca-certificates curl iproute lsof openssl procps-ng strace tcpdump \
    && tdnf clean all
COPY --from=builder /out/simplechat-gateway /usr/local/bin/simplechat-gateway
COPY --from=builder --chown=65532:65532 /out/app /app
ARG SOURCE_COMMIT=unknown
ARG SOURCE_URL=
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="SimpleChat Gateway, with tools" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${SOURCE_COMMIT}" \
      org.opencontainers.image.source="${SOURCE_URL}" \
      org.opencontainers.image.licenses="MIT"
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/simplechat-gateway", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/simplechat-gateway"]

# No shell and no package manager: glibc, libgcc, certificates, time zones, OpenSSL (unused) and the binary.
FROM ${PRODUCTION_IMAGE}:${PRODUCTION_TAG} AS production
COPY --from=builder /out/simplechat-gateway /usr/local/bin/simplechat-gateway
COPY --from=builder --chown=65532:65532 /out/app /app
ARG SOURCE_COMMIT=unknown
ARG SOURCE_URL=
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="SimpleChat Gateway" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${SOURCE_COMMIT}" \
      org.opencontainers.image.source="${SOURCE_URL}" \
      org.opencontainers.image.licenses="MIT"
# The same user as SimpleChat's image, because both share session files. A number, for Kubernetes' runAsNonRoot.
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/simplechat-gateway", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/simplechat-gateway"]
