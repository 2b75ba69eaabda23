package cgroup

import (
	"encoding/binary"
	"os"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/procfs"
	"golang.org/x/sys/unix"
)

// defaultDevices are allowed in every container: making any node, the nodes that
// the specification puts into every /dev, and the one for tunnels, as with runc.
var defaultDevices = []specs.LinuxDeviceCgroup{
	rule("c", -1, -1, "m"), rule("b", -1, -1, "m"),
	rule("c", 1, 3, "rwm"), rule("c", 1, 5, "rwm"), rule("c", 1, 7, "rwm"),
	rule("c", 1, 8, "rwm"), rule("c", 1, 9, "rwm"), rule("c", 5, 0, "rwm"),
	rule("c", 5, 2, "rwm"), rule("c", 136, -1, "rwm"), rule("c", 10, 200, "rwm"),
}

func rule(kind string, major, minor int64, access string) specs.LinuxDeviceCgroup {
	r := specs.LinuxDeviceCgroup{Allow: true, Type: kind, Access: access}
	if major >= 0 {
		r.Major = &major
	}
	if minor >= 0 {
		r.Minor = &minor
	}
	return r
}

// ruleText writes a rule in the words of cgroup v1.
func ruleText(r *specs.LinuxDeviceCgroup) (string, error) {
	kind, access := r.Type, r.Access
	if kind == "" {
		kind = "a"
	}
	if access = strings.ReplaceAll(access, "a", ""); access == "" { // some write "all" into both
		access = "rwm"
	}
	if !strings.Contains("abc", kind) || len(kind) != 1 {
		return "", fault.New(fault.Invalid, "linux.resources.devices has the type %q; it must be a, b or c", kind)
	}
	if strings.Trim(access, "rwm") != "" {
		return "", fault.New(fault.Invalid, "linux.resources.devices has the access %q; it may have r, w and m", access)
	}
	return kind + " " + star(r.Major) + ":" + star(r.Minor) + " " + access, nil
}

func star(n *int64) string {
	if n == nil || *n < 0 {
		return "*"
	}
	return strconv.FormatInt(*n, 10)
}

// nothing forbids all devices.
var nothing = specs.LinuxDeviceCgroup{Access: "rwm"}

// fromNothing has rules begin with nothing being allowed, but for the default, as
// runc does: a list that names only what is allowed means that.
func fromNothing(rules []specs.LinuxDeviceCgroup) []specs.LinuxDeviceCgroup {
	if len(rules) > 0 && (rules[0].Type == "" || rules[0].Type == "a") {
		return rules
	}
	return append([]specs.LinuxDeviceCgroup{nothing}, rules...)
}

// setDevices sets the rules in their order.
func (g *Group) setDevices(rules []specs.LinuxDeviceCgroup) error {
	switch {
	case g.None(), len(rules) == 0 && !g.Unified && g.dir("devices") == "":
		return nil
	case g.Unified:
		return g.setDevicesV2(fromNothing(rules))
	}
	return g.setDevicesV1(fromNothing(rules))
}

