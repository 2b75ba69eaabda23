# The few commands. Root is needed by run, test and bench: they make containers.
GO      ?= go
VERSION ?= $(shell git describe --tags --dirty 2>/dev/null | sed 's/^v//' | grep . || echo 0.1.0)
COMMIT  ?= $(shell git rev-parse --short HEAD 2>/dev/null || echo unknown)
BUILT   ?= $(shell git log -1 --format=%cI 2>/dev/null)
LDFLAGS  = -s -w -X main.version=$(VERSION) -X main.gitCommit=$(COMMIT) -X main.buildTime=$(BUILT)
# What lives for milliseconds begins at an instruction of its own (docs/decisions/053-first-instruction.md).
ENTRY    = $(if $(filter amd64,$(shell $(GO) env GOARCH)),-E github.com/tarehq/tare/internal/single.entry)
export CGO_ENABLED = 0

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the programs, into bin/
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -ldflags './cmd/tarerun=$(LDFLAGS) $(ENTRY)' -o bin/ ./cmd/...

run: ## install what is missing, build, start a daemon of its own under .run/, run two containers
	@scripts/run

stop: ## end the daemon of make run and its containers
	@scripts/run stop

test: ## install what the tests need, and run them all
	@scripts/test

bench: build ## measure against the docker, podman, runc and crun that are installed
	@scripts/bench

test-cgroup2: build ## the tests of what depends on control groups, on a kernel that has cgroup v2 alone (in qemu)
	@scripts/test-cgroup2

test-kernel: build ## the tests of what only some kernels have, on a kernel that has it (in qemu)
	@scripts/test-kernel

compat: ## everything of other people's: Docker's client, Compose, SDKs, testcontainers, BuildKit, the OCI's conformance tests
	PACKAGES="./test/compat ./test/dockerfiles" TARE_TEST_CLIENTS=1 scripts/test -v -timeout 90m

fuzz: ## every fuzz target for a while
	@scripts/fuzz

soak: ## hours of what the tests do for seconds: daemon and registry killed over and over, every fuzz target
	TARE_SOAK=2000 scripts/test -run '^TestKilled|^TestCrowd' -timeout 6h
	FUZZTIME=10m scripts/fuzz

registry-image: build ## the image tare/registry, into bin/registry-image.tar
	@scripts/registry-image

vet: ## formatting and the compiler's doubts
	@ugly=$$(gofmt -l $$(find . -name '.?*' -prune -o -name '*.go' -print)) && test -z "$$ugly" || { echo "$$ugly"; exit 1; }
	$(GO) vet ./...

clean: ## remove what was built
	rm -rf bin

.PHONY: help build run stop test test-cgroup2 test-kernel bench compat fuzz soak registry-image vet clean
.DEFAULT_GOAL := help
