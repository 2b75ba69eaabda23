package container

import (
	"context"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/storage"

	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/spec"
	"github.com/tarehq/tare/logs/driver"
)

// Inspect tells all about a container. It waits for nothing but memory; with
// size it walks the writable layer.
func (s *Service) Inspect(ctx context.Context, nameOrID string, size bool) (wire.InspectResponse, error) {
	r, err := s.store.Find(nameOrID)
	if err != nil {
		return wire.InspectResponse{}, err
	}
	manifest := r.Image.Manifest
	out := wire.InspectResponse{
		ID:                      r.ID,
		Created:                 stamp(r.Created),
		Path:                    r.Path,
		Args:                    notNil(r.Args),
		State:                   wireState(r),
		Image:                   r.Image.ID.String(),
		Name:                    "/" + r.Name,
		RestartCount:            r.RestartCount,
		Driver:                  s.cfg.Snapshots.Driver(),
		Platform:                r.Image.OS,
		HostConfig:              r.HostConfig,
		Config:                  r.Config,
		Mounts:                  r.MountPoints(),
		NetworkSettings:         s.Listing.NetworkSettings(r),
		ImageManifestDescriptor: &manifest,
		Storage:                 &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: s.cfg.Snapshots.Driver()}}},
		ExecIDs:                 s.Execs.sessions.Of(r.ID),
	}
	if profile := s.cfg.Confinement.profile(); profile != "" {
		out.AppArmorProfile = spec.Profile(r.HostConfig, profile)
	}
	if r.Labels != nil {
		out.ProcessLabel, out.MountLabel = r.Labels.Process, r.Labels.Mount
	}
	if len(r.HostConfig.Links) > 0 {
		out.HostConfig = s.links.Shown(r)
	}
	if !r.StartedAt.IsZero() { // they are written by the first start
		var files spec.Input
		owner, err := s.store.NetworkOwner(r)
		if err != nil {
			owner = r // of a network whose owner is gone nothing is left
		}
		s.store.HostFiles(owner.ID, &files)
		out.HostsPath, out.HostnamePath, out.ResolvConfPath = files.Hosts, files.Hostname, files.ResolvConf
	}
	if r.HostConfig.LogConfig.Type == driver.JSONFile && !r.StartedAt.IsZero() {
		out.LogPath = s.Logbook.Path(&r)
	}
	if size {
		rw, root, err := s.cfg.Snapshots.Usage(ctx, r.ID)
		if err != nil {
			return out, err
		}
		out.SizeRw, out.SizeRootFs = &rw, &root
	}
	return out, nil
}

func notNil[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// stamp writes a moment the way Docker does; the zero one is the year 1.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// shownHealth has an empty list of a check that was not made yet, not none.
func shownHealth(h *wire.Health) *wire.Health {
	if h == nil || h.Log != nil {
		return h
	}
	shown := *h
	shown.Log = []*wire.HealthcheckResult{}
	return &shown
}

// wireState derives Docker's booleans.
func wireState(r Record) *wire.State {
	return &wire.State{
		Status:     r.State.Wire(),
		Running:    r.State.Live(), // Docker calls a restarting container running
		Paused:     r.State == record.Paused,
		Restarting: r.State == record.Restarting,
		OOMKilled:  r.OOMKilled,
		Pid:        r.Pid,
		ExitCode:   r.ExitCode,
		Error:      r.Error,
		StartedAt:  stamp(r.StartedAt),
		FinishedAt: stamp(r.FinishedAt),
		Health:     shownHealth(r.Health),
	}
}
