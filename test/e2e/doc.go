// Package e2e runs the scripts beside it on the real programs: each gets a
// daemon of its own, and the machine is checked for leftovers afterwards.
package e2e
