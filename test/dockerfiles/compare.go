package dockerfiles

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// files that package managers write anew with each installation.
var alwaysLoose = []string{
	"/var/log/*", "/var/log/apt/*", "/var/cache/ldconfig/aux-cache", "/etc/shadow", "/etc/shadow-", "/etc/machine-id", "/etc/ssl/private/*", "/etc/ssl/certs/ssl-cert-*",
	"/var/lib/dpkg/*-old", "/var/cache/debconf/*", "/var/lib/systemd/*", "/etc/ld.so.cache",
}

// What BuildKit's runtime makes in a tree that lacks it, and leaves in the layer.
// Here every container has it, and no layer.
var mountPoints = []string{"/dev", "/proc", "/sys"}

// differences tells where an image differs from the one that is wanted, a line
// each. Times count where a file is older than the build; content does not
// where a pattern says so.
func (got *saved) differences(want *saved, began int64, loose []string) []string {
	var list []string
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, name := range keys(got.Config, want.Config) {
		if name == "config" {
			g, _ := got.Config[name].(map[string]any)
			w, _ := want.Config[name].(map[string]any)
			for _, field := range keys(g, w) {
				if text(g[field]) != text(w[field]) {
					add("config.%s is %s, want %s", field, text(g[field]), text(w[field]))
				}
			}
		} else if text(got.Config[name]) != text(want.Config[name]) {
			add("%s is %s, want %s", name, text(got.Config[name]), text(want.Config[name]))
		}
	}
	for i := range max(len(got.History), len(want.History)) {
		var g, w step
		if i < len(got.History) {
			g = got.History[i]
		}
		if i < len(want.History) {
			w = want.History[i]
		}
		if g != w && !(g.isHealthcheck() && w.isHealthcheck()) {
			add("history %d is\n\t%s, want\n\t%s", i, text(g), text(w))
		}
	}
	if len(got.Layers) != len(want.Layers) {
		add("there are %d layers, want %d", len(got.Layers), len(want.Layers))
		return list
	}
	loose = slices.Concat(alwaysLoose, loose)
	for i := range got.Layers {
		for _, line := range got.Layers[i].differences(want.Layers[i], began, loose) {
			add("layer %d: %s", i, line)
		}
	}
	return list
}

// isHealthcheck tells whether a step is one whose words are those of Go's own
// printing of a structure, which changed with the structure. The config has the
// same, and is compared.
func (s step) isHealthcheck() bool {
	return strings.HasPrefix(s.CreatedBy, "HEALTHCHECK ") && s.EmptyLayer
}

func (got layer) differences(want layer, began int64, loose []string) []string {
	var list []string
	for _, name := range keys(got, want) {
		g, has := got[name]
		w, should := want[name]
		isLoose := slices.ContainsFunc(loose, func(pattern string) bool {
			if prefix, ok := strings.CutSuffix(pattern, "/**"); ok {
				return strings.HasPrefix(name, prefix+"/")
			}
			match, _ := path.Match(pattern, name)
			return match
		})
		switch {
		case !should:
			list = append(list, fmt.Sprintf("%s (%s) is too many", name, g.Is))
		case !has && w.Is == "d 755 0:0" && slices.Contains(mountPoints, name):
		case !has:
			list = append(list, fmt.Sprintf("%s (%s) is missing", name, w.Is))
		case g.Is != w.Is:
			list = append(list, fmt.Sprintf("%s is %s, want %s", name, g.Is, w.Is))
		case g.Content != w.Content && !isLoose:
			list = append(list, fmt.Sprintf("%s has another content", name))
		case g.time != w.time && min(g.time, w.time) < began && !strings.HasPrefix(g.Is, "d"): // those change with what is made in them
			list = append(list, fmt.Sprintf("%s is of %d, want %d", name, g.time, w.time))
		}
	}
	return list
}

func keys[V any](a, b map[string]V) []string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]V{}
	}
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}

func text(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(data)
}
