// Package client speaks the Docker Engine API to a daemon, over a unix socket
// or over TCP with or without TLS.
//
// It is made for a program that lives for milliseconds: it has an HTTP/1.1
// client of its own, because linking and waking net/http costs about as much
// as all the rest of a short command, and wire structs of its own that hold
// only what the command line sends or reads. A test compares these structs
// with github.com/moby/moby/api field by field.
//
// No request is preceded by a ping: requests carry the newest API version
// that this package knows, and when a daemon answers that it is too new, the
// version that the daemon names is used from there on.
//
// Errors that the daemon reports are faults: their kind is the one that the
// status stands for, so errors.Is(err, fault.NotFound) holds on this side of
// the socket too. Their text starts with "Error response from daemon: ".
package client
