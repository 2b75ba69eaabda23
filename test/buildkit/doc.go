// Package buildkit has BuildKit's own clients, unmodified, build with our daemon:
// its Go client, buildx, and its front ends as images.
package buildkit
