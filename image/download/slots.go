package download

import "slices"

// maxRegistries is how many registries may take all their slots.
const maxRegistries = 3

// slots bound how many blobs are fetched at a time, from each registry and in
// all: one that takes its time holds up its own pulls alone. They are guarded by
// Downloads.mu.
type slots struct {
	each    int // for one registry
	taken   map[string]int
	waiting []*download // in the order in which they came
}

// ask lets a download wait for a slot.
func (s *slots) ask(dl *download) {
	s.waiting = append(s.waiting, dl)
	s.give()
}

// release takes a download's slot away, or its place among those that wait.
func (s *slots) release(dl *download) {
	s.waiting = slices.DeleteFunc(s.waiting, func(x *download) bool { return x == dl })
	if dl.slot != "" {
		if s.taken[dl.slot]--; s.taken[dl.slot] == 0 {
			delete(s.taken, dl.slot)
		}
	}
	s.give()
}

// give begins the downloads for which there is a slot of one of their
// registries. It is to be called when there may be one more.
func (s *slots) give() {
	s.waiting = slices.DeleteFunc(s.waiting, func(dl *download) bool {
		for _, o := range dl.supply.list {
			if registry := o.repo.Registry(); s.free(registry) {
				s.taken[registry]++
				dl.slot = registry
				close(dl.begun)
				return true
			}
		}
		return false
	})
}

func (s *slots) free(registry string) bool {
	all := 0
	for _, n := range s.taken {
		all += n
	}
	return s.taken[registry] < s.each && all/maxRegistries < s.each
}
