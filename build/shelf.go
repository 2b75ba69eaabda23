package build

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/internal/treecopy"
)

// shelf is a directory of directories that live on between builds,
// <root>/<name>/<key>.<n>, in which tree is the files and about.json an about. n is
// 0 but for those of which several wanted one each at a time.
type shelf struct {
	dir string

	mu   sync.Mutex
	used map[string]*use // by name
	free chan struct{}   // closed and replaced when one is given back
}

// use is who has a directory.
type use struct {
	users int
	alone bool // nobody else may have it
}

func newShelf(root, name string) shelf {
	return shelf{dir: filepath.Join(root, name), used: map[string]*use{}, free: make(chan struct{})}
}

// open makes the shelf, and removes what was half made.
func (c *shelf) open() error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "new") {
			err = errors.Join(err, c.remove(e.Name()))
		}
	}
	return err
}

func (c *shelf) remove(name string) error {
	dir, err := os.Open(c.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	return treecopy.Remove(dir, name)
}

// hold gives the directory of a key, and tells its name. Until release nobody
// else has it who may not.
func (c *shelf) hold(ctx context.Context, key string, sharing pb.CacheSharingOpt) (name string, release func(), err error) {
	for {
		c.mu.Lock()
		name, ok := c.takeLocked(key, sharing)
		free := c.free
		c.mu.Unlock()
		if ok {
			return name, func() { c.release(name) }, nil
		}
		select {
		case <-free:
		case <-ctx.Done():
			return "", nil, context.Cause(ctx)
		}
	}
}

func (c *shelf) takeLocked(key string, sharing pb.CacheSharingOpt) (string, bool) {
	for n := 0; ; n++ {
		name := key + "." + strconv.Itoa(n)
		u := c.used[name]
		switch {
		case u == nil:
			c.used[name] = &use{users: 1, alone: sharing != pb.CacheSharingOpt_SHARED}
			return name, true
		case sharing == pb.CacheSharingOpt_SHARED && !u.alone:
			u.users++
			return name, true
		case sharing != pb.CacheSharingOpt_PRIVATE:
			return "", false
		}
	}
}

func (c *shelf) release(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.used[name]
	if u.users--; u.users > 0 {
		return
	}
	delete(c.used, name)
	close(c.free)
	c.free = make(chan struct{})
}

// names lists the directories.
func (c *shelf) names() (list []string, err error) {
	entries, err := os.ReadDir(c.dir)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "new") {
			list = append(list, e.Name())
		}
	}
	return list, err
}

// drop removes a directory, unless somebody has it.
func (c *shelf) drop(name string) (bool, error) {
	c.mu.Lock()
	if c.used[name] != nil {
		c.mu.Unlock()
		return false, nil
	}
	c.used[name] = &use{users: 1, alone: true}
	c.mu.Unlock()
	defer c.release(name)
	return true, c.remove(name)
}

// inUse tells whether somebody has a directory.
func (c *shelf) inUse(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used[name] != nil
}

// about is what is remembered of a directory.
type about struct {
	ID       string // what a user calls it
	Created  time.Time
	LastUsed time.Time
	Uses     int
	Facts    map[string]string `json:",omitempty"` // of a source, how it was
}

func (a *about) used(id string) {
	now := time.Now().UTC()
	if a.Created.IsZero() {
		a.Created = now
	}
	a.ID, a.LastUsed, a.Uses = id, now, a.Uses+1
}

func (c *shelf) about(name string) (a about) {
	if data, err := os.ReadFile(filepath.Join(c.dir, name, "about.json")); err == nil {
		_ = json.Unmarshal(data, &a) // a cache may forget
	}
	return a
}

func (c *shelf) tell(name string, a about) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(c.dir, name, "about.json"), data, 0o600)
}
