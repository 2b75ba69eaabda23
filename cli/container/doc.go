// Package container holds the commands about containers, one operation per
// file. What run and create send is built by request.go from the flags of
// flags.go.
package container
