# What people and continuous integration run. `make` lists the targets.

CARGO ?= cargo
IMAGE ?= hookcast
# The first that is here; podman and buildah keep HEALTHCHECK in Docker's format only.
CONTAINER ?= $(or $(shell command -v docker),$(shell command -v podman),$(shell command -v buildah),docker)
IMAGE_FORMAT = $(if $(filter podman buildah,$(notdir $(CONTAINER))),--format docker)
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
	$(if $(shell command -v pushpin),,pushpin) $(if $(wildcard /usr/bin/firefox-esr),,firefox-esr)

export CARGO_INCREMENTAL ?= 0

# Counts instructions under valgrind; its version is that of the library in Cargo.lock.
GUNGRAUN = $(shell sed -n '/^name = "gungraun"$$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
TOOLS := $(CURDIR)/target/tools
counting = $(if $(shell command -v valgrind),,valgrind libc6-dbg)

# Every command takes the whole workspace, so that all of them share what is built; RELEASE is how the product is built.
RELEASE := --locked --workspace --release
# What one builds with while working.
PROFILE = quick

# Two that install must not wait for the same lock.
.NOTPARALLEL:

.PHONY: help announce needs tools fmt clippy doc deny lint counts check built test test-all torture bench image

help:
	@echo "make check   what to run while working: formatting, clippy, every quick test; installs nothing"
	@echo "make test    everything that must pass before a change is merged; says first what it installs and how long it takes"
	@echo "make test-all  the same, what takes longer, and make lint"
	@echo "make torture only what takes longer: many more crashes, many more cases of the properties"
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
# One by one: what a distribution does not have is told, and the tests that need it are skipped by name.
tools: needs $(TOOLS)/py/installed $(TOOLS)/node/installed
	@if [ -n "$(strip $(absent))" ]; then $(SUDO) apt-get update; fi
	@for package in $(absent); do \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$package \
			|| echo "$$package cannot be installed here: tests that need it will be skipped"; \
	done

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
	@if $(CARGO) fmt --version >/dev/null 2>&1; then $(CARGO) fmt --all --check; else echo "rustfmt is not there: skipped"; fi

clippy: needs
	@if $(CARGO) clippy --version >/dev/null 2>&1; then \
		$(CARGO) clippy $(RELEASE) --all-targets -- -D warnings; \
	else echo "clippy is not there: skipped"; fi

doc: needs
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(RELEASE) --no-deps --quiet

deny:
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check; else echo "cargo-deny is not there: skipped"; fi

lint: fmt clippy doc deny

$(TOOLS)/gungraun-$(GUNGRAUN):
	@if [ -n "$(strip $(counting))" ]; then \
		$(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(counting); \
	fi
	$(CARGO) install --quiet --debug --locked --root $(TOOLS) --target-dir $(TOOLS)/build --version $(GUNGRAUN) gungraun-runner
	touch $@

counts: needs $(TOOLS)/gungraun-$(GUNGRAUN)
	GUNGRAUN_RUNNER=$(TOOLS)/bin/gungraun-runner $(CARGO) bench --locked --workspace --bench counts

# The tests of the profile `check`.
check: export CARGO_INCREMENTAL = 1
check: fmt
	@if $(CARGO) clippy --version >/dev/null 2>&1; then \
		$(CARGO) clippy --locked --workspace --profile $(PROFILE) --all-targets -- -D warnings; \
	else echo "clippy is not there: skipped"; fi
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
		$(CARGO) nextest run --locked --workspace --cargo-profile $(PROFILE) --profile check; \
	else \
		sh tests/check.sh --profile $(PROFILE); \
	fi

announce:
	@$(CARGO) nextest --version >/dev/null 2>&1 || echo "cargo-nextest is not here: tests run one binary after the other, which takes longer."
	@$(CARGO) clippy --version >/dev/null 2>&1 || echo "clippy is not here: nothing looks for what it would find."
	@echo "make test takes about 25 minutes from nothing on two cores, 10 once everything is built."
	@echo "It installs by apt-get: $(or $(strip $(missing) $(absent) $(if $(shell command -v npm),,nodejs npm) $(counting)),nothing)."
	@echo "It puts under target/tools: libraries of Python and Node, and the runner of gungraun, about 100 MB."

# The product is compiled twice, once as it is and once with its unit tests: one profile throughout, and nothing asks for other
# features, and all of it by one command, so that no processor waits for a single crate. Clippy needs no more than a check of it.
# The runner's summary is the last thing printed.
built: needs
	$(CARGO) test $(RELEASE) --no-run --lib --bins --tests --benches

test: announce needs tools fmt clippy built counts
	$(CARGO) test $(RELEASE) --doc --quiet
	@sh tests/run.sh --release

test-all: test torture lint

# Longer than the patience of whoever waits for a merge.
torture: needs
	KILLS=200 $(CARGO) test $(RELEASE) --test it -- crash::kills --nocapture
	PROPTEST_CASES=10000 $(CARGO) test $(RELEASE) --lib --bins --quiet
	HOOKCAST_SEEDS=20000 $(CARGO) test $(RELEASE) --test simulation -- every_event --nocapture

# Streams are held against nginx with nchan; the rows are skipped where it cannot be installed.
bench: needs
	@if ! command -v nginx >/dev/null || [ ! -e /usr/lib/nginx/modules/ngx_nchan_module.so ]; then \
		$(SUDO) apt-get update && $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
			nginx-light libnginx-mod-nchan || true; \
	fi
	$(CARGO) build --locked --release --quiet -p hookcast -p hookcast-bench
	target/release/hookcast-bench all

image:
	$(CONTAINER) build $(IMAGE_FORMAT) --tag $(IMAGE) .
