package container

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	wirenet "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/event"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
	"github.com/tarehq/tare/snapshot"
)

// emptyRoots gives each container an empty root file system.
type emptyRoots struct{ Snapshots }

func (emptyRoots) Changes(string) (*snapshot.Changes, error) { return &snapshot.Changes{}, nil }

// committing stands for the images of a commit: it reads the files, while
// something else happens.
type committing struct {
	Images
	meanwhile func()
	got       image.CommitOptions
}

func (c *committing) Commit(_ context.Context, _ archive.Diff, o image.CommitOptions) (string, error) {
	c.got = o
	if c.meanwhile != nil {
		c.meanwhile()
	}
	if err := o.Check(); err != nil {
		return "", err
	}
	return "sha256:1", nil
}

func TestCommitOfAContainer(t *testing.T) {
	images, log := &committing{}, &event.Log{}
	s := &Service{store: recordtest.Store(t, t.TempDir()), cfg: Config{Commits: images, Snapshots: emptyRoots{}, Events: log, Log: slog.New(slog.DiscardHandler)}}
	recordtest.Add(t, s.store, "aa11", "one", false)
	sub := log.Subscribe(time.Time{}, time.Time{}, event.Filter{})
	defer sub.Close()
	ctx := context.Background()
	config := &wire.Config{Hostname: "h", User: "u", ExposedPorts: wirenet.PortSet{wirenet.MustParsePort("80/tcp"): {}}, Cmd: []string{"x"}}
	id, err := (&Files{s}).Commit(ctx, "one", CommitOptions{Reference: "a/b", Comment: "why", Pause: true, Config: config})
	if err != nil || id != "sha256:1" {
		t.Fatal(id, err)
	}
	c := images.got.Config
	if c == nil || c.User != "u" || !cmp.Equal(c.ExposedPorts, map[string]struct{}{"80/tcp": {}}) || !cmp.Equal(c.Cmd, []string{"x"}) {
		t.Errorf("the config is %+v", c)
	}
	msg, err := sub.Next(ctx)
	if err != nil || msg.Action != events.ActionCommit || msg.Actor.ID != "aa11" || msg.Actor.Attributes["imageID"] != id ||
		msg.Actor.Attributes["imageRef"] != "a/b:latest" || msg.Actor.Attributes["comment"] != "why" {
		t.Errorf("%+v, %v", msg, err)
	}
}

// What is read of a container that is being deleted is no image, and no whole
// archive.
func TestFilesOfAContainerThatGoes(t *testing.T) {
	images := &committing{}
	s := &Service{store: recordtest.Store(t, t.TempDir()), cfg: Config{Commits: images, Snapshots: emptyRoots{}, Events: &event.Log{}}}
	ctx := context.Background()
	recordtest.Add(t, s.store, "aa11", "one", false)
	images.meanwhile = func() { _, _ = s.store.Remove("aa11") }
	if _, err := (&Files{s}).Commit(ctx, "one", CommitOptions{}); !errors.Is(err, fault.Conflict) {
		t.Errorf("commit: %v", err)
	}
	for _, f := range []func() error{
		func() error { _, err := (&Files{s}).Commit(ctx, "one", CommitOptions{}); return err },
		func() error { return (&Files{s}).Changes(ctx, "one", nil) },
		func() error { return (&Files{s}).Export(ctx, "one", io.Discard) },
	} {
		if err := f(); !errors.Is(err, fault.NotFound) {
			t.Errorf("afterwards: %v", err)
		}
	}
	recordtest.Add(t, s.store, "bb22", "two", false)
	w := writerFunc(func(p []byte) (int, error) { _, _ = s.store.Remove("bb22"); return len(p), nil })
	if err := (&Files{s}).Export(ctx, "two", w); !errors.Is(err, fault.Conflict) {
		t.Errorf("export: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
