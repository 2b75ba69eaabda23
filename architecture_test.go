package tare_test

import (
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// architecture is the page that a newcomer reads first.
func architecture(t *testing.T) (listing []string, text string) {
	t.Helper()
	page, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitN(string(page), "```", 3)
	if len(parts) != 3 {
		t.Fatal("ARCHITECTURE.md has no listing")
	}
	for word := range strings.FieldsSeq(parts[1]) {
		listing = append(listing, strings.Trim(word, ",;:/()"))
	}
	return listing, parts[2]
}

// A package is in the listing by its path or its last element; what lies below
// cli, test and the tests' own is not.
func TestListingIsWhole(t *testing.T) {
	listing, _ := architecture(t)
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		top, _, deep := strings.Cut(name, "/")
		if name == p.ImportPath || deep && (top == "cli" || top == "test") || strings.HasSuffix(name, "test") || strings.Contains(name, "/internal/") {
			continue
		}
		if !slices.Contains(listing, name) && !slices.Contains(listing, path.Base(name)) {
			t.Errorf("ARCHITECTURE.md does not list %s", name)
		}
	}
}

// The files that requests are followed through are there.
func TestFilesOfTheTextExist(t *testing.T) {
	_, text := architecture(t)
	found := regexp.MustCompile("`([a-z]+/[a-z0-9/_-]+\\.go)`").FindAllStringSubmatch(text, -1)
	if len(found) < 20 {
		t.Errorf("%d files are named", len(found))
	}
	for _, f := range found {
		if _, err := os.Stat(f[1]); err != nil {
			t.Errorf("ARCHITECTURE.md names %s: %v", f[1], err)
		}
	}
}
