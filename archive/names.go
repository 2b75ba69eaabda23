package archive

// names goes through the names of a directory as it is and as it was, in their
// order.
type names struct {
	now, before cursor
	lookup      stack // in an overlay the old names are looked up, not listed
	overlay     bool
}

// newNames begins. In an overlay only the names that the topmost layer has can
// differ, but for a directory that hides those below it.
func newNames(now, before stack, overlay bool) *names {
	n := &names{now: cursor{stack: now}, before: cursor{stack: before}}
	if overlay && len(now) > 1 {
		n.overlay, n.lookup, n.now.stack = true, before, now[:1]
	}
	return n
}

// next gives a name with its places; nil and nil at the end.
func (n *names) next() (name string, is, was *item, err error) {
	if is, err = n.now.peek(); err != nil {
		return "", nil, nil, err
	}
	if n.overlay {
		if is == nil {
			return "", nil, nil, nil
		}
		n.now.next()
		was, err = n.lookup.find(is.name)
		return is.name, is, was, err
	}
	if was, err = n.before.peek(); err != nil {
		return "", nil, nil, err
	}
	switch {
	case is == nil && was == nil:
		return "", nil, nil, nil
	case was == nil || is != nil && is.name < was.name:
		n.now.next()
		return is.name, is, nil, nil
	case is == nil || was.name < is.name:
		n.before.next()
		return was.name, nil, was, nil
	}
	n.now.next()
	n.before.next()
	return is.name, is, was, nil
}

// emptied tells whether a directory had something of which nothing is left. The
// answer depends on the names alone, so that it is the same for each way of
// storing a tree.
func emptied(now, before stack) (bool, error) {
	if len(now) == 0 || len(before) == 0 {
		return false, nil
	}
	had := false
	n := newNames(now, before, false)
	for {
		_, is, was, err := n.next()
		if err != nil || is == nil && was == nil {
			return had && err == nil, err
		}
		if was == nil {
			continue
		}
		if _, ok, err := before.stat(*was); err != nil || !ok {
			if err != nil {
				return false, err
			}
			continue
		}
		had = true
		if is == nil {
			continue
		}
		if _, ok, err := now.stat(*is); err != nil || ok {
			return false, err
		}
	}
}
