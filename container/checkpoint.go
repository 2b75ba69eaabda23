package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"github.com/moby/moby/api/types/events"

	"github.com/tarehq/tare/container/checkpoint"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/network"
	"github.com/tarehq/tare/supervise"
)

// Checkpoints are what CRIU has written of containers' processes, each a
// directory with CRIU's images: what a container starts from when a start names
// it. They lie with the container and go with it, or where the caller says.
type Checkpoints struct{ containers *Service }

// CheckpointOptions say what Create makes.
type CheckpointOptions struct {
	Name string
	Dir  string // where it lies; "" with the container
	Exit bool   // the container ends; else it goes on
	// PreDump has the memory be written before, while the container goes on.
	PreDump bool
}

var checkpointName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// dir is a container's directory of checkpoints.
func (c *Checkpoints) dir(r *Record, dir string) string {
	if dir != "" {
		return dir
	}
	return c.containers.store.Path(r.ID, "checkpoints")
}

// Create makes a checkpoint of a container that runs. Once it is begun it is
// finished, or nothing is left of it, whatever becomes of the client or of the
// daemon. A container that ends by it is not started again by its policy.
func (c *Checkpoints) Create(ctx context.Context, nameOrID string, o CheckpointOptions) error {
	s := c.containers
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	keeper, ended, err := s.lives.running(r)
	if err != nil {
		return err
	}
	if !checkpointName.MatchString(o.Name) {
		return fmt.Errorf("Invalid checkpoint ID (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", o.Name) //nolint:staticcheck // Docker's words
	}
	dir, err := c.prepare(&r, nameOrID, o)
	if err != nil {
		return fmt.Errorf("cannot checkpoint container %s: %w", nameOrID, err)
	}
	if err := c.write(context.WithoutCancel(ctx), r, keeper, ended, dir, o); err != nil {
		return fmt.Errorf("Cannot checkpoint container %s: %w", nameOrID, err) //nolint:staticcheck // Docker's words
	}
	s.publish(r, events.ActionCheckpoint)
	return nil
}

