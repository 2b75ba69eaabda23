package spec

import (
	"errors"
	"strings"
	"testing"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
)

func TestSets(t *testing.T) {
	for text, want := range map[string]string{
		"x":       "Invalid value x for cpuset cpus: invalid format: x",
		"0-60000": "Requested CPUs are not available - requested 0-60000, available: ",
	} {
		if err := CheckLimits(&wire.HostConfig{Resources: wire.Resources{CpusetCpus: text}}); !errors.Is(err, fault.Invalid) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if err := CheckLimits(&wire.HostConfig{Resources: wire.Resources{CpusetCpus: "0", CpusetMems: "0"}}); err != nil {
		t.Error(err)
	}
}
