package volume

import "context"

// Mount makes the content of a volume reachable for a container that begins to
// run, and tells where it lies on the host. The first user of a volume that is a
// mount has it mounted; the same user may ask again.
func (s *Service) Mount(ctx context.Context, name, user string) (path string, err error) {
	r, err := s.find("get", name)
	if err != nil {
		return "", err
	}
	if r.Driver == Local && !needsMount(&r) { // a directory, which is just there
		return s.data(name), nil
	}
	unlock, err := s.ops.Lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer unlock()
	return s.mountLocked(ctx, name, user)
}

// mountLocked is Mount under the name's lock.
func (s *Service) mountLocked(ctx context.Context, name, user string) (path string, err error) {
	r, err := s.find("get", name)
	switch {
	case err != nil:
		return "", err
	case r.Driver != Local:
		path, err = s.mountExternal(ctx, &r, user)
	case needsMount(&r):
		path, err = s.data(name), s.mountLocal(&r)
	default:
		return s.data(name), nil
	}
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mounts[name] == nil {
		s.mounts[name] = map[string]string{}
	}
	s.mounts[name][user] = path
	return path, nil
}

// Unmount lets go of a volume for a container that runs no more. The last user of
// one that is a mount has it unmounted. It is nil for who has not mounted it.
func (s *Service) Unmount(ctx context.Context, name, user string) error {
	if !s.has(name, user) {
		return nil
	}
	unlock, err := s.ops.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()
	return s.unmountLocked(ctx, name, user)
}

func (s *Service) has(name, user string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, has := s.mounts[name][user]
	return has
}

func (s *Service) unmountLocked(ctx context.Context, name, user string) error {
	if !s.has(name, user) {
		return nil
	}
	s.mu.Lock()
	delete(s.mounts[name], user)
	left := len(s.mounts[name])
	if left == 0 {
		delete(s.mounts, name)
	}
	s.mu.Unlock()
	r, there := s.lookup(name)
	switch {
	case !there:
		return nil
	case r.Driver != Local:
		return s.unmountExternal(ctx, &r, user)
	case left == 0:
		return s.unmountLocal(&r)
	}
	return nil
}

// Restore takes up which running containers use each volume, once, before the
// first Mount. What a daemon that was killed left mounted for nobody is unmounted.
func (s *Service) Restore(ctx context.Context, running map[string][]string) {
	for _, r := range s.all() {
		if r.Driver == Local && !needsMount(&r) {
			continue
		}
		users := running[r.Name]
		path := ""
		if r.Driver == Local {
			path = s.data(r.Name)
		}
		s.mu.Lock()
		for _, user := range users {
			if s.mounts[r.Name] == nil {
				s.mounts[r.Name] = map[string]string{}
			}
			s.mounts[r.Name][user] = path
		}
		s.mu.Unlock()
		var err error
		switch {
		case r.Driver != Local:
			s.background.Go(func() { s.settleExternal(context.WithoutCancel(ctx), r, users) })
		case len(users) == 0:
			err = s.unmountLocal(&r)
		}
		if err != nil {
			s.log.Error("a volume that nobody uses cannot be unmounted", "volume", r.Name, "err", err)
		}
	}
}
