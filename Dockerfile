# Two images from one build: `docker build --target server .` and `docker build --target tester .`
# The classic builder is enough, BuildKit is not needed.

# Not the slim one: jemalloc is built with make.
FROM rust:1-bookworm AS build
WORKDIR /build

# On ARM, kernels differ in the size of a page, and jemalloc takes the build machine's for granted: what is built for the
# largest runs on all of them (a Raspberry Pi 5 has 16 KiB, others 4 or 64).
RUN [ "$(uname -m)" != aarch64 ] || printf '[env]\nJEMALLOC_SYS_WITH_LG_PAGE = "16"\n' >> "$CARGO_HOME/config.toml"

# The dependencies get a layer of their own, made anew only when a manifest or Cargo.lock changes: they are compiled with
# empty sources in the place of ours. Tests and benches are not built here, and Cargo may refuse a manifest that names
# files which are not there: their sections are cut out.
COPY Cargo.toml Cargo.lock ./
COPY tester/Cargo.toml tester/
# The bridge from ROS has a Dockerfile of its own (ros-bridge/Dockerfile); here only the workspace names it.
COPY ros-bridge/Cargo.toml ros-bridge/
# What the empty sources gave is removed at the end: copied files keep their times, so Cargo would take it for newer than
# the real sources and not build those.
RUN awk '/^\[/ { cut = /^\[\[(bench|example|test)\]\]/ } !cut' Cargo.toml > Cargo.toml.cut \
    && mv Cargo.toml.cut Cargo.toml \
    && mkdir src tester/src ros-bridge/src \
    && touch src/lib.rs \
    && echo 'fn main() {}' | tee src/main.rs ros-bridge/src/main.rs > tester/src/main.rs \
    && cargo build --release --locked --package image-streamer --package image-streamer-tester \
    && cargo clean --release --locked --package image-streamer --package image-streamer-tester

COPY askama.toml ./
COPY fonts fonts
COPY src src
COPY tester/src tester/src
RUN cargo build --release --locked --package image-streamer --package image-streamer-tester


# Before the server: the classic builder makes every stage on the way to its target, and a build without a target is to
# give the server.
FROM debian:bookworm-slim AS tester
COPY --from=build /build/target/release/image-streamer-tester /usr/local/bin/
USER 65532:65532
# It handles no signals, and the kernel gives process 1 of a container none that it does not handle: SIGTERM would only
# be waited out. It has nothing to finish.
STOPSIGNAL SIGKILL
ENTRYPOINT ["image-streamer-tester"]


FROM debian:bookworm-slim AS server
# The roots that a rediss:// server's certificate is checked against: the bundle is all that is needed of the package.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /build/target/release/image-streamer /usr/local/bin/
# By number, so that an orchestrator can see that it is not root. Nothing in the image belongs to it.
USER 65532:65532
EXPOSE 3000
# The check gives up by itself after 3 s; a timeout above that lets it say why.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["image-streamer", "healthcheck"]
ENTRYPOINT ["image-streamer"]