// prepare finds the checkpoint's place.
func (c *Checkpoints) prepare(r *Record, called string, o CheckpointOptions) (string, error) {
	if o.Exit && o.Dir == "" && r.AutoRemove() {
		return "", fault.New(fault.Conflict, "it removes itself when it ends (--rm), and the checkpoint with it: leave it running, or name another directory")
	}
	dir := filepath.Join(c.dir(r, o.Dir), o.Name)
	if !filepath.IsAbs(dir) {
		return "", fault.New(fault.Invalid, "the checkpoint's directory %q must be absolute", o.Dir)
	}
	switch st, err := os.Stat(dir); {
	case err == nil && st.IsDir():
		return "", fmt.Errorf("checkpoint with name %s already exists for container %s", o.Name, called)
	case err == nil:
		return "", fmt.Errorf("%s exists and is not a directory", dir)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	return dir, os.MkdirAll(filepath.Dir(dir), 0o700)
}

// write has the supervising process write it.
func (c *Checkpoints) write(ctx context.Context, r Record, keeper *supervise.Keeper, ended <-chan struct{}, dir string, o CheckpointOptions) error {
	s := c.containers
	criu, err := checkpoint.FindCRIU()
	if err != nil {
		return err
	}
	if err := checkpointable(&r); err != nil {
		return err
	}
	note, err := json.Marshal(placeNotes(r.Sandbox))
	if err != nil {
		return err
	}
	stopped, exit := r.ManuallyStopped, o.Exit
	rest := func(on bool) error {
		_, err := s.store.Note(r.ID, func(p *record.Progress) error { p.ManuallyStopped = on; return nil })
		return err
	}
	if exit {
		if err := rest(true); err != nil {
			return err
		}
	}
	err = keeper.Checkpoint(ctx, supervise.Checkpoint{CRIU: criu, Dir: dir, Exit: exit, PreDump: o.PreDump, Notes: map[string][]byte{checkpoint.PlacesFile: note}})
	if exit && errors.Is(err, fault.Unavailable) { // the end of the container was quicker than the answer
		<-ended
		if _, e := os.Stat(dir); e == nil {
			err = nil
		}
	}
	if err != nil {
		if exit {
			return errors.Join(err, rest(stopped))
		}
		return err
	}
	if exit {
		<-ended
	}
	return nil
}

// checkpointable says what in a container cannot be part of a checkpoint, before
// anything is touched.
func checkpointable(r *Record) error {
	h := r.HostConfig
	switch {
	case h.PidMode.IsHost(), h.PidMode.IsContainer():
		return fault.New(fault.Invalid, "a container whose processes are numbered with others (--pid %s) cannot be checkpointed", h.PidMode)
	case h.IpcMode.IsContainer():
		return fault.New(fault.Invalid, "a container that shares another's memory (--ipc %s) cannot be checkpointed", h.IpcMode)
	case h.NetworkMode.IsHost():
		return fault.New(fault.Invalid, "a container in the host's network (--network host) cannot be checkpointed")
	case r.Users != nil:
		return fault.New(fault.Invalid, "a container with a user namespace cannot be checkpointed: CRIU makes that anew, and the container's files are mapped to the one that is there; use --userns=host")
	}
	return nil
}

func placeNotes(b *network.Sandbox) (list []checkpoint.Place) {
	if b == nil {
		return nil
	}
	for _, e := range b.Endpoints {
		list = append(list, checkpoint.Place{NetworkID: e.NetworkID, Address: e.Address.Addr(), Address6: e.Address6.Addr(), MAC: e.MAC})
	}
	return list
}

// find is the directory of a checkpoint that is there.
func (c *Checkpoints) find(r *Record, called, dir, name string) (string, error) {
	path := filepath.Join(c.dir(r, dir), name)
	switch st, err := os.Stat(path); {
	case name == "" && err != nil:
		return "", fault.New(fault.NotFound, "there is no directory %q of checkpoints", dir)
	case name != "" && !checkpointName.MatchString(name), err != nil:
		return "", fmt.Errorf("checkpoint %s does not exist for container %s", name, called)
	case !st.IsDir():
		return "", fmt.Errorf("%s exists and is not a directory", path)
	}
	return path, nil
}

// List names a container's checkpoints.
func (c *Checkpoints) List(nameOrID, dir string) ([]string, error) {
	r, err := c.containers.store.Find(nameOrID)
	if err != nil {
		return nil, err
	}
	if dir != "" {
		if _, err := c.find(&r, nameOrID, dir, ""); err != nil {
			return nil, err
		}
	}
	entries, err := os.ReadDir(c.dir(&r, dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	names := []string{}
	for _, e := range entries {
		if e.IsDir() && checkpointName.MatchString(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Checkpoint is what there is to say of one.
type Checkpoint = checkpoint.Found

// Inspect tells of a checkpoint.
func (c *Checkpoints) Inspect(nameOrID, dir, name string) (Checkpoint, error) {
	r, err := c.containers.store.Find(nameOrID)
	if err != nil {
		return Checkpoint{}, err
	}
	path, err := c.find(&r, nameOrID, dir, name)
	if err != nil {
		return Checkpoint{}, err
	}
	found, err := checkpoint.Look(path)
	found.Name = name
	return found, err
}

// Remove deletes a checkpoint.
func (c *Checkpoints) Remove(ctx context.Context, nameOrID, dir, name string) error {
	r, unlock, err := c.containers.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	if name == "" {
		return fault.New(fault.Invalid, "name the checkpoint that is to be removed")
	}
	path, err := c.find(&r, nameOrID, dir, name)
	if err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// Start runs a container that does not run with the processes of a checkpoint,
// whose memory, where lazy is said, comes when it is touched.
func (c *Checkpoints) Start(ctx context.Context, nameOrID, dir, name string, lazy bool) error {
	s := c.containers
	r, unlock, err := s.lock(ctx, nameOrID)
	if err != nil {
		return err
	}
	defer unlock()
	if err := startable(r); err != nil {
		return err
	}
	if dir != "" {
		return fault.New(fault.Forbidden, "custom checkpointdir is not supported")
	}
	from, err := c.restoreFrom(&r, nameOrID, name)
	if err != nil {
		return err
	}
	from.Lazy = lazy
	return s.startAnew(context.WithoutCancel(ctx), r, from)
}

// restoreFrom is what a start from a checkpoint needs of it.
func (c *Checkpoints) restoreFrom(r *Record, called, name string) (*restore, error) {
	criu, err := checkpoint.FindCRIU()
	if err != nil {
		return nil, err
	}
	if err := checkpointable(r); err != nil {
		return nil, err
	}
	dir, err := c.find(r, called, "", name)
	if err != nil {
		return nil, err
	}
	from := &restore{Restore: supervise.Restore{CRIU: criu, Images: dir}}
	if from.places, err = checkpoint.Places(dir); err != nil {
		return nil, fault.New(fault.Invalid, "checkpoint %s of container %s cannot be read: %w", name, called, err)
	}
	return from, nil
}

// restore is the checkpoint that a container starts from.
type restore struct {
	supervise.Restore
	places []checkpoint.Place
}

// settle has a network give the addresses that the processes know, unless the
// container asks for others.
func (f *restore) settle(networks *network.Service, want *network.Want) {
	if f == nil {
		return
	}
	info, err := networks.Lookup(want.Network)
	if err != nil { // attaching will say so
		return
	}
	i := slices.IndexFunc(f.places, func(p checkpoint.Place) bool { return p.NetworkID == info.ID })
	if i < 0 {
		return
	}
	p := f.places[i]
	if !want.Address.IsValid() && p.Address.Is4() {
		want.Address = p.Address
	}
	if !want.Address6.IsValid() && p.Address6.Is6() {
		want.Address6 = p.Address6
	}
	if want.MAC == "" {
		want.MAC = p.MAC
	}
}
