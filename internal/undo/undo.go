// Package undo takes back the steps of an operation that failed half-way.
package undo

import "errors"

// Stack holds the ways back, pushed as the steps are done. The zero value is
// empty.
type Stack struct{ steps []func() error }

// Push registers how to take back the step that was just done.
func (s *Stack) Push(back func() error) { s.steps = append(s.steps, back) }

// Run takes the steps back, newest first, all of them whatever fails, and
// empties the stack. The errors are joined.
func (s *Stack) Run() error {
	var errs []error
	for i := len(s.steps) - 1; i >= 0; i-- {
		errs = append(errs, s.steps[i]())
	}
	s.steps = nil
	return errors.Join(errs...)
}

// OnError runs the stack if *err is set when the deferred call happens:
//
//	defer back.OnError(&err)
//
// What fails on the way back is joined to *err.
func (s *Stack) OnError(err *error) {
	if *err == nil {
		s.steps = nil
		return
	}
	if undoErr := s.Run(); undoErr != nil {
		*err = errors.Join(*err, undoErr)
	}
}
