package build

import (
	"path"
	"strings"
)

// ignored are the patterns of a .dockerignore, in their order: the last one that
// fits a path decides. The daemon applies the file as well, so a pattern that is
// not understood here costs time and leaves nothing out.
type ignored []pattern

type pattern struct {
	parts []string
	back  bool // what fits is not left out after all
}

// readIgnored reads a .dockerignore.
func readIgnored(text string) ignored {
	var list ignored
	for _, line := range strings.Split(strings.TrimPrefix(text, "\ufeff"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		line = strings.TrimSpace(line)
		back := strings.HasPrefix(line, "!")
		line = strings.TrimSpace(strings.TrimPrefix(line, "!"))
		if line == "" {
			continue
		}
		line = strings.TrimPrefix(path.Clean(line), "/")
		if line == "" {
			continue
		}
		list = append(list, pattern{strings.Split(line, "/"), back})
	}
	return list
}

// out tells whether a path is left out. Those below a directory that is are too.
func (l ignored) out(name string) bool {
	parts := strings.Split(name, "/")
	out := false
	for _, p := range l {
		if p.back != out {
			continue // it changes nothing
		}
		for n := 1; n <= len(parts); n++ {
			if fit(p.parts, parts[:n]) {
				out = !p.back
				break
			}
		}
	}
	return out
}

// whole tells whether all below a directory that is left out is too.
func (l ignored) whole(dir string) bool {
	for _, p := range l {
		if p.back {
			return false
		}
	}
	return l.out(dir)
}

// fit matches the parts of a path. "**" is any number of them.
func fit(pattern, parts []string) bool {
	for i, p := range pattern {
		if p == "**" {
			for n := 0; n <= len(parts)-i; n++ {
				if fit(pattern[i+1:], parts[i+n:]) {
					// "dir/**" is what is in dir, and not dir itself.
					if n > 0 || i+1 < len(pattern) {
						return true
					}
				}
			}
			return false
		}
		if i >= len(parts) || strings.Contains(p, "**") {
			return false
		}
		if ok, err := path.Match(p, parts[i]); err != nil || !ok {
			return false
		}
	}
	return len(pattern) == len(parts)
}
