package ocirun

import (
	"encoding/binary"
	"math/bits"
	"sort"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
	"golang.org/x/sys/unix"
)

// Attributes of the process that the kernel keeps per task and passes on:
// where and when it runs, whose memory it takes, what it pretends to be.

// maskSize is the length of a mask of processors.
const maskSize = 1024

// affinity appends the processors that the process may run on. Without a wish
// they are all that its control group has, wherever this process itself is.
func (b *builder) affinity(list string) error {
	mask := make([]byte, maskSize)
	for i := range mask {
		mask[i] = 0xff
	}
	if list != "" {
		clear(mask)
		if err := setBits(list, mask); err != nil {
			return fault.New(fault.Invalid, "process.execCPUAffinity %q is not a list of processors: %w", list, err)
		}
	}
	b.mask = b.bytes(mask)
	s := b.do("set the processors to", list, unix.SYS_SCHED_SETAFFINITY, num(0), num(len(mask)), b.mask)
	if list == "" {
		s.ignore()
	}
	return nil
}

// setBits sets a bit for each number of a list such as 0-2,7.
func setBits(list string, mask []byte) error {
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		ranges, err := procfs.Ranges(part)
		switch {
		case err != nil:
			return err
		case part == "":
			return strconv.ErrSyntax
		case ranges[0][1] >= 8*len(mask):
			return strconv.ErrRange
		}
		for n := ranges[0][0]; n <= ranges[0][1]; n++ {
			mask[n/8] |= 1 << (n % 8)
		}
	}
	return nil
}

var schedulers = map[specs.LinuxSchedulerPolicy]uint32{specs.SchedOther: unix.SCHED_NORMAL, specs.SchedFIFO: unix.SCHED_FIFO,
	specs.SchedRR: unix.SCHED_RR, specs.SchedBatch: unix.SCHED_BATCH, "SCHED_ISO": 4, specs.SchedIdle: unix.SCHED_IDLE,
	specs.SchedDeadline: unix.SCHED_DEADLINE}

var schedulerFlags = map[specs.LinuxSchedulerFlag]uint64{specs.SchedFlagResetOnFork: 0x01, specs.SchedFlagReclaim: 0x02,
	specs.SchedFlagDLOverrun: 0x04, specs.SchedFlagKeepPolicy: 0x08, specs.SchedFlagKeepParams: 0x10,
	specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40}

// scheduler appends the scheduling policy, see sched_setattr(2).
func (b *builder) scheduler(s *specs.Scheduler, r *specs.LinuxResources) error {
	if s == nil {
		return nil
	}
	policy, ok := schedulers[s.Policy]
	if !ok {
		return fault.New(fault.Invalid, "process.scheduler has the policy %q, which is not known", s.Policy)
	}
	if policy == unix.SCHED_DEADLINE && r != nil && r.CPU != nil && r.CPU.Cpus != "" {
		return fault.New(fault.Invalid, "process scheduler can't be used together with AllowedCPUs: SCHED_DEADLINE needs all processors")
	}
	switch {
	case s.Nice != 0 && policy != unix.SCHED_NORMAL && policy != unix.SCHED_BATCH:
		b.warn("process.scheduler.nice has no effect with the policy " + string(s.Policy))
	case s.Nice < -20 || s.Nice > 19:
		return fault.New(fault.Invalid, "invalid scheduler.nice: %d when scheduler.policy is %s; it must be -20 to 19", s.Nice, s.Policy)
	}
	switch deadline := policy == unix.SCHED_DEADLINE; {
	case s.Priority != 0 && policy != unix.SCHED_FIFO && policy != unix.SCHED_RR:
		return fault.New(fault.Invalid, "scheduler.priority can only be specified for SchedFIFO or SchedRR policy, not %s", s.Policy)
	case !deadline && (s.Runtime != 0 || s.Deadline != 0 || s.Period != 0):
		return fault.New(fault.Invalid, "scheduler runtime/deadline/period can only be specified for SchedDeadline policy, not %s", s.Policy)
	}
	flags := uint64(0)
	for _, f := range s.Flags {
		bit, ok := schedulerFlags[f]
		if !ok {
			return fault.New(fault.Invalid, "process.scheduler has the flag %q, which is not known", f)
		}
		flags |= bit
	}
	attr := make([]byte, 48) // struct sched_attr of its first version
	ne := binary.NativeEndian
	ne.PutUint32(attr, uint32(len(attr)))
	ne.PutUint32(attr[4:], policy)
	ne.PutUint64(attr[8:], flags)
	ne.PutUint32(attr[16:], uint32(s.Nice))
	ne.PutUint32(attr[20:], uint32(s.Priority))
	ne.PutUint64(attr[24:], s.Runtime)
	ne.PutUint64(attr[32:], s.Deadline)
	ne.PutUint64(attr[40:], s.Period)
	b.do("set the scheduler to", string(s.Policy), unix.SYS_SCHED_SETATTR, num(0), b.bytes(attr), num(0))
	return nil
}

