// Package cgroups compares the control groups that ocirun/cgroup makes with those
// that opencontainers/cgroups, runc's library, makes of the same resources: file
// by file of what can be set, on cgroup v1 (also hybrid) and v2.
package cgroups
