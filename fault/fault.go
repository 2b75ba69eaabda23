// Package fault holds the kinds of error that cross every boundary of the
// engine: the function that knows what went wrong chooses the kind and writes
// the sentence that the user reads; the server maps the kind to a status and
// the client maps the status back, so errors.Is(err, fault.NotFound) works on
// both sides of the socket.
package fault

import (
	"errors"
	"fmt"
)

// Kind is a class of failure. Each Kind is itself an error, to be the target
// of errors.Is.
type Kind int

// The kinds. Internal is what an error without a kind belongs to.
const (
	Internal       Kind = iota // the engine's or the machine's failure
	NotFound                   // the thing named does not exist
	Conflict                   // the thing's state or another thing forbids it
	Invalid                    // the request cannot be understood or can never work
	NotModified                // it already is as asked
	Unauthorized               // credentials are missing or wrong
	Forbidden                  // credentials do not suffice
	Unavailable                // a peer or a resource is not there now
	NotImplemented             // understood, and not supported
)

var kindNames = [...]string{"internal error", "not found", "conflict", "invalid", "not modified",
	"unauthorized", "forbidden", "unavailable", "not implemented"}

// Error gives the kind's name.
func (k Kind) Error() string {
	if k < 0 || int(k) >= len(kindNames) {
		return "unknown kind of error"
	}
	return kindNames[k]
}

// fault is an error of a kind. Its text is the whole sentence; the kind adds
// nothing to it.
type fault struct {
	kind Kind
	err  error
}

func (f *fault) Error() string        { return f.err.Error() }
func (f *fault) Unwrap() error        { return errors.Unwrap(f.err) }
func (f *fault) Is(target error) bool { return target == f.kind }

// New returns an error of the kind with the formatted sentence as its text.
// The verb %w wraps as in fmt.Errorf.
func New(kind Kind, format string, args ...any) error {
	return &fault{kind, fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the outermost fault in err's chain, Internal if
// there is none.
func KindOf(err error) Kind {
	var f *fault
	if errors.As(err, &f) {
		return f.kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return Internal
}
