package container

import (
	"errors"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
)

func TestPrunable(t *testing.T) {
	old := Record{Spec: record.Spec{Created: time.Now().Add(-2 * time.Hour), Config: &wire.Config{Labels: map[string]string{"a": "1", "b": "2"}}}}
	fresh := Record{Spec: record.Spec{Created: time.Now(), Config: &wire.Config{}}}
	type filters map[string]map[string]bool
	for _, test := range []struct {
		f          filters
		old, fresh bool
	}{
		{nil, true, true},
		{filters{"until": {"1h": true}}, true, false},
		{filters{"label": {"a": true}}, true, false},
		{filters{"label": {"a": true, "b=3": true}}, false, false},
		{filters{"label!": {"a=1": true}}, false, true},
		{filters{"label!": {"a": true, "c": true}}, true, true},
		{filters{"label": {"a": true}, "until": {"3h": true}}, false, false},
	} {
		wanted, err := prunable(test.f)
		if err != nil || wanted(old) != test.old || wanted(fresh) != test.fresh {
			t.Errorf("%v: %v", test, err)
		}
	}
	for _, bad := range []filters{{"name": {"x": true}}, {"until": {"1h": true, "2h": true}}, {"until": {"tomorrow": true}}} {
		if _, err := prunable(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
