# `make help` lists the targets. `make packages` prints the Debian packages they
# need; nothing else is fetched but Go modules.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
# The targets share bin/ and the network of the machine: one at a time, in the order written.
.NOTPARALLEL:

# sudo drops /usr/local/go/bin and a plain su has no sbin: look there last.
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin

GO ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The whole number of the commit, and -dirty where files differ from it.
COMMIT ?= $(shell git describe --always --abbrev=40 --match= --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 30s

# The version comes from VERSION; Go's own stamp would stop every go command where
# the clone belongs to another user, as in many CI systems.
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)

BUILDFLAGS = -trimpath \
	-ldflags '-s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) \
	-X github.com/coredns/coredns/coremain.GitCommit=dnstrace-$(VERSION)+$(COMMIT)'

# What a target needs, as program:package or /file:package. `make packages`, and
# with it CI, is made from these lists: name a tool here when a test starts to use it.
LAB_NEEDS := iptables:iptables ip6tables:iptables
WALK_NEEDS := jq:jq dig:bind9-dnsutils
# The race detector is C; the tests with BPF use the objects committed in bpf/, so they need no clang.
TEST_NEEDS := gcc:gcc /usr/include/stdlib.h:libc6-dev $(LAB_NEEDS) $(WALK_NEEDS) \
	ip:iproute2 nft:nftables dnsmasq:dnsmasq-base dig:bind9-dnsutils tcpdump:tcpdump tshark:tshark \
	script:bsdutils musl-gcc:musl-tools promtool:prometheus
KERNEL_ARCH ?= amd64
QEMU_amd64 := qemu-system-x86_64:qemu-system-x86
QEMU_arm64 := qemu-system-aarch64:qemu-system-arm
KERNEL_NEEDS := $(QEMU_$(KERNEL_ARCH)) cpio:cpio xz:xz-utils nft:nftables ipvsadm:ipvsadm ldd:libc-bin
GENERATE_NEEDS := clang:clang llvm-strip:llvm /usr/include/bpf/bpf_helpers.h:libbpf-dev

# The packages of a list of needs, each once.
packages_of = $(sort $(foreach n,$(1),$(lastword $(subst :, ,$(n)))))

