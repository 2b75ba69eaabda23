package main

import (
	"flag"
	"io"
	"math"
	"os"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/ocirun"
)

// limitFlags are the limits that update takes on the command line.
type limitFlags struct {
	r      specs.LinuxResources
	memory specs.LinuxMemory
	cpu    specs.LinuxCPU

	l3CacheSchema, memBwSchema string
}

// given calls set for a flag that is there and not empty.
func given(f *flag.FlagSet, name string, set func(string) error) {
	f.Func(name, "", func(s string) error {
		if s == "" {
			return nil
		}
		return set(s)
	})
}

func intFlag(f *flag.FlagSet, name string, to **int64, read func(string) (int64, error)) {
	given(f, name, func(s string) error {
		n, err := read(s)
		*to = &n
		return err
	})
}

func uintFlag(f *flag.FlagSet, name string, to **uint64) {
	given(f, name, func(s string) error {
		n, err := strconv.ParseUint(s, 10, 64)
		*to = &n
		return err
	})
}

func plainInt(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) }

func (l *limitFlags) register(f *flag.FlagSet) {
	intFlag(f, "memory", &l.memory.Limit, parseBytes)
	intFlag(f, "memory-swap", &l.memory.Swap, parseBytes)
	intFlag(f, "memory-reservation", &l.memory.Reservation, parseBytes)
	intFlag(f, "cpu-quota", &l.cpu.Quota, plainInt)
	intFlag(f, "cpu-rt-runtime", &l.cpu.RealtimeRuntime, plainInt)
	intFlag(f, "cpu-idle", &l.cpu.Idle, plainInt)
	uintFlag(f, "cpu-period", &l.cpu.Period)
	uintFlag(f, "cpu-burst", &l.cpu.Burst)
	uintFlag(f, "cpu-share", &l.cpu.Shares)
	uintFlag(f, "cpu-rt-period", &l.cpu.RealtimePeriod)
	f.StringVar(&l.cpu.Cpus, "cpuset-cpus", "", "")
	f.StringVar(&l.cpu.Mems, "cpuset-mems", "", "")
	given(f, "pids-limit", func(s string) error {
		n, err := plainInt(s)
		l.r.Pids = &specs.LinuxPids{Limit: &n}
		return err
	})
	given(f, "blkio-weight", func(s string) error {
		n, err := strconv.ParseUint(s, 10, 16)
		w := uint16(n)
		l.r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
		return err
	})
	for _, name := range []string{"kernel-memory", "kernel-memory-tcp"} { // of runc 1.0, which the kernel has no more
		given(f, name, func(string) error { return nil })
	}
	f.StringVar(&l.l3CacheSchema, "l3-cache-schema", "", "")
	f.StringVar(&l.memBwSchema, "mem-bw-schema", "", "")
}

// parseBytes reads an amount of memory: a number, or one with a unit of 1024.
func parseBytes(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	text, shift := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s), "b"), "i"), 0
	for i, unit := range []string{"k", "m", "g", "t", "p"} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			text, shift = number, 10*(i+1)
		}
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if n *= float64(int64(1) << shift); err != nil || !(n >= 0 && n < math.MaxInt64) { // NaN is neither
		return 0, fault.New(fault.Invalid, "%q is no amount of memory", s)
	}
	return int64(n), nil
}

func runUpdate(g *settings, args []string) error {
	var l limitFlags
	f := newFlags("update")
	l.register(f)
	from := f.String("resources", "", "")
	f.StringVar(from, "r", "", "")
	c, err := onlyContainer(g, f, args)
	if err != nil {
		return err
	}
	l.r.Memory, l.r.CPU = &l.memory, &l.cpu
	if *from != "" {
		if err := readResources(*from, &l.r); err != nil {
			return err
		}
	}
	if err := c.Update(&l.r); err != nil || l.l3CacheSchema+l.memBwSchema == "" {
		return err
	}
	return c.UpdateRdt(l.l3CacheSchema, l.memBwSchema)
}

// readResources replaces all limits by those of a file, "-" for standard input.
func readResources(name string, r *specs.LinuxResources) error {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fault.New(fault.Invalid, "read the resources: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return fault.New(fault.Invalid, "read the resources: %w", err)
	}
	*r = specs.LinuxResources{}
	if err := ocirun.DecodeResources(b, r); err != nil {
		return fault.New(fault.Invalid, "the resources are not valid: %w", err)
	}
	return nil
}
