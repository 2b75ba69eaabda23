// Package compat runs foreign clients against the daemon: Docker's own client
// (the scripts docker_*.txt), Compose (those in compose/), what stands in
// ../clients, and supervising processes of an older version. What has to be built
// from other people's modules, or fetched from npm, is left to make compat.
package compat
