# Builds on amd64 and arm64 alike, with docker or buildah and without BuildKit's own syntax:
#   docker build -t entitlement-sync .
# For both at once: docker buildx build --platform linux/amd64,linux/arm64 .

ARG RUST_VERSION=1.95.0

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /build

# Static, so that the final image needs no libc. An explicit target keeps the flag away from build scripts and procedural
# macros, which cannot be linked statically.
# Optimised as a whole, which takes longer than everyday builds should, and saves three percent of CPU.
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_RELEASE_LTO=fat \
    CARGO_INCREMENTAL=0

# The dependencies alone, with empty programs where the manifest names sources: this layer is built
# again only when the manifest or the lock changes.
COPY Cargo.toml Cargo.lock ./
COPY bench/Cargo.toml bench/
COPY core/Cargo.toml core/
COPY testkit/Cargo.toml testkit/
RUN for source in src/main.rs bench/src/main.rs core/benches/stages.rs \
        $(sed -n 's/^path = "\(.*\.rs\)"$/\1/p' Cargo.toml); do \
        mkdir -p "$(dirname "$source")" && echo 'fn main() {}' > "$source"; \
    done \
    && mkdir -p core/src testkit/src && touch src/lib.rs core/src/lib.rs testkit/src/lib.rs \
    && cargo build --locked --release --target "$(rustc --print host-tuple)"

# COPY keeps old modification times, and cargo would take the empty programs for the newer ones.
COPY core/src core/src
COPY src src
ARG REVISION=""
RUN find core src -name '*.rs' -exec touch {} + \
    && cargo build --locked --release --target "$(rustc --print host-tuple)" --bin entitlement-sync \
    && cp "target/$(rustc --print host-tuple)/release/entitlement-sync" /entitlement-sync

# Certificates, time zones and a passwd file; no shell and no package manager.
FROM gcr.io/distroless/static-debian12:nonroot

COPY --from=build /entitlement-sync /entitlement-sync

# Numeric, because Kubernetes' runAsNonRoot cannot look names up.
USER 65532:65532
EXPOSE 4000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["/entitlement-sync", "healthcheck"]
ENTRYPOINT ["/entitlement-sync"]

# Last, so that a new commit changes no layer above.
ARG VERSION=""
ARG REVISION=""
ARG CREATED=""
LABEL org.opencontainers.image.title="entitlement-sync" \
      org.opencontainers.image.description="Keeps the Redis keys that Stigg's server SDK reads up to date from an AWS SQS queue" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="gcr.io/distroless/static-debian12:nonroot"