# $(call need,LIST) stops with the name and the package of everything that is missing.
define need
@command -v $(GO) >/dev/null || { echo 'make $(MAKECMDGOALS): $(GO) not found: install Go 1.26 or later (Debian 12 has an older one)' >&2; exit 1; }; \
	packages=; for n in $(1); do \
		tool=$${n%:*} package=$${n##*:}; \
		case $$tool in /*) test -e $$tool ;; *) command -v $$tool >/dev/null ;; esac && continue; \
		echo "make $(MAKECMDGOALS): $$tool not found: it is in the Debian package $$package" >&2; \
		case " $$packages " in *" $$package "*) ;; *) packages+="$${packages:+ }$$package" ;; esac; \
	done; \
	if [ -n "$$packages" ]; then echo "make $(MAKECMDGOALS): install with: apt-get install $$packages" >&2; exit 1; fi
endef

define need_root
@if [ "$$(id -u)" != 0 ]; then \
	echo 'make $(MAKECMDGOALS): run it as root (sudo): it loads BPF programs and makes network namespaces' >&2; exit 1; fi
endef

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/coredns and bin/dnstrace
	$(call need)
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o bin/ ./cmd/coredns ./cmd/dnstrace

# Static binaries in images without a container runtime; deploy/README.md says how
# they get to the nodes. CoreDNS for another architecture takes four minutes.
IMAGES ?= amd64 arm64
IMAGE_TAG ?= latest
# Times in what is written are the commit's (https://reproducible-builds.org/specs/source-date-epoch).
images pod-images: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 0)
# CoreDNS is no root; deploy/coredns runs it as the same user.
IMAGE_coredns := -user 65532:65532 -net-bind-service
# The eBPF programs are in it.
IMAGE_dnstrace := -licence 'Apache-2.0 AND (GPL-2.0-only OR BSD-2-Clause)'
.PHONY: images
images: ## write bin/images/dnstrace.tar and coredns.tar, for amd64 and arm64, with digests and SBOMs
	$(call need)
	for arch in $(IMAGES); do \
		CGO_ENABLED=0 GOARCH=$$arch $(GO) build $(BUILDFLAGS) -o bin/$$arch/ ./cmd/coredns ./cmd/dnstrace; done
	$(foreach name,coredns dnstrace,$(GO) run ./deploy/images -o bin/images/$(name).tar -name localhost/$(name):$(IMAGE_TAG) \
		-version $(VERSION) -revision $(COMMIT) $(IMAGE_$(name)) $(foreach a,$(IMAGES),$(a)=bin/$(a)/$(name)) &&) true

# The copy is at another path, with another build cache, and of the last commit.
.PHONY: check-reproducible
check-reproducible: ## fail if a second build of the last commit's images gives other bytes (no cache: 8 minutes)
	$(call need)
	.ci/check-reproducible

# Tests and tools as well: vet reads what they are made of.
.PHONY: check-arm64
check-arm64: ## build everything for arm64 (four minutes the first time)
	$(call need)
	CGO_ENABLED=0 GOARCH=arm64 $(GO) build $(BUILDFLAGS) -o bin/arm64/ ./cmd/coredns ./cmd/dnstrace
	CGO_ENABLED=0 GOARCH=arm64 $(GO) vet -trimpath -tags loki,otlp,dashboards,kubernetes,cilium,peers ./...

.PHONY: demo
demo: check-demo build ## show four lookups with their complete traces (root)
	CGO_ENABLED=0 $(GO) run ./integration/demo

# The picture is the lookup of the run that fails, between the two marks in README.md.
.PHONY: picture
picture: check-demo build ## write docs/demo.txt and the picture in README.md from a real run (root)
	CGO_ENABLED=0 $(GO) run ./integration/demo >docs/demo.txt
	{ echo '```'; sed '1,/^━━━ 4/d' docs/demo.txt | sed -n '/^\$$ dnstrace explain/,$$p'; echo '```'; } | cat -s >bin/picture
	sed -i -e '/^<!-- picture/,/^<!-- .picture/ { /^<!--/!d }' -e '/^<!-- picture/r bin/picture' README.md

.PHONY: walks
walks: check-walks build ## rewrite what the commands in docs/ print, from real runs (root)
	CGO_ENABLED=0 $(GO) run ./integration/walks $(PAGES)

.PHONY: test
test: check-test build test-unit test-integration ## run every test that must pass (root)

UNIT_PACKAGES := $(GO) list ./... | grep -v /dnstrace/integration

# Most of the time of the longest packages (plugin, tracer/capture) is waiting: four at once.
# The race detector changes what is allocated, so that is tested without it.
.PHONY: test-unit
test-unit: ## run the tests outside integration/ (those that load BPF programs need root)
	$(call need,$(filter gcc:% /usr/include/stdlib.h:%,$(TEST_NEEDS)))
	packages=$$($(UNIT_PACKAGES)); CGO_ENABLED=1 $(GO) test -race -p 4 -timeout 10m $$packages
	CGO_ENABLED=0 $(GO) test -run 'Allocations$$' ./plugin

# The package systemd-resolved takes over the machine's resolv.conf when it is
# installed, so it is only unpacked.
bin/resolved: integration/get-resolved
	integration/get-resolved $@

# Each package builds a node of its own and measures time on it: one at a time.
# No cached results: they depend on bin/ and on the kernel, which Go does not watch.
.PHONY: test-integration
test-integration: check-test build bin/resolved ## run the real binaries in the lab (root)
	bin/dnstrace check
	CGO_ENABLED=1 $(GO) test -race -skip '^TestJoinUnderLoad$$' -p 1 -count 1 -timeout 30m ./integration/...
	CGO_ENABLED=0 $(GO) test -trimpath -run '^TestJoinUnderLoad$$' -count 1 ./integration

# What the short tests show for seconds, for as long as the project promises it. The
# first part needs two CPUs for itself: where the tracer gets too little of them it
# leaves lookups out, and says so.
.PHONY: test-long
test-long: check-test build ## 5,000 lookups a second joined for 60 s, all attacks for a minute, a thousand lookups of each fault with the same finding each time, ten minutes of healthy traffic without a finding on each topology, what joining costs (root; 37 minutes)
	DNSTRACE_JOIN_LOAD=60s CGO_ENABLED=0 $(GO) test -run TestJoinUnderLoad -v -count 1 -timeout 10m ./integration
	DNSTRACE_ATTACK=1m CGO_ENABLED=0 $(GO) test -run TestAllAttacksTogether -v -count 1 -timeout 10m ./integration
	DNSTRACE_REPEAT=1000 CGO_ENABLED=0 $(GO) test -run TestEachFaultHasItsFindingEachTime -v -count 1 -timeout 20m ./integration
	DNSTRACE_HEALTHY=10m CGO_ENABLED=0 $(GO) test -run TestDiagnoseHealthy -v -count 1 -timeout 20m ./integration
	DNSTRACE_HEALTHY=10m CGO_ENABLED=0 $(GO) test -run TestHealthyOnEachTopology -parallel 7 -v -count 1 -timeout 40m ./integration
	CGO_ENABLED=0 $(GO) test -run - -bench Assemble -cpu 1 ./tracer/assemble

# Without hardware virtualization; the kernels are downloaded once (300 MB). What each is
# expected to lack is listed in integration/kernels/lacks.go.
# KERNEL_ARCH=arm64 runs them on Linux 6.12 of that architecture.
.PHONY: test-kernels
test-kernels: ## run the BPF programs and the tracer on other kernels, 5.10 to 7.2, under qemu (root, for apt and mknod)
	$(need_root)
	$(call need,$(KERNEL_NEEDS))
	$(GO) run ./integration/kernels -arch $(KERNEL_ARCH) $(KERNELFLAGS)

# The newest patch of each release that the plugin promises to work with.
COREDNS_VERSIONS ?= v1.13.2 v1.14.7 v1.15.0

# Loki is a module of its own, so that its many dependencies stay out of ours.
bin/loki: integration/loki/go.mod
	cd integration/loki && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(CURDIR)/bin/loki github.com/grafana/loki/v3/cmd/loki

.PHONY: test-loki
test-loki: check-test build bin/loki ## read records of several observers back from a real Loki (root; 1 minute, and the first build 5)
	CGO_ENABLED=1 $(GO) test -race -tags loki -run Loki -count 1 -timeout 10m ./integration

# Likewise Jaeger and a small OpenTelemetry Collector.
bin/jaeger: integration/jaeger/go.mod
	cd integration/jaeger && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(CURDIR)/bin/jaeger github.com/jaegertracing/jaeger/cmd/all-in-one
bin/otelcol: integration/otelcol/go.mod integration/otelcol/main.go
	cd integration/otelcol && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(CURDIR)/bin/otelcol .

.PHONY: test-otlp
test-otlp: check-test build bin/loki bin/jaeger bin/otelcol ## read spans and records back from a real Jaeger and Loki, through a real OpenTelemetry Collector (root; 2 minutes, and the first build 10)
	CGO_ENABLED=1 $(GO) test -race -tags otlp -run OTLP -count 1 -timeout 10m ./integration

# What others have that speaks TRACEPARENT is in no Debian before forky: it is only
# unpacked, and runs in that folder.
bin/peers: integration/peers/get-peers
	integration/peers/get-peers $@

.PHONY: test-peers
test-peers: check-test-peers build bin/jaeger bin/peers ## the TRACEPARENT option with a real dnsdist and PowerDNS Recursor, and one tree of all in a real Jaeger (root; 1 minute, and the first build 10)
	CGO_ENABLED=1 $(GO) test -race -tags peers -count 1 -timeout 10m ./integration/peers

# One node: what its pods' kubelet, proxy and containers need beside the programs of
# the module. No internet access: CoreDNS in the cluster asks an upstream of the test.
KUBERNETES_NEEDS := $(LAB_NEEDS) dig:bind9-dnsutils containerd:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins \
	ip:iproute2 nft:nftables conntrack:conntrack mount:mount unshare:util-linux nsenter:util-linux
KUBERNETES_VERSION := $(shell awk '$$1 == "k8s.io/kubernetes" { print $$2 }' integration/kubernetes/components/go.mod)
KUBERNETES_X := k8s.io/component-base/version
KUBERNETES_FLAGS = -trimpath -ldflags '-s -w -X $(KUBERNETES_X).gitVersion=$(KUBERNETES_VERSION) -X $(KUBERNETES_X).gitMajor=1 \
	-X $(KUBERNETES_X).gitMinor=$(word 2,$(subst ., ,$(KUBERNETES_VERSION))) -X k8s.io/client-go/pkg/version.gitVersion=$(KUBERNETES_VERSION)'

bin/kubernetes/kubelet: integration/kubernetes/components/go.mod
	cd $(<D) && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(CURDIR)/$(@D)/etcd go.etcd.io/etcd/server/v3
	cd $(<D) && CGO_ENABLED=0 $(GO) build $(KUBERNETES_FLAGS) -o $(CURDIR)/$(@D)/ \
		$(addprefix k8s.io/kubernetes/cmd/,kube-apiserver kube-controller-manager kube-scheduler kube-proxy kubelet kubectl)

.PHONY: test-kubernetes
test-kubernetes: check-test-kubernetes build bin/kubernetes/kubelet pod-images ## install deploy/ in a real one-node Kubernetes and look up names there (root; 5 minutes, and 13 for the first build)
	CGO_ENABLED=0 $(GO) test -tags kubernetes -count 1 -v -timeout 20m ./integration/kubernetes

# Cilium is a module of its own, as Kubernetes is. Its agent compiles the C beside it,
# whose tests are Go packages that ./... would find.
CILIUM_NEEDS := $(KUBERNETES_NEEDS) clang-19:clang-19 ipset:ipset
CILIUM_VERSION := $(shell awk '$$1 == "github.com/cilium/cilium" { print $$2 }' integration/cilium/components/go.mod)
CILIUM_FLAGS = -trimpath -ldflags '-s -w -X github.com/cilium/cilium/pkg/version.ciliumVersion=$(CILIUM_VERSION:v%=%)'

bin/cilium/cilium-agent: integration/cilium/components/go.mod
	cd $(<D) && CGO_ENABLED=0 $(GO) build $(CILIUM_FLAGS) -o $(CURDIR)/$(@D)/cilium-cni github.com/cilium/cilium/plugins/cilium-cni
	cd $(<D) && CGO_ENABLED=0 $(GO) build $(CILIUM_FLAGS) -tags ipam_provider_operator -o $(CURDIR)/$(@D)/cilium-operator github.com/cilium/cilium/operator
	rm -rf $(@D)/lib && mkdir -p $(@D)/lib
	cp -r "$$(cd $(<D) && $(GO) list -m -f '{{.Dir}}' github.com/cilium/cilium)/bpf" $(@D)/lib/ && chmod -R u+w $(@D)/lib && rm -rf $(@D)/lib/bpf/tests
	cd $(<D) && CGO_ENABLED=0 $(GO) build $(CILIUM_FLAGS) -o $(CURDIR)/$@ github.com/cilium/cilium/daemon

# What the pods of the two tests run, for the architecture of this machine.
.PHONY: pod-images
pod-images:
	$(MAKE) images IMAGES=$$($(GO) env GOARCH)
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o bin/images/pod ./integration/kubernetes/pod
	$(GO) run ./deploy/images -o bin/images/pod.tar -name localhost/pod:latest $$($(GO) env GOARCH)=bin/images/pod

.PHONY: test-cilium
test-cilium: check-test-cilium build bin/kubernetes/kubelet bin/cilium/cilium-agent pod-images ## look up names in a real one-node Kubernetes on Cilium, in five ways to carry a packet (root; 8 minutes, and 27 for the first build)
	CGO_ENABLED=0 $(GO) test -tags cilium -count 1 -v -timeout 30m ./integration/cilium

.PHONY: check-test-cilium
check-test-cilium:
	$(need_root)
	$(call need,$(CILIUM_NEEDS))

PEERS_NEEDS := gcc:gcc /usr/include/stdlib.h:libc6-dev $(LAB_NEEDS) tcpdump:tcpdump \
	/usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring

.PHONY: check-test-peers
check-test-peers:
	$(need_root)
	$(call need,$(PEERS_NEEDS))

.PHONY: check-test-kubernetes
check-test-kubernetes:
	$(need_root)
	$(call need,$(KUBERNETES_NEEDS))

.PHONY: test-coredns
test-coredns: ## run the plugin's tests, and CoreDNS's own with the plugin, with each of COREDNS_VERSIONS, as it is and with the patches of docs/coredns (minutes each)
	$(call need,git:git)
	GO='$(GO)' .ci/test-coredns $(COREDNS_VERSIONS)

# promtail is a module of its own, as Loki is.
bin/promtail: integration/promtail/go.mod
	cd integration/promtail && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $(CURDIR)/bin/promtail github.com/grafana/loki/v3/clients/cmd/promtail

.PHONY: test-dashboards
test-dashboards: check-test build bin/loki bin/promtail bin/otelcol ## dashboards, alerts and shippers on a real Prometheus and Loki (root; 3 minutes, and the first build 15)
	CGO_ENABLED=1 $(GO) test -race -tags dashboards -run 'Shippers|Alloy|EveryQuery|RaiseAlerts' -count 1 -timeout 15m ./integration

.PHONY: bench
bench: build bin/coredns-noop ## print the measurements of CoreDNS side by side (2 minutes)
	CGO_ENABLED=0 $(GO) run ./integration/bench -noop bin/coredns-noop $(BENCHFLAGS)

# CoreDNS with a plugin that only makes room on the stack, to compare with.
.PHONY: bin/coredns-noop
bin/coredns-noop:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $@ ./integration/bench/coredns-noop

# The version that go.mod names, with the one patch that is made for speed.
.PHONY: bench-coredns
bench-coredns: build ## print what room on the stack (docs/coredns) saves CoreDNS itself, without dnstrace (2 minutes, and a build)
	$(call need,git:git)
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
		GO='$(GO)' .ci/patch-coredns "$$($(GO) list -m -f '{{.Version}}' github.com/coredns/coredns)" "$$folder/coredns" docs/coredns/0004-*.patch; \
		CGO_ENABLED=0 $(GO) build -mod=mod -modfile="$$folder/coredns.mod" $(BUILDFLAGS) -o bin/coredns-patched ./cmd/coredns
	CGO_ENABLED=0 $(GO) run ./integration/bench -patched bin/coredns-patched $(BENCHFLAGS)

.PHONY: bench-tracer
bench-tracer: check-bench-tracer build ## print what dnstrace run costs, beside tcpdump and packet sockets (root; 10 minutes)
	CGO_ENABLED=0 $(GO) run ./integration/benchtracer $(BENCHFLAGS)

# Only a machine that does nothing else gives figures to keep.
.PHONY: benchmarks
benchmarks: check-bench-tracer build bin/coredns-noop ## measure everything and write docs/benchmarks.md (root; 11 minutes on a quiet machine)
	rm -f bin/benchmarks.jsonl
	CGO_ENABLED=0 $(GO) run ./integration/bench -noop bin/coredns-noop -results bin/benchmarks.jsonl $(BENCHFLAGS)
	CGO_ENABLED=0 $(GO) run ./integration/benchtracer -results bin/benchmarks.jsonl $(BENCHFLAGS)
	$(GO) run ./integration/benchpage bin/benchmarks.jsonl

.PHONY: check-bench-tracer
check-bench-tracer:
	$(need_root)
	$(call need,$(LAB_NEEDS) tcpdump:tcpdump)

# How long it is, and how many lookups a second; 60m shows more.
SOAKTIME ?= 10m
SOAKRATE ?= 200

.PHONY: soak
soak: check-demo build ## let both binaries work for SOAKTIME (10m): nothing leaks, every lookup is accounted for (root)
	CGO_ENABLED=0 $(GO) run ./integration/soak -time $(SOAKTIME) -rate $(SOAKRATE)

# The linter is a Go program of a module of its own, so that its many
# dependencies stay out of ours. It reads the types of all that we import from
# compiled packages: with the flags of `build` it finds CoreDNS in the build cache.
LINT := CGO_ENABLED=0 GOFLAGS='$(GOFLAGS) -trimpath' $(GO) tool -modfile=.ci/tools/go.mod golangci-lint
LINT_PATHS ?= ./...

.PHONY: lint
lint: ## run golangci-lint with .golangci.yml
	$(call need)
	$(LINT) config verify
	$(LINT) run --build-tags loki,otlp,dashboards,kubernetes,cilium,peers $(LINT_PATHS)

# The tracer's programs, and those of the topologies of the lab.
GENERATED := bpf integration/lab/datapath

.PHONY: generate
generate: ## compile the BPF programs and write their Go bindings (clang)
	$(call need,$(GENERATE_NEEDS))
	$(GO) generate $(addprefix ./,$(GENERATED))

# It compares the files before and after, not with the last commit, so it also
# judges work that is not committed yet, and needs no git.
.PHONY: check-generated
check-generated: ## fail if the committed BPF objects and bindings are not what their C gives (clang)
	$(call need,$(GENERATE_NEEDS))
	@sums() { find $(GENERATED) -type f -print0 | sort -z | xargs -0 sha256sum; }; \
	before=$$(sums); $(GO) generate $(addprefix ./,$(GENERATED)); after=$$(sums); \
	if [ "$$before" != "$$after" ]; then \
		{ diff <(echo "$$before") <(echo "$$after") || true; } | awk '/^>/ { print "make $(MAKECMDGOALS): not up to date: " $$3 }' >&2; \
		echo 'make $(MAKECMDGOALS): they are generated anew now. The committed ones come from clang 14 of Debian 12 (another clang' >&2; \
		echo "gives other bytes); yours: $$(clang --version | head -n 1)" >&2; \
		exit 1; \
	fi

.PHONY: check-licenses
check-licenses: ## fail if a module in the two binaries has a licence that is not known to be fine
	$(call need)
	$(GO) test ./deploy/licence
	$(GO) run ./.ci/licenses $(LICENSEFLAGS)

# The database is on the Internet. VULNDB names a copy: https://…, or file:///… of a
# folder in which https://vuln.go.dev/vulndb.zip was unpacked. 3 is that it found some.
VULNDB ?= https://vuln.go.dev

.PHONY: check-vulnerabilities
check-vulnerabilities: ## look both binaries up in Go's vulnerability database (internet, or VULNDB)
	$(call need)
	@CGO_ENABLED=0 $(GO) tool -modfile=.ci/vulnerabilities/go.mod govulncheck -db $(VULNDB) ./cmd/... || { status=$$?; \
		if [ $$status = 1 ]; then echo 'make $(MAKECMDGOALS): nothing was checked: see above; where $(VULNDB) cannot be reached, name a copy with VULNDB=' >&2; fi; \
		exit $$status; }

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME each (30s)
	$(call need)
	@packages=$$($(UNIT_PACKAGES)); list=$$(CGO_ENABLED=0 $(GO) test -list '^Fuzz' $$packages | \
		awk '/^Fuzz/ { names[++n] = $$1 } $$1 == "ok" { for (i = 1; i <= n; i++) print $$2, names[i]; n = 0 }'); \
	if [ -z "$$list" ]; then echo 'make $(MAKECMDGOALS): no fuzz target found' >&2; exit 1; fi; \
	while read -r package name; do \
		echo "$$package $$name"; \
		CGO_ENABLED=0 $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x "$$package" </dev/null; \
	done <<< "$$list"

.PHONY: packages
packages: ## print the Debian packages that all targets together need
	@echo $(call packages_of,$(TEST_NEEDS) $(GENERATE_NEEDS))

.PHONY: clean
clean: ## remove what build made
	rm -rf bin

# Before the build, so that a missing tool shows at once.
.PHONY: check-demo check-walks check-test
check-demo:
	$(need_root)
	$(call need,$(LAB_NEEDS))
check-walks:
	$(need_root)
	$(call need,$(LAB_NEEDS) $(WALK_NEEDS))
check-test:
	$(need_root)
	$(call need,$(TEST_NEEDS))
