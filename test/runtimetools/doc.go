// Package runtimetools names the OCI's validation suite, which ../compat builds
// and runs.
package runtimetools
