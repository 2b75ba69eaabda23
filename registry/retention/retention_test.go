package retention

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/pattern"
	"github.com/tarehq/tare/registry/storage"
)

var _ registry.Rules = Rules{}

var now = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func ago(days int) time.Time { return now.Add(-time.Duration(days) * 24 * time.Hour) }

func dgst(name string) digest.Digest { return digest.FromString(name) }

func tag(name, target string, days int) storage.Tag {
	return storage.Tag{Name: name, Target: ocispec.Descriptor{Digest: dgst(target)}, Updated: ago(days)}
}

func manifest(name string, days int, children ...string) Manifest {
	m := Manifest{Digest: dgst(name), Updated: ago(days)}
	for _, c := range children {
		m.Children = append(m.Children, dgst(c))
	}
	return m
}

func referrer(name, subject string, days int) Manifest {
	m := manifest(name, days)
	m.Subject = dgst(subject)
	return m
}

func list(texts ...string) (l pattern.List) {
	for _, s := range texts {
		l = append(l, pattern.MustParse(s))
	}
	return l
}

const day = 24 * time.Hour

func TestPlan(t *testing.T) {
	tags := []storage.Tag{tag("v1", "m1", 40), tag("v2", "m2", 30), tag("v3", "m3", 20), tag("latest", "m3", 20), tag("dev", "m4", 50)}
	for name, c := range map[string]struct {
		policy Policy
		c      Contents
		want   string // tags and names of manifests, in their order
	}{
		"nothing set":      {Policy{}, Contents{Tags: tags}, ""},
		"the last":         {Policy{KeepLast: 3}, Contents{Tags: tags}, "v1 dev"},
		"the young":        {Policy{KeepWithin: 35 * day}, Contents{Tags: tags}, "v1 dev"},
		"either":           {Policy{KeepLast: 1, KeepWithin: 25 * day}, Contents{Tags: tags}, "v2 v1 dev"},
		"by name":          {Policy{KeepLast: 1, KeepTags: list("v*")}, Contents{Tags: tags}, "dev"},
		"immutable":        {Policy{KeepLast: 1}, Contents{Tags: []storage.Tag{tag("a", "x", 1), tag("fixed", "y", 9)}}, ""},
		"untagged":         {Policy{Untagged: 7 * day}, Contents{Tags: tags[:1], Manifests: []Manifest{manifest("m1", 40), manifest("old", 8), manifest("new", 6)}}, "old"},
		"untagged is kept": {Policy{}, Contents{Manifests: []Manifest{manifest("old", 800)}}, ""},
		"of unknown age":   {Policy{Untagged: day}, Contents{Manifests: []Manifest{{Digest: dgst("old")}}}, ""},
		"with its tag":     {Policy{KeepLast: 1, Untagged: 7 * day}, Contents{Tags: tags[:2], Manifests: []Manifest{manifest("m1", 40), manifest("m2", 30)}}, "v1 m1"},
		"children stay": {Policy{Untagged: 7 * day}, Contents{Tags: []storage.Tag{tag("x", "index", 9)},
			Manifests: []Manifest{manifest("index", 9, "inner", "missing"), manifest("inner", 9, "leaf"), manifest("leaf", 9), manifest("other", 9)}}, "other"},
		"children of young ones stay": {Policy{Untagged: 7 * day}, Contents{Manifests: []Manifest{manifest("index", 1, "leaf"), manifest("leaf", 9)}}, ""},
		"indexes go first":            {Policy{Untagged: 7 * day}, Contents{Manifests: []Manifest{manifest("leaf", 9), manifest("index", 9, "leaf")}}, "index leaf"},
		"referrers stay": {Policy{Untagged: 7 * day}, Contents{Tags: []storage.Tag{tag("x", "image", 9)},
			Manifests: []Manifest{manifest("image", 9), referrer("signature", "image", 9), referrer("of the signature", "signature", 9), referrer("stray", "gone", 9)}}, "stray"},
		"referrers of children stay": {Policy{Untagged: 7 * day}, Contents{Tags: []storage.Tag{tag("x", "index", 9)},
			Manifests: []Manifest{manifest("index", 9, "leaf"), manifest("leaf", 9), referrer("sbom", "leaf", 9)}}, ""},
		"a circle": {Policy{Untagged: 7 * day}, Contents{Manifests: []Manifest{manifest("a", 9, "b"), manifest("b", 9, "a")}}, "a b"},
	} {
		t.Run(name, func(t *testing.T) {
			names := map[digest.Digest]string{}
			for _, m := range []string{"m1", "m2", "m3", "m4", "old", "new", "index", "inner", "leaf", "other", "image", "signature", "stray", "a", "b", "sbom", "of the signature"} {
				names[dgst(m)] = m
			}
			var got []string
			for _, d := range Plan("r", c.policy, c.c, func(tag string) bool { return tag == "fixed" }, now) {
				if d.Tag != "" {
					got = append(got, d.Tag)
				} else {
					got = append(got, names[d.Digest])
				}
				if !strings.HasPrefix(d.String(), "r:") && !strings.HasPrefix(d.String(), "r@sha256:") || d.Reason == "" {
					t.Errorf("%s", d)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%s goes, want %s", got, c.want)
			}
		})
	}
}

func TestReasons(t *testing.T) {
	tags := []storage.Tag{tag("new", "a", 0), tag("old", "b", 40)}
	for want, p := range map[string]Policy{
		"r:old (" + short(dgst("b")) + "): the tag was set 40 days ago":                              {KeepWithin: day},
		"r:old (" + short(dgst("b")) + "): the tag was set 40 days ago, and is not among the last 1": {KeepLast: 1},
	} {
		got := Plan("r", p, Contents{Tags: tags}, func(string) bool { return false }, now)
		if len(got) != 1 || fmt.Sprint(got[0]) != want {
			t.Errorf("%v\nwant %s", got, want)
		}
	}
}

func TestFirstEntryCounts(t *testing.T) {
	r := Rules{{Match: list("team/**"), Quota: 5, Immutable: list("v*")}, {Match: list("**"), Quota: 9, Policy: &Policy{}}}
	if r.Quota("team/a") != 5 || r.Quota("b") != 9 || !r.Immutable("team/a", "v1") || r.Immutable("team/a", "x") || r.Immutable("b", "v1") || !r.Removes() || slices.Clone(r)[:1].Removes() {
		t.Error("another entry counts")
	}
}
