// Package compat runs foreign clients against the daemon: Docker's own client
// (the scripts docker_*.txt), and supervising processes of an older version.
package compat
