// Package registry holds the commands about registries themselves: who the user
// is to them, and what is in them. One operation per file.
package registry