func (g *Group) setDevicesV1(rules []specs.LinuxDeviceCgroup) error {
	dir := g.dir("devices")
	if dir == "" {
		return fault.New(fault.Unavailable, "linux.resources.devices cannot be set: the devices control group is not mounted")
	}
	var fds [2]int
	for i, name := range [...]string{"devices.deny", "devices.allow"} {
		fd, err := unix.Open(dir+"/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fault.New(fault.Internal, "open %s/%s: %w", dir, name, err)
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	for _, list := range [...][]specs.LinuxDeviceCgroup{rules, defaultDevices} {
		for i := range list {
			text, err := ruleText(&list[i])
			if err != nil {
				return err
			}
			fd := fds[0]
			if list[i].Allow {
				fd = fds[1]
			}
			if _, err := unix.Write(fd, []byte(text)); err == unix.EPERM && (nested() || os.Geteuid() != 0) {
				g.NoDevices = true
				return nil
			} else if err != nil {
				return fault.New(fault.Internal, "set the device rule %q (allow %v) of %s: %w", text, list[i].Allow, dir, err)
			}
		}
	}
	return nil
}

// setDevicesV2 attaches a program that decides as cgroup v1 would: the last
// rule that matches wins.
func (g *Group) setDevicesV2(rules []specs.LinuxDeviceCgroup) error {
	all := append(append([]specs.LinuxDeviceCgroup{}, rules...), defaultDevices...)
	code, err := deviceProgram(all)
	if err != nil {
		return err
	}
	dir := g.Members[0].Dir
	fd, err := loadProgram(code)
	if err == unix.EPERM && (nested() || os.Geteuid() != 0) {
		g.NoDevices = true
		return nil
	}
	if err != nil {
		return fault.New(fault.Internal, "load the device rules of %s: %w", dir, err)
	}
	defer unix.Close(fd)
	group, err := g.Open()
	if err != nil {
		return err
	}
	defer unix.Close(group)
	attr := struct{ target, program, kind, flags uint32 }{uint32(group), uint32(fd), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	if _, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); e != 0 {
		return fault.New(fault.Internal, "attach the device rules to %s: %w", dir, e)
	}
	return nil
}

// nested tells whether this process itself is in a user namespace, whose root
// may neither make device nodes nor set rules for them.
func nested() bool {
	b, err := procfs.Read("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
}

// insn encodes one eBPF instruction.
func insn(code uint8, dst, src uint8, off int16, imm int32) []byte {
	b := make([]byte, 8)
	b[0], b[1] = code, dst|src<<4
	binary.NativeEndian.PutUint16(b[2:], uint16(off))
	binary.NativeEndian.PutUint32(b[4:], uint32(imm))
	return b
}

// deviceProgram assembles the rules, last first. The context has the access in
// the upper half and the type in the lower half of its first word, then major
// and minor (struct bpf_cgroup_dev_ctx).
func deviceProgram(rules []specs.LinuxDeviceCgroup) ([]byte, error) {
	const (
		loadWord, move32, and32, rsh32 = 0x61, 0xbc, 0x54, 0x74
		jne32, moveImm, exit           = 0x56, 0xb4, 0x95
	)
	var code []byte
	emit := func(b []byte) { code = append(code, b...) }
	emit(insn(loadWord, 2, 1, 0, 0)) // r2 = type
	emit(insn(move32, 3, 2, 0, 0))
	emit(insn(and32, 2, 0, 0, 0xffff))
	emit(insn(rsh32, 3, 0, 0, 16))   // r3 = access
	emit(insn(loadWord, 4, 1, 4, 0)) // r4 = major
	emit(insn(loadWord, 5, 1, 8, 0)) // r5 = minor
	for i := len(rules) - 1; i >= 0; i-- {
		r := &rules[i]
		if _, err := ruleText(r); err != nil {
			return nil, err
		}
		var body [][]byte // instructions of the rule, with jumps to its end patched below
		if r.Type == "b" || r.Type == "c" {
			body = append(body, insn(jne32, 2, 0, 0, map[string]int32{"b": unix.BPF_DEVCG_DEV_BLOCK, "c": unix.BPF_DEVCG_DEV_CHAR}[r.Type]))
		}
		if mask := accessMask(r.Access); mask != 7 {
			// Allowing needs all of the access to be named, denying any of it.
			if r.Allow {
				body = append(body, insn(move32, 1, 3, 0, 0), insn(and32, 1, 0, 0, ^mask&7), insn(jne32, 1, 0, 0, 0))
			} else {
				body = append(body, insn(move32, 1, 3, 0, 0), insn(and32, 1, 0, 0, mask), insn(0x16, 1, 0, 0, 0)) // jeq32
			}
		}
		if r.Major != nil && *r.Major >= 0 {
			body = append(body, insn(jne32, 4, 0, 0, int32(*r.Major)))
		}
		if r.Minor != nil && *r.Minor >= 0 {
			body = append(body, insn(jne32, 5, 0, 0, int32(*r.Minor)))
		}
		answer := int32(0)
		if r.Allow {
			answer = 1
		}
		body = append(body, insn(moveImm, 0, 0, 0, answer), insn(exit, 0, 0, 0, 0))
		for j, b := range body {
			if b[0] == jne32 || b[0] == 0x16 {
				binary.NativeEndian.PutUint16(b[2:], uint16(len(body)-j-1))
			}
			emit(b)
		}
		if len(body) == 2 { // matches everything: older rules are unreachable
			return code, nil
		}
	}
	emit(insn(moveImm, 0, 0, 0, 1))
	emit(insn(exit, 0, 0, 0, 0))
	return code, nil
}

func accessMask(access string) int32 {
	if strings.Trim(access, "a") == "" {
		return 7
	}
	m := int32(0)
	for i, c := range "mrw" { // BPF_DEVCG_ACC_MKNOD, _READ, _WRITE
		if strings.ContainsRune(access, c) {
			m |= 1 << i
		}
	}
	return m
}

// loadProgram hands a device program to the kernel.
func loadProgram(code []byte) (int, error) {
	license := [...]byte{'A', 'p', 'a', 'c', 'h', 'e', 0}
	attr := struct {
		kind, count           uint32
		insns, license        uint64
		logLevel, logSize     uint32
		logBuf                uint64
		kernVersion, flags    uint32
		name                  [16]byte
		ifindex, expectAttach uint32
	}{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(code) / 8),
		insns: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	fd, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	for tries := 0; e == unix.EAGAIN && tries < 1000; tries++ { // a signal came, as Go sends itself many
		fd, _, e = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	}
	runtime.KeepAlive(code)
	runtime.KeepAlive(&license)
	if e != 0 {
		return -1, e
	}
	return int(fd), nil
}
