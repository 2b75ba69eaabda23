package record

import "testing"

func TestEveryStateHasItsWay(t *testing.T) {
	all := []State{Created, Running, Paused, Restarting, Exited}
	reached := map[State]bool{Created: true}
	for from, tos := range transitions {
		for _, to := range tos {
			reached[to] = true
			if err := from.next(to); err != nil {
				t.Error(err)
			}
		}
	}
	for _, s := range all {
		if !reached[s] {
			t.Errorf("no way leads to %s", s)
		}
		if len(transitions[s]) == 0 {
			t.Errorf("no way leads on from %s", s)
		}
		if err := s.next(s); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range [][2]State{{Created, Restarting}, {Running, Created}, {Exited, Created}, {Exited, Paused}} {
		if bad[0].next(bad[1]) == nil {
			t.Errorf("%s became %s", bad[0], bad[1])
		}
	}
}
