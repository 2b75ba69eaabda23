package device

import (
	"slices"
	"strings"
	"testing"

	wire "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestGPUNames(t *testing.T) {
	for want, r := range map[string]wire.DeviceRequest{
		"x=all": {Count: -1}, "x=0 x=1": {Count: 2}, "x=a x=b": {DeviceIDs: []string{"a", "b"}}, "": {},
	} {
		if got := strings.Join(gpuNames("x", r), " "); got != want {
			t.Errorf("%+v: %q, want %q", r, got, want)
		}
	}
}

func TestDevicesSwitchedOff(t *testing.T) {
	var c CDI
	if err := c.Apply(&specs.Spec{}, nil); err != nil {
		t.Errorf("no device is asked for: %v", err)
	}
	err := c.Apply(&specs.Spec{}, []wire.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"v/c=x"}}})
	if err == nil || !strings.HasPrefix(err.Error(), "CDI device injection failed: ") {
		t.Error(err)
	}
	if len(c.Devices()) != 0 {
		t.Error("there are devices")
	}
}

func TestAnyWithin(t *testing.T) {
	there := []string{"gpu", "nvidia"}
	if !anyWithin([][]string{{"tpu"}, {"gpu", "nvidia"}}, there) || anyWithin([][]string{{"gpu", "tpu"}}, there) || anyWithin(nil, there) {
		t.Error("one list is enough, and all of it")
	}
	if !slices.Equal(there, []string{"gpu", "nvidia"}) {
		t.Error(there)
	}
}
