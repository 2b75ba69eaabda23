package plugin

import "fmt"

// Failure is a kind of error, to be the target of errors.Is. The sentences of the
// errors are meant for the user. What a plugin itself answers is a Refusal.
type Failure int

// The kinds.
const (
	NotFound    Failure = iota // no plugin has the name
	Invalid                    // its file says nothing usable, or it does not do what is asked for
	Unavailable                // it cannot be reached, hangs or does not keep to the protocol
)

func (f Failure) Error() string {
	return [...]string{"not found", "invalid", "unavailable"}[f]
}

type failure struct {
	kind Failure
	error
}

func (f *failure) Is(target error) bool { return target == f.kind }
func (f *failure) Unwrap() error        { return f.error }

// fail makes an error of the kind with the formatted sentence.
func fail(kind Failure, format string, args ...any) error {
	return &failure{kind, fmt.Errorf(format, args...)}
}
