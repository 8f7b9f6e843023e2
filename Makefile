# What one does with this repository. `make help` lists it.
.PHONY: help test proof lint advisories screenshot bench bench-robots demo setup

# How many times larger `make proof` tests what takes time or load.
PROOF_FACTOR ?= 20

# The programs that the tests start, the tester among them, with the dependencies as the tests have them: else those would be
# built twice.
BUILD = cargo build --workspace --bins --tests --locked

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: ## the server with a camera that counts
	cargo run --release -- demo

setup: ## installs the programs that the tests need, or names them
	@tests/setup redis-server:redis-server curl:curl python3:python3 ffmpeg:ffmpeg ffprobe:ffmpeg chromium:chromium \
		chromedriver:chromium-driver motion:motion nginx:nginx-light vlc:vlc-bin,vlc-plugin-base \
		pebble:pebble certbot:certbot npm:npm node:nodejs g++:g++ cmake:cmake nasm:nasm \
		rosmaster:ros-core roslaunch:ros-core rosbag:python3-rosbag \
		/usr/lib/python3/dist-packages/sensor_msgs:python3-sensor-msgs \
		/usr/lib/python3/dist-packages/geometry_msgs:python3-geometry-msgs
	@tests/programs/setup
	@tests/programs/setup-node

test: setup ## every test
	$(BUILD)
	cargo test --workspace --locked

proof: setup ## the same tests, larger: before a release, and before an issue is called resolved
	$(BUILD)
	PROOF=$(PROOF_FACTOR) cargo test --workspace --locked

lint: ## format, lints, licences and sources of dependencies, documentation
	@tests/setup cmake:cmake nasm:nasm
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@command -v cargo-deny >/dev/null || cargo install --locked --debug cargo-deny
	cargo deny --locked --workspace check bans licenses sources
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items

advisories: ## known vulnerabilities of dependencies, where the advisory database can be reached
	@command -v cargo-deny >/dev/null || cargo install --locked --debug cargo-deny
	@cargo deny fetch db || { echo "make advisories: the advisory database cannot be reached from here; nothing was checked" >&2; exit 1; }
	cargo deny --locked --workspace check advisories

screenshot: ## the picture that the README opens with, taken anew
	@tests/setup ffmpeg:ffmpeg chromium:chromium chromedriver:chromium-driver python3:python3
	cargo build --release --locked
	python3 docs/images/wall.py

bench: ## this server beside webdis, nginx, nchan, mosquitto and a bare writer, then the parts of it alone
	@tests/setup redis-server:redis-server redis-benchmark:redis-tools webdis:webdis nginx:nginx-light wrk:wrk python3:python3 \
		mosquitto:mosquitto mosquitto_pub:mosquitto-clients \
		/usr/lib/nginx/modules/ngx_nchan_module.so:libnginx-mod-nchan
	cargo build --release --locked
	python3 benches/peers.py
	cargo bench --locked

bench-robots: ## the bridge from ROS beside the way of image_stream_server
	@tests/setup cmake:cmake nasm:nasm rosmaster:ros-core \
		/usr/lib/python3/dist-packages/sensor_msgs:python3-sensor-msgs \
		/usr/lib/python3/dist-packages/cv_bridge:python3-cv-bridge
	cargo build --release --locked --package image-streamer --package image-streamer-ros
	/usr/bin/python3 benches/robots.py
