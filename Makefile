# make help tells what there is. Everything needs Linux, Go, git and make;
# what else is missing is installed and named.
export CGO_ENABLED = 0
SHELL := /bin/bash
GO      ?= go
BIN     := slipway
TIMEOUT ?= 40m

.PHONY: help build up down test unit scenarios check bench generate clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build ./slipway
	$(GO) build -trimpath -ldflags "-s -w" -o $(BIN) ./cmd/slipway

up: build ## build, start a server, deploy examples/todo, show it happening
	@if [ "$$(id -u)" = 0 ]; then ./$(BIN) up examples/todo; else sudo -E ./$(BIN) up examples/todo; fi

down: build ## stop everything (the data stays; ./slipway down --purge removes it)
	@if [ "$$(id -u)" = 0 ]; then ./$(BIN) down; else sudo -E ./$(BIN) down; fi

test: unit scenarios ## all tests; the ones with instances need root

unit: ## unit tests, and replays of AWS's own wire snapshots
	$(GO) vet ./...
	$(GO) test $$($(GO) list ./... | grep -v /test/scenarios) -timeout $(TIMEOUT)
	cd tools && $(GO) vet ./... && $(GO) test ./...
	cd examples/todo && $(GO) vet ./... && $(GO) test ./...

scenarios: build ## the real thing: deploy, roll back, kill -9, clean up (root)
	cd test/clients && SLIPWAY=$(CURDIR)/$(BIN) $(GO) test -count=1 -timeout $(TIMEOUT) .
	cd test/gosdk && $(GO) vet . && SLIPWAY=$(CURDIR)/$(BIN) $(GO) test -count=1 -timeout $(TIMEOUT) .
	cd test/scenarios && SLIPWAY=$(CURDIR)/$(BIN) $(GO) test -count=1 -timeout $(TIMEOUT) -v . | grep -v '^=== '; exit $${PIPESTATUS[0]}

check: ## formatting and vet
	@test -z "$$(gofmt -l cmd internal test tools examples | grep -v zz_generated)" || { gofmt -l cmd internal test tools examples; exit 1; }
	$(GO) vet ./...

bench: build ## figures: boot, push to live, replacement, load balancer beside nginx (run it alone)
	cd test/scenarios && BENCH=1 SLIPWAY=$(CURDIR)/$(BIN) $(GO) test -count=1 -timeout $(TIMEOUT) -run TestBench -v . | grep -v "^=== "
	$(GO) test -run '^$$' -bench . -benchtime 20x ./internal/machine/sandbox
	LOGS_BENCH_MB=1024 $(GO) test -run '^$$' -bench . -timeout $(TIMEOUT) ./internal/services/cloudwatch ./internal/services/cloudwatch/metricstore ./internal/services/logs ./internal/services/logs/segment
	$(GO) run ./test/bench/lb

generate: ## shapes and operation tables from AWS's models
	cd tools && $(GO) run ./apigen

clean: ## remove what make built
	rm -f $(BIN)
