package download

import (
	"testing"

	"github.com/tarehq/tare/reference"
	"github.com/tarehq/tare/remote"
)

// repositories are some of one registry each.
func repositories(t *testing.T, names ...string) (list []*remote.Repository) {
	t.Helper()
	client, err := remote.New(remote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	for _, name := range names {
		r, err := reference.ParseBare(name)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, client.Repository(r, remote.Credentials{}))
	}
	return list
}

// A registry has no more slots than its own, and all of them no more than those of
// some registries.
func TestSlots(t *testing.T) {
	repos := repositories(t, "a.test/x", "b.test/x", "c.test/x", "d.test/x")
	s := slots{each: 2, taken: map[string]int{}}
	var begun, waiting []*download
	for range 3 {
		for _, repo := range repos {
			dl := &download{begun: make(chan struct{})}
			dl.supply.join(repo, nil)
			if s.ask(dl); dl.slot != "" {
				begun = append(begun, dl)
			} else {
				waiting = append(waiting, dl)
			}
		}
	}
	if len(begun) != 2*maxRegistries || len(s.waiting) != len(waiting) {
		t.Fatalf("%d have begun, %d wait", len(begun), len(s.waiting))
	}
	for _, dl := range begun[:1] { // of a.test; its third is the first that waits for one of those
		s.release(dl)
	}
	if n := len(s.waiting); n != len(waiting)-1 {
		t.Errorf("%d wait after one has ended", n)
	}
	for _, dl := range append(begun[1:], waiting...) {
		s.release(dl)
	}
	if len(s.taken) > 0 || len(s.waiting) > 0 {
		t.Errorf("left: %v, %d wait", s.taken, len(s.waiting))
	}
}

// Whoever is fastest is drawn from; one that failed is asked again, with patience,
// when nobody else is left, and then no more.
func TestSupply(t *testing.T) {
	repos := repositories(t, "a.test/x", "b.test/x", "a.test/x")
	var s supply
	a := s.join(repos[0], []*remote.Source{new(remote.Source), new(remote.Source)})
	b := s.join(repos[1], []*remote.Source{new(remote.Source)})
	if s.join(repos[2], nil) != a || len(s.list) != 2 || a.pulls != 2 {
		t.Fatal("the same repository is two")
	}
	if !s.outpaced(a, presumedRate/4) || s.outpaced(b, presumedRate) {
		t.Error("who is outpaced")
	}
	d := s.next()
	if d.from != b || d.patient {
		t.Fatal("the slower one is drawn from, or the faster with patience")
	}
	s.failed(d, errGone)
	if d = s.next(); d.from != a || d.patient {
		t.Fatal("who failed is asked while others are left")
	}
	s.failed(d, errGone)
	if d = s.next(); d.from != a || d.patient || len(a.sources) != 1 {
		t.Fatalf("of %d sources, patient %v", len(a.sources), d.patient)
	}
	s.failed(d, errGone)
	for _, o := range []*supplier{a, b} { // both are asked once more
		if d = s.next(); d.from != o || !d.patient {
			t.Fatal("nobody is asked again")
		}
		s.failed(d, errGone)
	}
	if s.next() != nil {
		t.Error("somebody is left")
	}
	s.leave(a)
	if len(s.list) != 2 {
		t.Error("a repository went with the first of its two pulls")
	}
	if s.leave(a); len(s.list) != 1 {
		t.Error("it did not go with the last")
	}
}
