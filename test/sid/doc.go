// Package sid is the Docker of Debian's unstable distribution, for tests that
// compare with it or drive the daemon by its clients: dockerd with BuildKit, the
// client, buildx and Compose, as Debian packages them.
//
// A Place is that system as a root of its own over an unchanged tree, in
// namespaces that end with the test's process, however it ends.
package sid
