package keeper

import (
	"testing"
	"time"
)

// What a process has written before its end is moved however late the time comes
// for it, whether or not others hold its output.
func TestOutputOutlastsTheBound(t *testing.T) {
	for _, held := range []bool{true, false} {
		s, err := newStdio(false, false)
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		o := newOutput(nil, &activity{})
		o.keep = 1 << 20
		write := func(text string) {
			if _, err := s.child[1].WriteString(text); err != nil {
				t.Fatal(err)
			}
		}
		o.mu.Lock() // stands for a slow disk, or a processor that others have
		s.pump(o, nil)
		write("first\n")
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			s.drain(-time.Second)
		}()
		rc, err := s.out.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		for rc.Read(func(uintptr) bool { return true }) == nil { // until the time is over
			time.Sleep(time.Millisecond)
		}
		write("second\n")
		if !held {
			s.closeChild()
		}
		o.mu.Unlock()
		<-drained
		if got, _ := o.head(); string(got) != "first\nsecond\n" {
			t.Errorf("held by another: %v: %q came", held, got)
		}
	}
}
