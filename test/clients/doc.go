// Package clients holds foreign clients of the Engine API, each in its own words,
// and what they do with a daemon at DOCKER_HOST that has the image busybox. The
// tests of package compat start such a daemon and run them.
package clients
