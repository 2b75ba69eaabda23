package retention

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/registry/pattern"
	"github.com/tarehq/tare/registry/storage"
)

// Policy says what is kept. A tag stays if one of the criteria keeps it, or if
// neither KeepLast nor KeepWithin is set.
type Policy struct {
	KeepLast   int           // the tags that were set last
	KeepWithin time.Duration // the tags that were set within that time
	KeepTags   pattern.List
	// Untagged is how long after its push a manifest may go that no tag, and no
	// manifest that is kept, leads to; 0 keeps it.
	Untagged time.Duration
}

// Contents are a repository's.
type Contents struct {
	Tags      []storage.Tag
	Manifests []Manifest
}

// Manifest is what a plan has to know of one.
type Manifest struct {
	Digest   digest.Digest
	Updated  time.Time
	Children []digest.Digest
	Subject  digest.Digest
}

// Deletion is one tag, or one manifest where Tag is "", that goes.
type Deletion struct {
	Repository string
	Tag        string
	Digest     digest.Digest // what the tag points to, or the manifest
	Updated    time.Time
	Reason     string
}

func (d Deletion) String() string {
	if d.Tag != "" {
		return fmt.Sprintf("%s:%s (%s): %s", d.Repository, d.Tag, short(d.Digest), d.Reason)
	}
	return fmt.Sprintf("%s@%s: %s", d.Repository, d.Digest, d.Reason)
}

func short(d digest.Digest) string {
	s := d.String()
	return s[:min(len(s), len("sha256:")+12)]
}

// Plan tells what goes from a repository: tags, then manifests, those that name
// others before these. immutable tells the tags that always stay.
func Plan(repo string, p Policy, c Contents, immutable func(tag string) bool, now time.Time) []Deletion {
	var out []Deletion
	kept := map[digest.Digest]bool{}
	tags := slices.SortedFunc(slices.Values(c.Tags), func(a, b storage.Tag) int {
		return cmp.Or(b.Updated.Compare(a.Updated), cmp.Compare(a.Name, b.Name))
	})
	for i, t := range tags {
		if p.keeps(t, i, now) || immutable(t.Name) {
			kept[t.Target.Digest] = true
			continue
		}
		out = append(out, Deletion{repo, t.Name, t.Target.Digest, t.Updated, p.reason(t, now)})
	}
	if p.Untagged == 0 {
		return out
	}
	for _, m := range c.Manifests {
		if m.Updated.IsZero() || now.Sub(m.Updated) < p.Untagged {
			kept[m.Digest] = true
		}
	}
	spread(kept, c.Manifests)
	var manifests []Manifest
	for _, m := range c.Manifests {
		if !kept[m.Digest] {
			manifests = append(manifests, m)
		}
	}
	slices.SortStableFunc(manifests, func(a, b Manifest) int { return len(b.Children) - len(a.Children) })
	for _, m := range manifests {
		reason := fmt.Sprintf("no tag leads to it, and it was pushed %s ago", age(now.Sub(m.Updated)))
		out = append(out, Deletion{repo, "", m.Digest, m.Updated, reason})
	}
	return out
}

func (p Policy) keeps(t storage.Tag, place int, now time.Time) bool {
	return p.KeepLast == 0 && p.KeepWithin == 0 || place < p.KeepLast || now.Sub(t.Updated) < p.KeepWithin || p.KeepTags.Match(t.Name)
}

func (p Policy) reason(t storage.Tag, now time.Time) string {
	set := fmt.Sprintf("the tag was set %s ago", age(now.Sub(t.Updated)))
	if p.KeepLast == 0 {
		return set
	}
	return fmt.Sprintf("%s, and is not among the last %d", set, p.KeepLast)
}

// age is a time as people say it.
func age(d time.Duration) string {
	switch days := int(d / (24 * time.Hour)); {
	case days >= 2:
		return fmt.Sprint(days, " days")
	case d >= 2*time.Hour:
		return fmt.Sprint(int(d/time.Hour), " hours")
	}
	return d.Round(time.Second).String()
}

// spread adds what kept manifests keep: those that they name, and those that
// have them as their subject.
func spread(kept map[digest.Digest]bool, all []Manifest) {
	byDigest, referrers := map[digest.Digest]Manifest{}, map[digest.Digest][]digest.Digest{}
	for _, m := range all {
		byDigest[m.Digest] = m
		if m.Subject != "" {
			referrers[m.Subject] = append(referrers[m.Subject], m.Digest)
		}
	}
	var queue []digest.Digest
	for d := range kept {
		queue = append(queue, d)
	}
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		for _, next := range slices.Concat(byDigest[d].Children, referrers[d]) {
			if !kept[next] {
				kept[next] = true
				queue = append(queue, next)
			}
		}
	}
}
