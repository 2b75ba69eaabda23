package pattern

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		yes, not []string
	}{
		{"team/app", []string{"team/app"}, []string{"team", "team/app/x", "team/apps", "x/team/app"}},
		{"team/*", []string{"team/app", "team/x"}, []string{"team", "team/a/b"}},
		{"team/**", []string{"team/app", "team/a/b/c"}, []string{"team", "teams/a"}},
		{"**", []string{"a", "a/b", "a/b/c"}, nil},
		{"**/app", []string{"app", "a/app", "a/b/app"}, []string{"app/b", "apps"}},
		{"a/**/z", []string{"a/z", "a/b/z", "a/b/c/z", "a/z/z"}, []string{"a", "z", "a/b/c", "b/a/z"}},
		{"a/**/b/**/c", []string{"a/b/c", "a/x/b/y/z/c", "a/b/b/c"}, []string{"a/c", "a/b", "a/c/b"}},
		{"v?.*", []string{"v1.2", "v1.2.3"}, []string{"v1", "v10.2"}},
		{"[a-c]x", []string{"ax", "cx"}, []string{"dx", "x"}},
	} {
		p, err := Parse(c.pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range c.yes {
			if !p.Match(name) {
				t.Errorf("%s does not match %s", c.pattern, name)
			}
		}
		for _, name := range c.not {
			if p.Match(name) {
				t.Errorf("%s matches %s", c.pattern, name)
			}
		}
	}
	if (Pattern{}).Match("a") || (Pattern{}).Match("") {
		t.Error("the zero pattern matches something")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"", "/a", "a/", "a//b", "a**", "**a", "[a", `a\`, strings.Repeat("a", 600)} {
		if p, err := Parse(s); err == nil {
			t.Errorf("%q was accepted as %v", s, p)
		}
	}
}

func FuzzPattern(f *testing.F) {
	f.Add("a/**/b", "a/b")
	f.Add("**/x/*/**", "x/y/z")
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		p.Match(name)
		if !strings.ContainsAny(text, `*?[\`) && p.Match(name) != (text == name) {
			t.Errorf("%q and %q", text, name)
		}
	})
}
