package cacheio

import (
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// A record that stands on others is found when they are its inputs', and only then.
func TestMatch(t *testing.T) {
	base, content, step, part := digest.FromString("base"), digest.FromString("content"), digest.FromString("step"), digest.FromString("part")
	text, _, err := Write([]Record{
		{Key: digest.FromString("ours"), Layers: []Layer{layer("a")}, Blobs: true},
		{Key: base}, {Key: content},
		{Key: step, Layers: []Layer{layer("a"), layer("b")}, Blobs: true, Links: [][]Link{{{Record: 1}}, {{Selector: part, Record: 1}, {Record: 2}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := ReadConfig(text)
	if err != nil || !c.Linked() {
		t.Fatal(c, err)
	}
	if got := c.Match(base, nil); !slices.Equal(got, []int{1}) {
		t.Fatalf("the base is %v", got)
	}
	of := func(n int) map[int]bool { return map[int]bool{n: true} }
	for name, x := range map[string]struct {
		inputs []Input
		want   []int
	}{
		"by content":          {[]Input{{Records: of(1)}, {Content: content}}, []int{3}},
		"by part":             {[]Input{{Records: of(1)}, {Records: of(1), Selector: part}}, []int{3}},
		"another part":        {[]Input{{Records: of(1)}, {Records: of(1)}}, nil},
		"another base":        {[]Input{{Records: of(0)}, {Content: content}}, nil},
		"another content":     {[]Input{{Records: of(1)}, {Content: base}}, nil},
		"content in its step": {[]Input{{Content: base}, {Content: step}}, nil},
		"fewer inputs":        {[]Input{{Records: of(1)}}, nil},
		"none":                {nil, nil},
	} {
		if got := c.Match(step, x.inputs); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
	if r, ok := c.Result(3); !ok || len(r.Layers) != 2 || !r.Blobs {
		t.Errorf("it came to %+v", r)
	}
	if _, ok := c.Result(1); ok {
		t.Error("what has no layers came to something")
	}
}

// Links that lead nowhere match nothing, whoever wrote them.
func TestLinksNowhere(t *testing.T) {
	key := digest.FromString("x")
	for _, text := range []string{
		`{"records":[{"digest":"` + key.String() + `","inputs":[[{"link":7}],[{"link":-3}]]}]}`,
		`{"records":[{"digest":"` + key.String() + `","inputs":[[{"link":0}],[]]}]}`,
		`{"records":[{"digest":"` + key.String() + `","inputs":[[],[]],"layers":[{"layer":9}]}],"layers":[{"blob":"x","parent":0},{"blob":"","parent":5}]}`,
	} {
		c, err := ReadConfig([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		all := Input{Records: map[int]bool{-1: true, 0: true, 7: true}, Content: key}
		if got := c.Match(key, []Input{all, all}); len(got) > 0 {
			t.Errorf("%s: %v", text, got)
		}
		if _, ok := c.Result(0); ok {
			t.Errorf("%s came to something", text)
		}
	}
	if _, err := ReadConfig([]byte(`{"records":7}`)); err == nil {
		t.Error("what is no config was read")
	}
}
