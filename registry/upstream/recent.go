package upstream

import "sync"

// recent remembers the values that were used last, at most twice the limit: in
// two maps, of which the older one goes when the younger one is full.
type recent[V any] struct {
	mu         sync.Mutex
	limit      int
	young, old map[string]V
}

func newRecent[V any](limit int) *recent[V] { return &recent[V]{limit: limit} }

func (r *recent[V]) get(key string) (V, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.getLocked(key)
}

func (r *recent[V]) getLocked(key string) (v V, ok bool) {
	if v, ok = r.young[key]; !ok {
		if v, ok = r.old[key]; ok {
			r.putLocked(key, v)
		}
	}
	return v, ok
}

func (r *recent[V]) put(key string, v V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.putLocked(key, v)
}

func (r *recent[V]) putLocked(key string, v V) {
	if len(r.young) >= r.limit {
		r.old, r.young = r.young, nil
	}
	if r.young == nil {
		r.young = map[string]V{}
	}
	r.young[key] = v
}

// change replaces a value, or the zero value of what is not remembered.
func (r *recent[V]) change(key string, f func(V) V) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, _ := r.getLocked(key)
	r.putLocked(key, f(v))
}

func (r *recent[V]) drop(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.young, key)
	delete(r.old, key)
}
