package cgroup

import (
	"os"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Draft is the beginning of Create, for who has a child do other things in the
// meantime: a child of one thread enters groups of v1 at any moment by itself. It makes
// the group of v2 beside them, in which the child is born, and tells where the others will be;
// Complete makes those. Until then the group is good for Open and Delete. It is nil where
// groups cannot be made by halves: on v2 alone, of a unit, and where this process
// may not make all of them.
func Draft(path string) (*Group, error) {
	g, err := At(path)
	if err != nil || g.Unified || g.unit != nil || g.None() || os.Geteuid() != 0 || nested() {
		return nil, err
	}
	g.draft = true
	if m := g.unified(); m != nil {
		switch err = g.begin(m); {
		case err != nil && Denied(err):
			g.Members = g.Members[:len(g.Members)-1]
		case err != nil:
			return nil, err
		}
	}
	return g, nil
}

// Complete makes the rest of a draft and sets the limits. When it fails, Delete
// removes what was made.
func (g *Group) Complete(r *specs.LinuxResources) error {
	there := g.unified()
	if there == nil {
		return g.fill(r)
	}
	u := *there
	g.Members = g.Members[:len(g.Members)-1]
	err := g.fill(r)
	g.Members = append(g.Members, u)
	return err
}
