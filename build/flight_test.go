package build

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// What several builds wait for works on files that the one has which began it: those
// stay its own, although its client went, and a failure for that is not the others'.
// All of them hear what it prints, while they wait.
func TestSharedWorkKeepsItsFiles(t *testing.T) {
	s := &Solver{flights: map[digest.Digest]*flight{}, sums: openSums(filepath.Join(t.TempDir(), "sums"))}
	first, second := s.Job(nil, nil, JobOptions{}), s.Job(nil, nil, JobOptions{})
	var begun, waited string
	heard := func(to *string) printer { return func(_ int, data []byte) { *to += string(data) } }
	given := make(chan struct{})
	first.atEnd(func() { close(given) })
	key := digest.FromString("work")
	working, finish := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		_, err := first.once(ctx, key, heard(&begun), func(_ context.Context, say printer) ([]*output, error) {
			say(1, []byte("before "))
			close(working)
			<-finish
			say(2, []byte("after"))
			select {
			case <-given:
				t.Error("the files were given back")
			default:
			}
			return nil, errors.New("the client has gone")
		})
		gone <- err
	}()
	<-working
	again := make(chan error)
	made := 0
	go func() {
		_, err := second.once(t.Context(), key, heard(&waited), func(_ context.Context, say printer) ([]*output, error) {
			made++
			say(1, []byte(" again"))
			return nil, nil
		})
		again <- err
	}()
	for waits := 0; waits < 2; { // until the second waits as well
		s.mu.Lock()
		waits = s.flights[key].want
		s.mu.Unlock()
	}
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Errorf("who was cancelled got %v", err)
	}
	first.Close()
	close(finish)
	if err := <-again; err != nil || made != 1 {
		t.Errorf("who waited got %v, and did it %d times", err, made)
	}
	<-given
	if begun != "before " || waited != "before after again" {
		t.Errorf("who began it heard %q, who waited %q", begun, waited)
	}
}
