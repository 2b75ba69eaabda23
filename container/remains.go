package container

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/cgroupfs"
)

// The end of a memory group has the kernel look at every file system that is
// mounted on the machine: milliseconds beside a thousand containers, in which
// nobody makes a group or mounts anything. So control groups wait for a quiet
// moment, and go one by one as long as it lasts.
const (
	remainsPause = 100 * time.Millisecond // without the start or the end of a run
	remainsPace  = 10 * time.Millisecond  // from one to the next
	remainsMost  = 128                    // that wait
)

// remains are what ended runs leave: control groups, in which nobody is any more,
// and the bundle, which tells the next daemon of them should this one be killed.
type remains struct {
	bundles *bundles
	wake    chan struct{} // a run began or ended

	mu      sync.Mutex
	waiting []remain                 // the oldest first
	leaving map[string]chan struct{} // being removed, by the container's ID; closed when it is
}

// remain is what one run leaves.
type remain struct {
	id, dir string // of the container; the bundle
	keep    bool   // the bundle stays, for the next daemon to read
}

func newRemains(b *bundles) *remains {
	return &remains{bundles: b, wake: make(chan struct{}, 1), leaving: map[string]chan struct{}{}}
}

// stir tells that something goes on beside which nothing is to be removed.
func (m *remains) stir() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// add leaves a run's bundle, with its groups, for a quiet moment. When too many
// wait it removes the oldest: runs do not end faster than they are removed.
func (m *remains) add(r remain) {
	m.mu.Lock()
	m.waiting = append(m.waiting, r)
	many := len(m.waiting) > remainsMost
	m.mu.Unlock()
	if many {
		m.next()
	}
	m.stir()
}

// next removes the oldest, if there is one.
func (m *remains) next() bool {
	m.mu.Lock()
	if len(m.waiting) == 0 {
		m.mu.Unlock()
		return false
	}
	m.removeLocked(0)
	return true
}

// settle removes what a container has left before; nothing of it is left when it
// returns.
func (m *remains) settle(id string) {
	for {
		m.mu.Lock()
		if gone := m.leaving[id]; gone != nil {
			m.mu.Unlock()
			<-gone
			continue
		}
		i := slices.IndexFunc(m.waiting, func(r remain) bool { return r.id == id })
		if i < 0 {
			m.mu.Unlock()
			return
		}
		m.removeLocked(i)
	}
}

// removeLocked removes one of those that wait, without the lock, which it gives up.
func (m *remains) removeLocked(i int) {
	r, gone := m.waiting[i], make(chan struct{})
	m.waiting = slices.Delete(m.waiting, i, i+1)
	m.leaving[r.id] = gone
	m.mu.Unlock()
	m.remove(r)
	m.mu.Lock()
	delete(m.leaving, r.id)
	m.mu.Unlock()
	close(gone)
}

// run removes what waits in quiet moments, until closing.
func (m *remains) run(closing <-chan struct{}) {
	quiet := time.NewTimer(remainsPause)
	defer quiet.Stop()
	for {
		select {
		case <-closing:
			return
		case <-m.wake:
			quiet.Reset(remainsPause)
		case <-quiet.C:
			if m.next() {
				quiet.Reset(remainsPace)
			}
		}
	}
}

// clear removes all that waits.
func (m *remains) clear() {
	for m.next() {
	}
}

// remove removes a run's groups and its bundle. Groups in which somebody is, against
// all expectation, are left to who can kill.
func (m *remains) remove(r remain) {
	dirs, err := groupsOf(r.dir)
	if errors.Is(err, fs.ErrNotExist) { // it died before there was anything
		err = nil
	}
	for _, dir := range dirs {
		err = errors.Join(err, cgroupfs.Remove(dir))
	}
	if errors.Is(err, unix.EBUSY) {
		ctx, cancel := context.WithTimeout(context.Background(), cleanGrace)
		err = m.bundles.launcher.Collect(ctx, r.id, r.dir)
		cancel()
	}
	if err != nil {
		m.bundles.log.Error("control groups of an ended container are left", "container", r.id, "err", err)
	}
	if !r.keep {
		m.bundles.drop(r.dir)
	}
}

// groupsOf reads from a bundle where the control groups are; none of those that
// are systemd's.
func groupsOf(dir string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	var config struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(data, &config); err != nil {
		return nil, err
	}
	path := config.Linux.CgroupsPath
	if path == "" || strings.Contains(path, ":") {
		return nil, nil
	}
	layout, err := cgroupfs.Host()
	if err != nil {
		return nil, err
	}
	return layout.Places(path), nil
}
