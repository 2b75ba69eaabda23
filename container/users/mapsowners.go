package users

import (
	"context"
	"encoding/json"
	"os/exec"
	"slices"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go/features"

	"github.com/tarehq/tare/supervise"
)

// featuresTime is what a runtime may take to tell of itself.
const featuresTime = 5 * time.Second

// mapsOwners asks a runtime whether it maps the owners of mounts, by the subcommand
// that the OCI runtime specification has for such questions (features.md). Before
// runc 1.2 none said so, and runc took no notice of a mount's map: volumes would
// silently have had other owners.
func mapsOwners(r supervise.Runtime) bool {
	ctx, cancel := context.WithTimeout(context.Background(), featuresTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, r.Path, append(slices.Clone(r.Args), "features")...).Output()
	if err != nil {
		return false
	}
	var f features.Features
	if json.Unmarshal(out, &f) != nil || f.Linux == nil || f.Linux.MountExtensions == nil || f.Linux.MountExtensions.IDMap == nil {
		return false
	}
	enabled := f.Linux.MountExtensions.IDMap.Enabled
	return enabled != nil && *enabled
}
