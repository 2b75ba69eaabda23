package snapshot

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
)

// Prepare makes the writable place of a container on top of the chain ("" for
// an image without layers) and says what to mount. With overlay it names a pair
// of directories that was made beforehand, and waits for no disk.
func (s *Store) Prepare(id string, chain digest.Digest) (Mount, error) {
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\x00") {
		return Mount{}, fault.New(fault.Invalid, "%q cannot be a container's ID", id)
	}
	s.mu.Lock()
	if s.hasLocked(id) {
		s.mu.Unlock()
		return Mount{}, fault.New(fault.Conflict, "container %s has a root file system already", id)
	}
	lower, err := s.lowerLocked(chain)
	if err != nil {
		s.mu.Unlock()
		return Mount{}, err
	}
	top, _ := s.lookupLocked(chain)
	// Known from here on, so that no sweep takes the layers.
	s.active[id] = chain
	s.mu.Unlock()

	if err := s.makeActive(id, chain, top); err != nil {
		return Mount{}, errors.Join(err, s.Remove(id))
	}
	return s.driver.mount(s.root+"/active/"+id, lower), nil
}

// hasLocked tells whether the container has something here, damaged or not.
func (s *Store) hasLocked(id string) bool {
	_, ok := s.active[id]
	return ok || s.damaged[id] != nil
}

func (s *Store) makeActive(id string, chain digest.Digest, top *layer) error {
	dir, err := s.driver.writable(top)
	if err != nil {
		return err
	}
	name := noLayer
	if chain != "" {
		name = chain.Encoded()
	}
	if err := writeTop(dir, name); err != nil {
		return errors.Join(err, s.discard(dir))
	}
	if err := os.Rename(dir, s.path("active", id)); err != nil {
		return errors.Join(err, s.discard(dir))
	}
	return nil
}

// Mount gives again what Prepare gave, after a restart of the daemon too. It
// is fault.NotFound when the container has nothing here or a layer is gone.
func (s *Store) Mount(id string) (Mount, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.damaged[id]; err != nil {
		return Mount{}, fmt.Errorf("the layer below the files of container %s is not known: was the directory copied without its extended attributes? %w", id, err)
	}
	chain, ok := s.active[id]
	if !ok {
		return Mount{}, fault.New(fault.NotFound, "container %s has no root file system", id)
	}
	lower, err := s.lowerLocked(chain)
	if err != nil {
		return Mount{}, err
	}
	return s.driver.mount(s.root+"/active/"+id, lower), nil
}

// ReadOnly says how the tree that the chain makes ("" for an image without
// layers) is mounted without a writable layer. What containers need to be
// mounted on is not in it.
func (s *Store) ReadOnly(chain digest.Digest) (Mount, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lower, err := s.lowerLocked(chain)
	if err != nil {
		return Mount{}, err
	}
	return s.driver.mount("", lower), nil
}

// Active lists the containers that have something here.
func (s *Store) Active() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.AppendSeq(slices.Collect(maps.Keys(s.active)), maps.Keys(s.damaged))
}

// Remove takes a container's directories away at once; their deletion happens
// in the background. It is nil when there is nothing. Nothing may be mounted
// from them any more.
func (s *Store) Remove(id string) error {
	s.mu.Lock()
	ok := s.hasLocked(id)
	s.mu.Unlock()
	if !ok {
		return nil
	}
	err := s.discard(s.path("active", id))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	s.mu.Lock()
	delete(s.active, id)
	delete(s.damaged, id)
	s.mu.Unlock()
	return nil
}

// Sweep removes the layers that neither keep, with the layers below, nor a
// container or a pin needs. Deletion happens in the background. No Unpack may be under
// way whose outcome keep does not know.
func (s *Store) Sweep(keep []digest.Digest) error {
	s.placing.Lock()
	defer s.placing.Unlock()
	var err error
	for chain, l := range s.takeUnused(keep) {
		e := s.discard(s.layerPath(chain))
		if e != nil { // it stays, and may be used again
			s.mu.Lock()
			s.layers[chain] = l
			s.mu.Unlock()
		}
		err = errors.Join(err, e)
	}
	return err
}

// takeUnused takes the layers that nobody needs out of the list, so that no
// container is made on them any more.
func (s *Store) takeUnused(keep []digest.Digest) map[digest.Digest]*layer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.damaged) > 0 {
		return nil // nobody knows which layers these need
	}
	live := map[digest.Digest]bool{}
	mark := func(chain digest.Digest) {
		for l := s.layers[chain]; l != nil && !live[chain]; l = s.layers[chain] {
			live[chain] = true
			chain = l.Parent
		}
	}
	for _, chain := range keep {
		mark(chain)
	}
	for _, chain := range s.active {
		mark(chain)
	}
	for _, chain := range s.pinned {
		mark(chain)
	}
	unused := map[digest.Digest]*layer{}
	for chain, l := range s.layers {
		if !live[chain] {
			unused[chain] = l
			delete(s.layers, chain)
		}
	}
	return unused
}
