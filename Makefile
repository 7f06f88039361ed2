# What people and continuous integration run. `make` lists the targets.

CARGO ?= cargo
IMAGE ?= hookcast
CONTAINER ?= $(firstword $(shell command -v docker podman buildah) docker)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# What build and tests need besides Rust: a C compiler for SQLite and the cryptography, Python with virtual environments for
# an upstream and judges that are not ours, and the roots that TLS trusts.
missing = $(if $(shell command -v cc),,gcc libc6-dev) $(if $(shell command -v python3),,python3) \
	$(if $(shell python3 -c 'import ensurepip, venv; print(1)' 2>/dev/null),,python3-venv) \
	$(if $(wildcard /etc/ssl/certs/ca-certificates.crt),,ca-certificates)

# Programs that tests talk to or through.
absent = $(if $(shell command -v curl),,curl) $(if $(shell command -v jq),,jq) $(if $(shell command -v chromium),,chromium) \
	$(if $(wildcard /usr/sbin/nginx),,nginx-light) $(if $(wildcard /usr/lib/nginx/modules/ngx_nchan_module.so),,libnginx-mod-nchan) \
	$(if $(wildcard /usr/sbin/haproxy),,haproxy) $(if $(wildcard /usr/sbin/varnishd),,varnish) \
	$(if $(shell command -v pushpin),,pushpin)

export CARGO_INCREMENTAL ?= 0

# Counts instructions under valgrind; its version is that of the library in Cargo.lock.
GUNGRAUN = $(shell sed -n '/^name = "gungraun"$$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
TOOLS := $(CURDIR)/target/tools
counting = $(if $(shell command -v valgrind),,valgrind libc6-dbg)

.PHONY: help needs tools fmt clippy doc deny lint counts test bench image

help:
	@echo "make test    everything that must pass before a change is merged"
	@echo "make tools   clients, servers and judges that are not ours, for the tests; libraries under target/tools"
	@echo "make counts  instruction counts of the hot functions, each against the most that it may cost"
	@echo "make lint    formatting, clippy, documentation links; licences and advisories where cargo-deny is there"
	@echo "make bench   what the relay costs on this machine, beside the limits measured in the same run"
	@echo "make image   the container image '$(IMAGE)'"

needs:
	@if [ -n "$(strip $(missing))" ]; then \
		$(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(missing); \
	fi

# What is not ours and tests need: judges of deliveries, clients and servers of streams, proxies, a browser.
tools: needs $(TOOLS)/py/installed $(TOOLS)/node/installed
	@if [ -n "$(strip $(absent))" ]; then \
		$(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(absent); \
	fi

$(TOOLS)/py/installed: tests/tools/requirements.txt
	python3 -m venv $(TOOLS)/py
	$(TOOLS)/py/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

$(TOOLS)/node/installed: tests/tools/package.json tests/tools/package-lock.json
	@if ! command -v npm >/dev/null; then \
		$(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends nodejs npm; \
	fi
	mkdir -p $(TOOLS)/node && cp $^ $(TOOLS)/node/
	cd $(TOOLS)/node && npm ci --silent --no-audit --no-fund
	touch $@

fmt:
	@if $(CARGO) fmt --version >/dev/null 2>&1; then $(CARGO) fmt --check; else echo "rustfmt is not there: skipped"; fi

clippy: needs
	@if $(CARGO) clippy --version >/dev/null 2>&1; then \
		$(CARGO) clippy --locked --release --all-targets -- -D warnings; \
	else echo "clippy is not there: skipped"; fi

doc: needs
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --release --no-deps --quiet

deny:
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check; else echo "cargo-deny is not there: skipped"; fi

lint: fmt clippy doc deny

$(TOOLS)/gungraun-$(GUNGRAUN):
	@if [ -n "$(strip $(counting))" ]; then \
		$(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(counting); \
	fi
	$(CARGO) install --quiet --locked --root $(TOOLS) --target-dir $(TOOLS)/build --version $(GUNGRAUN) gungraun-runner
	touch $@

counts: needs $(TOOLS)/gungraun-$(GUNGRAUN)
	GUNGRAUN_RUNNER=$(TOOLS)/bin/gungraun-runner $(CARGO) bench --locked --bench counts

# One profile throughout, so that the dependencies are built once. The runner's summary is the last thing printed.
test: needs tools fmt clippy counts
	$(CARGO) test --locked --release --test it layers:: -- --quiet
	$(CARGO) test --locked --release --doc --quiet
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --locked --release; \
	else timeout 1200 $(CARGO) test --locked --release --no-fail-fast --lib --bins --tests; fi

# Streams are held against nginx with nchan; the rows are skipped where it cannot be installed.
bench: needs
	@if ! command -v nginx >/dev/null || [ ! -e /usr/lib/nginx/modules/ngx_nchan_module.so ]; then \
		$(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
			nginx-light libnginx-mod-nchan || true; \
	fi
	$(CARGO) build --locked --release --quiet -p hookcast -p hookcast-bench
	target/release/hookcast-bench all

image:
	$(CONTAINER) build --tag $(IMAGE) .
