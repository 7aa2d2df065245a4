# The only entry point: `make demo` runs the main job, `make test` is the gate. README.md says the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# make bench-bgp PROFILE=dfz speaks of tables, not of cargo.
BENCH_PROFILE := $(PROFILE)
override PROFILE := ci
TARGET := $(or $(CARGO_TARGET_DIR),target)
BIN := $(TARGET)/$(PROFILE)
LANE := .ci/lane

# The image, and what installs it.
IMAGE_BINARIES := bgpd felix manx-cni manxctl manx-controller
IMAGE_NAME := localhost/manx:$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
HELM_VERSION := v3.20.2
HELM := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/manx/helm-$(HELM_VERSION)/helm

# Packages of a fresh Debian 12: a compiler's linker, the real routers, and what looks at the kernel.
APT_BUILD := gcc libc6-dev make
APT_PEERS := openbgpd gobgpd
APT_TEST := frr bird2 nftables iproute2 iptables iputils-ping containernetworking-plugins conntrack tcpdump tshark util-linux procps

# One selection for every build of the binaries, the demo's own included: another one has other features of the
# dependencies, and compiles them again.
BUILD := -p bgpd -p felix -p manx-cni -p manx-controller -p manx-daemon -p manxctl -p e2e
FAST := -p bgp-proto -p felix-calc -p felix-input -p manx-ipam -p manx-crds -p manx-cni -p manx-daemon -p manx-controller -p manxctl
KERNEL := -p felix-kernel -p felix -p bgpd
# With bgpd beside it, which has none of these, the dependencies have the features that the workspace gives them, and
# are not compiled again.
INTEROP := -p e2e -p bgpd --lib --bin demo --test add_path --test bfd --test full_mesh --test interop_core --test operate --test peering --test policy --test probe --test topology

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | expand -t 16

# ---------------------------------------------------------------- what a fresh machine needs

.PHONY: rust root packages
rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: apt-get install -y curl && curl --proto '=https' -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain 1.95.0 -c rustfmt -c clippy && . ~/.cargo/env"; exit 1; }

root:
	@[ "$$(id -u)" = 0 ] || { echo "root is needed for network namespaces: sudo make $(MAKECMDGOALS)"; exit 1; }

packages: root ## what is missing of the Debian packages
	@.ci/packages $(APT_BUILD) $(APT_TEST)

# ---------------------------------------------------------------- the main job

.PHONY: build demo demo-down
build: rust ## the binaries, profile ci
	@cargo build --locked --profile $(PROFILE) $(BUILD)

demo: rust root ## a fabric of 3 nodes and 2 FRR routers in namespaces, checked (KEEP=1, ONLY=6.1, TOR=manx)
	@.ci/packages gcc libc6-dev
	@[ -x $(BIN)/demo ] || echo "compiling the demo's own program first: half a minute on a new machine"
	@cargo run --locked --quiet --profile $(PROFILE) -p e2e --bin demo -- up

demo-down: rust root ## removes what KEEP=1 left
	@cargo run --locked --quiet --profile $(PROFILE) -p e2e --bin demo -- down

# ---------------------------------------------------------------- a real Kubernetes on this machine

.PHONY: kubernetes cluster cluster-down cluster-base
kubernetes: root ## Kubernetes 1.34, CoreDNS and test images from Go modules: minutes once, then cached in ~/.cache/manx
	@e2e/kubernetes/build

CLUSTER_FLAGS = $(if $(NODES),--nodes $(NODES)) $(if $(TORS),--tors) $(if $(FAMILY),--family $(FAMILY)) \
	$(if $(PROXY),--proxy $(PROXY))
cluster: rust test-image helm ## Manx on 3 nodes in namespaces (NODES=5, TORS=1, FAMILY=ipv6, PROXY=iptables; BARE=1: no Manx), or on KUBECONFIG's (VALUES='--set image.repository=…')
	@.ci/packages $(APT_BUILD) $(APT_TEST)
	@$(BIN)/cluster up $(CLUSTER_FLAGS) --image $(TEST_IMAGE) $(if $(BARE),,--install $(HELM))