var ioClasses = map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}

// ioPriority appends the class and level of disk access, see ioprio_set(2).
func (b *builder) ioPriority(p *specs.LinuxIOPriority) error {
	if p == nil {
		return nil
	}
	class, ok := ioClasses[p.Class]
	if !ok {
		return fault.New(fault.Invalid, "process.ioPriority has the class %q, which is not known", p.Class)
	}
	if p.Priority < 0 || p.Priority > 7 {
		return fault.New(fault.Invalid, "process.ioPriority has the priority %d; it must be 0 to 7", p.Priority)
	}
	const whoProcess = 1
	b.do("set the I/O priority to", string(p.Class), unix.SYS_IOPRIO_SET, num(whoProcess), num(0), num(class<<13|p.Priority))
	return nil
}

// personality appends the execution domain, see personality(2).
func (b *builder) personality(p *specs.LinuxPersonality) error {
	if p == nil {
		return nil
	}
	if len(p.Flags) > 0 {
		return fault.New(fault.Invalid, "linux.personality.flags has %q; the specification has none yet", p.Flags)
	}
	domains := map[specs.LinuxPersonalityDomain]int{specs.PerLinux: 0, specs.PerLinux32: 8}
	domain, ok := domains[p.Domain]
	if !ok {
		return fault.New(fault.Invalid, "linux.personality has the domain %q; it must be LINUX or LINUX32", p.Domain)
	}
	b.do("set the personality", string(p.Domain), unix.SYS_PERSONALITY, num(domain))
	return nil
}

var memoryModes = map[specs.MemoryPolicyModeType]int{specs.MpolDefault: unix.MPOL_DEFAULT, specs.MpolPreferred: unix.MPOL_PREFERRED,
	specs.MpolBind: unix.MPOL_BIND, specs.MpolInterleave: unix.MPOL_INTERLEAVE, specs.MpolLocal: unix.MPOL_LOCAL,
	specs.MpolPreferredMany: unix.MPOL_PREFERRED_MANY, specs.MpolWeightedInterleave: unix.MPOL_WEIGHTED_INTERLEAVE}

var memoryFlags = map[specs.MemoryPolicyFlagType]int{specs.MpolFStaticNodes: unix.MPOL_F_STATIC_NODES,
	specs.MpolFRelativeNodes: unix.MPOL_F_RELATIVE_NODES, specs.MpolFNumaBalancing: unix.MPOL_F_NUMA_BALANCING}

// memoryPolicy appends the choice of memory nodes, see set_mempolicy(2).
func (b *builder) memoryPolicy(m *specs.LinuxMemoryPolicy) error {
	if m == nil {
		return nil
	}
	mode, ok := memoryModes[m.Mode]
	if !ok {
		return fault.New(fault.Invalid, "invalid memory policy mode %q", m.Mode)
	}
	for _, f := range m.Flags {
		bit, ok := memoryFlags[f]
		if !ok {
			return fault.New(fault.Invalid, "invalid memory policy flag %q", f)
		}
		mode |= bit
	}
	nodes, mask, length := make([]byte, 128), num(0), 0
	if m.Nodes != "" {
		if err := setBits(m.Nodes, nodes); err != nil {
			return fault.New(fault.Invalid, "invalid memory policy node list %q: %w", m.Nodes, err)
		}
		if n := ones(nodes); m.Mode == specs.MpolDefault || m.Mode == specs.MpolLocal {
			return fault.New(fault.Invalid, "invalid memory policy: the mode requires 0 nodes but got %d", n)
		}
		mask, length = b.bytes(nodes), 8*len(nodes)+1 // the kernel takes one off
	}
	b.do("set the memory policy", string(m.Mode), unix.SYS_SET_MEMPOLICY, num(mode), mask, num(length))
	return nil
}

// MemoryPolicies are the names that linux.memoryPolicy may have, in the form of
// the specification's features document.
func MemoryPolicies() map[string][]string {
	out := map[string][]string{}
	for m := range memoryModes {
		out["modes"] = append(out["modes"], string(m))
	}
	for f := range memoryFlags {
		out["flags"] = append(out["flags"], string(f))
	}
	sort.Strings(out["modes"])
	sort.Strings(out["flags"])
	return out
}

func ones(mask []byte) (n int) {
	for _, b := range mask {
		n += bits.OnesCount8(b)
	}
	return n
}

// taskAttributes appends all of them. They come before the filter, which may forbid
// the calls, and after the control groups are entered, which set processors.
func (b *builder) taskAttributes(proc *specs.Process, l *specs.Linux) error {
	if err := b.scheduler(proc.Scheduler, l.Resources); err != nil {
		return err
	}
	if err := b.ioPriority(proc.IOPriority); err != nil {
		return err
	}
	if err := b.personality(l.Personality); err != nil {
		return err
	}
	return b.memoryPolicy(l.MemoryPolicy)
}
