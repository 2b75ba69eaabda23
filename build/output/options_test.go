package output

import (
	"errors"
	"strings"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"

	"github.com/tarehq/tare/fault"
)

// TestNamesOfTheNameless: an image without a name is here by its ID, as dockerd
// asks for it, and another name in its place is refused.
func TestNamesOfTheNameless(t *testing.T) {
	read := func(key, value string) error {
		_, err := Read(&controlapi.SolveRequest{Exporters: []*controlapi.Exporter{{Type: "image", Attrs: map[string]string{key: value}}}})
		return err
	}
	for _, option := range []string{"dangling-name-prefix=moby-dangling", "dangling-name-prefix=", "danging-name-empty-only=true"} {
		key, value, _ := strings.Cut(option, "=")
		if err := read(key, value); err != nil {
			t.Errorf("%s: %v", option, err)
		}
	}
	if err := read("dangling-name-prefix", "mine"); !errors.Is(err, fault.NotImplemented) || !strings.Contains(err.Error(), "dangling-name-prefix=mine") {
		t.Errorf("another prefix: %v", err)
	}
	if err := read("danging-name-prefix", "mine"); !errors.Is(err, fault.Invalid) {
		t.Errorf("what is no option: %v", err)
	}
}
