package mounts

import (
	"errors"
	"testing"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/fault"
)

// An image's volumes are the container's, unless something is mounted there.
func TestVolumesBesideMounts(t *testing.T) {
	volumes := map[string]struct{}{"/mine": {}, "/data": {}, "/h/": {}}
	h := &wire.HostConfig{VolumeDriver: "d", Tmpfs: map[string]string{"/mine": ""}}
	got, err := ownVolumes(volumes, h, map[string]bool{"/h": true})
	if err != nil || len(got) != 1 || got[0].Destination != "/data" || got[0].Driver != "d" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"/", "..", "/a\x00"} {
		if got, err := ownVolumes(map[string]struct{}{bad: {}}, h, map[string]bool{}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}