cluster-down: rust root helm ## removes the cluster of this machine, or Manx from KUBECONFIG's
	@HELM=$(HELM) cargo run --locked --quiet --profile $(PROFILE) -p e2e --bin cluster -- down

TEST_IMAGE := target/image/test.tar
NEXT_IMAGE := target/image/next.tar
.PHONY: test-image containerd cluster-core cluster-test
test-image: build kubernetes
	@.ci/test-image $(TEST_IMAGE) $(IMAGE_NAME) $(addprefix $(BIN)/,$(IMAGE_BINARIES))
	@AS=0.1.1 .ci/test-image $(NEXT_IMAGE) localhost/manx:0.1.1 $(addprefix $(BIN)/,$(IMAGE_BINARIES))

containerd: root ## a containerd that knows pods in user namespaces, from its Go module: minutes once, then cached in ~/.cache/manx
	@e2e/kubernetes/containerd/build

MANX_CLUSTER = MANX_IMAGE=$(CURDIR)/$(TEST_IMAGE) MANX_NEXT_IMAGE=$(CURDIR)/$(NEXT_IMAGE) HELM=$(HELM) cargo test --locked --profile $(PROFILE) -p e2e -p bgpd --test manx_cluster
cluster-core: rust root test-image helm ## Manx on a real cluster: install, traffic, Services, policy, an outage, uninstall
	@$(MANX_CLUSTER) -- --exact core --nocapture

# KUBECONFIG of `make cluster` itself is no other cluster.
THEIRS := $(filter-out $(CURDIR)/target/cluster/kubeconfig,$(KUBECONFIG))
cluster-test: rust root test-image helm $(if $(THEIRS),,containerd) ## all of it, with ToRs, load, drain, upgrade and other families: up to 45 minutes; KUBECONFIG's cluster where it is set
	@$(MANX_CLUSTER) -- --test-threads=1 --nocapture $(if $(THEIRS),--exact theirs,--skip theirs) 2>&1 | .ci/tally

cluster-base: rust kubernetes ## the control plane and the cluster itself, before Manx runs on it
	@.ci/packages $(APT_BUILD) $(APT_TEST)
	@cargo test --locked --profile $(PROFILE) -p e2e -p bgpd --test control_plane --test cluster --no-fail-fast -- --test-threads=1

# ---------------------------------------------------------------- the gate, lane by lane

.PHONY: test lanes style size generated compile fast kernel interop-core demo-lane
test: rust root ## the gate: what .ci/run calls
	@$(LANE) begin
	@$(LANE) install 2 make --no-print-directory packages
	@$(LANE) kubernetes 12 make --no-print-directory kubernetes helm
	@$(LANE) style 14 make --no-print-directory style
	@$(LANE) compile 14 make --no-print-directory compile
	@$(LANE) fast 4 make --no-print-directory fast
	@$(LANE) kernel 4 make --no-print-directory kernel
	@$(LANE) interop-core 6 make --no-print-directory interop-core
	@$(LANE) demo 4 make --no-print-directory demo
	@$(LANE) api-server 4 make --no-print-directory api-server
	@$(LANE) cluster-core 6 make --no-print-directory cluster-core
	@$(LANE) end

style: rust size ## formatting, lints, docs, size budgets
	@cargo fmt --all --check
	@cargo clippy --locked --profile $(PROFILE) --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --locked --profile $(PROFILE) --workspace --no-deps --document-private-items

size: ## no source file over 800 lines (functions: clippy)
	@git ls-files -co --exclude-standard '*.rs' | xargs wc -l | awk '$$2 != "total" && $$1 > 800 { print $$2 ": " $$1 " lines, at most 800: split it"; bad = 1 } END { exit bad }'

