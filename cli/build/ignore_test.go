package build

import "testing"

func TestIgnored(t *testing.T) {
	for _, c := range []struct {
		patterns  string
		out, sent []string
	}{
		{"# not this\n\n  secret \n/abs\ndir/", []string{"secret", "abs", "dir", "dir/below/it"}, []string{"# not this", "secrets", "a/secret"}},
		{"*.log\n*/*.tmp", []string{"a.log", "a/b.tmp"}, []string{"a/b.log", "a/b/c.tmp", "b.tmp"}},
		{"**/*.log", []string{"a.log", "a/b/c.log"}, []string{"a.logs"}},
		{"dir/**", []string{"dir/a", "dir/a/b"}, []string{"dir", "other"}},
		{"**/node_modules", []string{"node_modules/x", "a/node_modules/b"}, []string{"a/node"}},
		{"*\n!kept\n!a/b", []string{"x", "a", "a/c"}, []string{"kept", "kept/below", "a/b", "a/b/c"}},
		{"*.md\n!README*.md\nREADME-secret.md", []string{"a.md", "README-secret.md"}, []string{"README.md"}},
		{"[", nil, []string{"["}},
		{"a**b", nil, []string{"a/b"}}, // the daemon knows it
	} {
		list := readIgnored(c.patterns)
		for _, name := range c.out {
			if !list.out(name) {
				t.Errorf("%q leaves %s in", c.patterns, name)
			}
		}
		for _, name := range c.sent {
			if list.out(name) {
				t.Errorf("%q leaves %s out", c.patterns, name)
			}
		}
	}
}
