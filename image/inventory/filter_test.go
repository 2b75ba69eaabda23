package inventory

import (
	"testing"

	"github.com/tarehq/tare/image/catalog"
)

// One platform of an image is enough for a filter by label.
func TestLabelsOfPlatforms(t *testing.T) {
	with := func(labels map[string]string) catalog.Member {
		d := &catalog.Detail{}
		d.Config.Config.Labels = labels
		return catalog.Member{Detail: d}
	}
	members := []catalog.Member{with(map[string]string{"a": "1"}), {}, with(map[string]string{"b": "2"})}
	for _, c := range []struct {
		labels, noLabels []string
		want             bool
	}{
		{nil, nil, true}, {[]string{"b=2"}, nil, true}, {[]string{"b=1"}, nil, false}, {[]string{"a", "b"}, nil, false},
		{nil, []string{"a"}, true}, {[]string{"a"}, []string{"a=1"}, false},
	} {
		f := Filter{labels: c.labels, noLabels: c.noLabels}
		if got := f.Image(nil, members); got != c.want {
			t.Errorf("%v without %v: %v", c.labels, c.noLabels, got)
		}
	}
}