generated: rust ## fails where a committed generated file differs from what its source makes
	@cargo test --locked --profile $(PROFILE) -p manx-crds --test crds
	@cargo test --locked --profile $(PROFILE) -p bgp-proto --test rfc

golden: rust helm ## writes the generated files again
	@EXPECTORATE=overwrite cargo test --locked --profile $(PROFILE) -p manx-crds --test crds
	@EXPECTORATE=overwrite cargo test --locked --profile $(PROFILE) -p bgp-proto --test rfc
	@EXPECTORATE=overwrite HELM=$(HELM) cargo test --locked --profile $(PROFILE) -p e2e --test chart -- manifest readme

compile: rust ## everything, tests included
	@cargo test --locked --profile $(PROFILE) --workspace --no-run
	@cargo build --locked --profile $(PROFILE) $(BUILD)

fast: rust ## units, goldens, properties, simulation: no root, no kernel
	@cargo test --locked --profile $(PROFILE) $(FAST) --no-fail-fast

kernel: rust root build ## the real kernel, in namespaces that each test makes
	@cargo test --locked --profile $(PROFILE) $(KERNEL) --no-fail-fast -- --test-threads=2

interop-core: rust root build ## bgpd against FRR and BIRD
	@cargo test --locked --profile $(PROFILE) $(INTEROP) --no-fail-fast -- --test-threads=3

# ---------------------------------------------------------------- the chart and the image


.PHONY: helm chart-test rights-test controller-test image
helm: $(HELM) ## helm from its Go module, cached in ~/.cache/manx
$(HELM):
	@.ci/helm $(HELM_VERSION) $(@D)

chart-test: rust helm ## the chart without a cluster: lint, rights, refusals, goldens
	@HELM=$(HELM) cargo test --locked --profile $(PROFILE) -p e2e -p bgpd --test chart

rights-test: rust root kubernetes helm ## what a stolen agent token can do, on a real API server
	@HELM=$(HELM) cargo test --locked --profile $(PROFILE) -p e2e -p bgpd --test rights -- --nocapture

controller-test: rust root kubernetes helm ## manx-controller with the chart's rights, on a real API server
	@HELM=$(HELM) cargo test --locked --profile $(PROFILE) -p manx-controller -p bgpd --test kubernetes -- --nocapture --test-threads=1

# Static for any distribution's kernel, and for an image without a single library. Paths of this machine stay out, so
# that two machines build the same bytes.
TRIPLE := x86_64-unknown-linux-gnu
IMAGE_PACKAGES := bgpd felix manx-cni manxctl manx-controller
IMAGE_FLAGS := -C target-feature=+crt-static --remap-path-prefix=$(CURDIR)=manx --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo
IMAGE_BUILD = RUSTFLAGS='$(IMAGE_FLAGS)' cargo build --locked --profile image --target $(TRIPLE) $(addprefix -p ,$(IMAGE_PACKAGES))
image: rust ## target/image/manx.tar: an OCI archive of static binaries, without a container engine
	@$(IMAGE_BUILD)
	@.ci/image target/image/manx.tar $(IMAGE_NAME) $(addprefix $(TARGET)/$(TRIPLE)/image/,$(IMAGE_BINARIES))

.PHONY: api-server
api-server: chart-test rights-test store-test ## the chart, its rights and the datastore on a real API server

# ---------------------------------------------------------------- by hand

.PHONY: scale
scale: rust root build kubernetes ## 40 pairs of agents on a real API server: what a node costs it, and that an idle one costs nothing
	@cargo test --locked --profile $(PROFILE) -p e2e -p bgpd --test scale -- --nocapture

