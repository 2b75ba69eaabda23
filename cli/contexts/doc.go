// Package contexts holds the commands of contexts, one operation per file: they
// name daemons, and are Docker's own, in Docker's own files.
package contexts
