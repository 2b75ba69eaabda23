package container

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
)

// Realtime is how long, of each period, the real-time processes of all containers
// together may run, in microseconds; 0 leaves what the kernel has. Version 1 of
// control groups has it, where the kernel schedules such groups
// (Documentation/scheduler/sched-rt-group.rst): a group gets no time that the one
// above it does not have.
type Realtime struct{ Period, Runtime int64 }

const (
	realtimePeriod  = "cpu.rt_period_us"
	realtimeRuntime = "cpu.rt_runtime_us"
)

// hierarchy finds where the kernel has such budgets.
func (r Realtime) hierarchy(l *cgroupfs.Layout) (*cgroupfs.Hierarchy, error) {
	at := slices.IndexFunc(l.V1, func(h cgroupfs.Hierarchy) bool { return h.Has("cpu") })
	if at >= 0 {
		if _, err := os.Stat(filepath.Join(l.V1[at].Place("/"), realtimePeriod)); err == nil {
			return &l.V1[at], nil
		}
	}
	return nil, fault.New(fault.Invalid, "kernel does not support CPU real-time scheduler")
}

// check refuses what this kernel cannot give.
func (r Realtime) check(l *cgroupfs.Layout) error {
	if r == (Realtime{}) {
		return nil
	}
	_, err := r.hierarchy(l)
	return err
}

// allow gives the group, which is made where it is not there, and all that it
// lies in their time.
func (r Realtime) allow(l *cgroupfs.Layout, group string) error {
	if r == (Realtime{}) {
		return nil
	}
	h, err := r.hierarchy(l)
	if err != nil {
		return err
	}
	dir := h.Place("/")
	for name := range strings.SplitSeq(strings.Trim(filepath.Clean("/"+group), "/"), "/") {
		dir = filepath.Join(dir, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		for _, f := range []struct {
			name string
			n    int64
		}{{realtimePeriod, r.Period}, {realtimeRuntime, r.Runtime}} {
			if f.n == 0 {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, f.name), strconv.AppendInt(nil, f.n, 10), 0); err != nil {
				return fault.New(fault.Invalid, "cannot give %s the real-time budget of --cpu-rt-period and --cpu-rt-runtime, which has to fit into what the groups above it have: %w", dir, err)
			}
		}
	}
	return nil
}
