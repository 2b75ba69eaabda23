// Package retention is what the owner of a registry has set for repositories:
// what of them is kept, how much they may have, and which of their tags stay as
// they are.
//
// What goes is decided purely (Plan): a tag that no criterion keeps, and then
// the manifests that neither a tag nor another manifest keeps and that are old
// enough. Run carries it out over a storage; the bytes go with a later
// collection.
package retention

import (
	"github.com/tarehq/tare/registry/pattern"
)

// Rules are entries in the order of the configuration; for a repository the
// first that matches counts. They are registry.Rules.
type Rules []Entry

// Entry is what is set for the repositories that match.
type Entry struct {
	Match     pattern.List
	Quota     int64 // bytes; 0 is no limit
	Immutable pattern.List
	Policy    *Policy // nil keeps everything
}

func (r Rules) entry(repo string) Entry {
	for _, e := range r {
		if e.Match.Match(repo) {
			return e
		}
	}
	return Entry{}
}

// Immutable is registry.Rules'.
func (r Rules) Immutable(repo, tag string) bool { return r.entry(repo).Immutable.Match(tag) }

// Quota is registry.Rules'.
func (r Rules) Quota(repo string) int64 { return r.entry(repo).Quota }

// Removes tells whether there is a policy at all.
func (r Rules) Removes() bool {
	for _, e := range r {
		if e.Policy != nil {
			return true
		}
	}
	return false
}
