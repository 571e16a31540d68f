# The image of the service: one binary on a base without a shell. tests/it/deployment/ checks this file, and
# deploy/rootfs.sh assembles what the last stage holds and runs it.

FROM rust:1.95.0-slim-bookworm AS dependencies
WORKDIR /build
# rust-toolchain.toml stays outside: it names a channel, which rustup would download. The image's own compiler is meant.
COPY Cargo.toml Cargo.lock ./
# The crates alone, in a layer that lasts until Cargo.lock changes. Cargo wants to see every target that Cargo.toml
# names. Our own crate is forgotten again: by their dates the real sources may be older than these.
RUN mkdir -p src benches/queue benches/peers examples \
    && touch src/lib.rs \
    && for main in src/main.rs benches/queue/main.rs benches/peers/adapter.rs \
        examples/custom_handler.rs examples/enqueue_in_transaction.rs; do echo 'fn main() {}' > $main; done \
    && cargo build --release --locked --bin task-processor \
    && cargo clean --release --package task-processor

FROM dependencies AS build
COPY migrations migrations
# The documentation of the crate is the README.
COPY README.md ./
COPY src src
RUN cargo build --release --locked --bin task-processor

# glibc, libgcc, CA certificates, time zones and the user 65532, and nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /build/target/release/task-processor /usr/local/bin/task-processor
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
# For Docker; Cloud Run has probes of its own.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/usr/local/bin/task-processor", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/task-processor"]
CMD ["serve"]
