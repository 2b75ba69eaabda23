package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/registry/config"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/remote"
)

// hangUp has the registry read its configuration again, and waits for the line
// of its log that says what came of it.
func (r *running) hangUp(t *testing.T, want string) {
	t.Helper()
	before := len(r.log.String())
	if err := syscall.Kill(syscall.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	testutil.Eventually(t, 20*time.Second, want, func() bool { return strings.Contains(r.log.String()[before:], want) })
}

// TestReload changes who may do what and what binds repositories while the
// registry runs, and nothing by a configuration that is wrong.
func TestReload(t *testing.T) {
	ctx := t.Context()
	file, root := filepath.Join(t.TempDir(), "registry.toml"), t.TempDir()
	write(t, file, "")
	r := start(t, "--config", file, "--root", root)
	own := r.repository(t, "own/box", remote.Credentials{})
	if err := push(ctx, own, "first", "v1"); err != nil {
		t.Fatal(err)
	}

	write(t, file, "[[repository]]\nmatch = [\"own/**\"]\nimmutable_tags = [\"v*\"]\n")
	r.hangUp(t, "read the configuration again")
	wantKind(t, push(ctx, own, "second", "v1"), fault.Forbidden)
	wantPull(t, own, "v1", "first")

	rules := fmt.Sprintf("[auth]\nhtpasswd = %q\n[[auth.rule]]\nmatch = [\"**\"]\npull = [\"ann\"]\npush = [\"ann\"]\n", htpasswd(t, "ann", "secret"))
	write(t, file, rules)
	r.hangUp(t, "read the configuration again")
	_, err := pull(ctx, own, "v1")
	wantKind(t, err, fault.Unauthorized)
	ann := r.repository(t, "own/box", remote.Credentials{Username: "ann", Password: "secret"})
	if err := push(ctx, ann, "second", "v1"); err != nil {
		t.Error(err)
	}

	write(t, file, "[auth]\nrules = 3\n")
	r.hangUp(t, "the configuration stays what it was")
	wantPull(t, ann, "v1", "second")
	_, err = pull(ctx, own, "v1")
	wantKind(t, err, fault.Unauthorized)
	write(t, file, "[auth]\nhtpasswd = \"/not/there\"\n")
	r.hangUp(t, "the configuration stays what it was")
	wantPull(t, ann, "v1", "second")

	write(t, file, rules+"[limits]\nuploads = 3\n[metrics]\nlisten = \"127.0.0.1:1\"\n")
	r.hangUp(t, `parts="limits, metrics"`)
}

// TestChange keeps what cannot change, and names it.
func TestChange(t *testing.T) {
	old, next := config.Default(), config.Default()
	if got, fixed := change(old, next); len(fixed) > 0 || got.HTTP.Stall != old.HTTP.Stall {
		t.Errorf("the same: %v", fixed)
	}
	next.HTTP.Listen, next.Storage.Root, next.Collect.Grace = []string{"[::1]:1"}, "/else", config.Duration(time.Hour)
	next.Auth, next.Repositories = &config.Auth{Realm: "here"}, []config.Repository{{Quota: 1}}
	got, fixed := change(old, next)
	if !slices.Equal(fixed, []string{"http", "storage"}) || got.Storage != old.Storage || !slices.Equal(got.HTTP.Listen, old.HTTP.Listen) {
		t.Errorf("fixed: %v, got %+v", fixed, got)
	}
	if got.Auth != next.Auth || len(got.Repositories) != 1 || got.Collect != next.Collect {
		t.Errorf("changed: %+v", got)
	}
	old.Storage, next.Storage = config.Storage{S3: &config.S3{}}, config.Storage{S3: &config.S3{}}
	next.HTTP = old.HTTP
	if got, fixed := change(old, next); !slices.Equal(fixed, []string{"collect"}) || got.Collect.Grace != old.Collect.Grace {
		t.Errorf("a bucket's grace: %v, %v", fixed, got.Collect)
	}
}

// TestCareChanges has maintenance take up an interval after it had none.
func TestCareChanges(t *testing.T) {
	s := &counting{collected: make(chan time.Duration)}
	m := maintain(context.Background(), s, s, nil, config.Collect{}, newLog(&output{}, config.Log{}))
	defer m.end()
	m.change(nil, config.Collect{Interval: config.Duration(time.Millisecond), Grace: config.Duration(time.Hour)})
	select {
	case grace := <-s.collected:
		if grace != time.Hour {
			t.Errorf("collected with a grace of %v", grace)
		}
	case <-time.After(20 * time.Second):
		t.Error("nothing was collected")
	}
}

// counting is a storage that tells of its collections.
type counting struct {
	storage.Storage
	collected chan time.Duration
}

func (s *counting) Collect(ctx context.Context, grace time.Duration) (storage.Collected, error) {
	select {
	case s.collected <- grace:
	case <-ctx.Done():
	}
	return storage.Collected{}, ctx.Err()
}
