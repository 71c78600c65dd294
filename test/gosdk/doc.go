// Package gosdk has no code but its tests: they use the built binary with the
// AWS SDK for Go, which is kept out of the main module. Instances are
// simulated, so they need no root; they need SLIPWAY=path of the binary.
package gosdk