.PHONY: store-test other-kubernetes
ifneq ($(KUBERNETES),)
OTHER := e2e/kubernetes/api-server/build
override KUBERNETES := $(if $(filter newest,$(KUBERNETES)),$(shell $(OTHER) newest),$(KUBERNETES))
export KUBERNETES
endif
store-test: rust root $(if $(KUBERNETES),other-kubernetes,kubernetes) ## CRDs and datastore on a real API server (KUBERNETES=newest, KUBERNETES=v1.36.3)
	@$(if $(KUBERNETES),XDG_CACHE_HOME=$$($(OTHER) home $(KUBERNETES))) cargo test --locked --profile $(PROFILE) -p manx-crds -p bgpd --test kubernetes -- --nocapture

other-kubernetes: root
	@$(OTHER) $(KUBERNETES)

.PHONY: golden bench-rib bench-bgp soak interop peers trixie fmt
bench-rib: rust ## 1M prefixes in process, beside the figures that the layout was chosen by
	@cargo bench --locked --profile release -p bgp-proto

# RUNS=100000000 is what a release is given; the whole speaker makes some 2,000 a second.
.PHONY: fuzz test-deep
fuzz: rust ## the fuzzers of bgp-proto: MINUTES=10 in all, or RUNS=1000000 each (TARGET=update); installs what it needs
	@.ci/fuzz

# As suspicious as in the gate, and compiled for an hour's run.
SIMULATION := CARGO_PROFILE_CI_OPT_LEVEL=3 cargo test --locked --profile $(PROFILE) --target-dir $(TARGET)/deep -p bgp-proto
test-deep: rust ## thousands of simulated histories, fabrics of 200 speakers, 10^8 executions of the fuzzers (SEEDS=3000, AT_LEAST=100000000)
	@$(MAKE) --no-print-directory -j2 deep-histories deep-fabrics deep-fuzz

.PHONY: deep-histories deep-fabrics deep-fuzz
deep-histories:
	@BGP_SEEDS=$(or $(SEEDS),3000) $(SIMULATION) --test pair --test convergence
deep-fabrics:
	@BGP_SPEAKERS=200 BGP_SEEDS=8 $(SIMULATION) --test convergence -- --exact every_speaker_ends_with_the_reference_and_is_quiet
deep-fuzz:
	@AT_LEAST=$(or $(AT_LEAST),100000000) .ci/fuzz

# Daemons that are here to be measured and spoken to are never started as services.
peers: packages
	@NO_SERVICES=1 .ci/packages $(APT_PEERS)

trixie: root ## FRR 10 and BIRD 2.17 of Debian 13 beside this machine's, for interop: a minute once, then cached in ~/.cache/manx
	@e2e/trixie/build

interop: rust root peers trixie build ## every capability against FRR, BIRD (two releases each), GoBGP and OpenBGPD: docs/interop.md, 15 minutes (ROW=, PEER=: words of names; JOBS=8; EVIDENCE=1)
	@cargo test --locked --profile $(PROFILE) -p e2e -p bgpd --test interop -- --nocapture

bench-bgp: rust root peers ## bgpd as it ships beside BIRD, FRR, OpenBGPD and GoBGP: docs/bgp-bench.md, 15 minutes (PROFILE= N= SINKS= DAEMONS= EXTRAS= RUNS=; FULL=1: hours)
	@$(IMAGE_BUILD) --bin bgpd
	@cargo build --locked --profile $(PROFILE) $(BUILD) --bin bench-bgp
	@PROFILE='$(BENCH_PROFILE)' $(BIN)/bench-bgp --bgpd $(TARGET)/$(TRIPLE)/image/bgpd --json target/bench/bgp.json --page docs/bgp-bench.md

soak: rust root peers ## 10 minutes of a million routes that change, hold 3 s, BFD 100 ms x 3, every core busy: no flap (SECONDS=600)
	@$(IMAGE_BUILD) --bin bgpd
	@cargo build --locked --profile $(PROFILE) $(BUILD) --bin bench-bgp
	@$(BIN)/bench-bgp --bgpd $(TARGET)/$(TRIPLE)/image/bgpd --json target/bench/bgp.json --page docs/bgp-bench.md --soak $(or $(SECONDS),600)

fmt: rust
	@cargo fmt --all
