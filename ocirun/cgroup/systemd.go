package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/cgroupfs"
	"github.com/tarehq/tare/internal/dbus"
	"golang.org/x/sys/unix"
)

// A group of systemd's is written as a path behind one of these: of the system's
// manager, or of the user's own.
const (
	systemUnit = "systemd:"
	userUnit   = "systemd-user:"
)

// unit is systemd's side of a container's groups: a scope, or a slice when its
// name says so. systemd makes its groups, moves the first process there, and
// removes them when they are empty; all limits that it has a property for are
// told to it, so that it does not write others.
type unit struct {
	name  string
	slice string
	user  bool // of the user's manager
	waits bool // it is not begun yet
}

// Systemd tells whether the group is that of a unit.
func (g *Group) Systemd() bool { return g.unit != nil }

// Waits tells that the groups are made by Begin, for a process that is there.
func (g *Group) Waits() bool { return g.unit != nil && g.unit.waits }

// Systemd is the path by which At finds the group of a unit. The specification's
// cgroupsPath is SLICE:PREFIX:NAME here; the unit is PREFIX-NAME.scope, or NAME
// if that is a slice's.
func Systemd(cgroupsPath, id string, user bool) (string, error) {
	slice, prefix, name := "", "tare", id
	if cgroupsPath != "" {
		parts := strings.Split(cgroupsPath, ":")
		if len(parts) != 3 {
			return "", fault.New(fault.Invalid, `expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups, got %q instead`, cgroupsPath)
		}
		slice, prefix, name = parts[0], parts[1], parts[2]
	}
	if slice == "" {
		if slice = "system.slice"; user {
			slice = "user.slice"
		}
	}
	above, err := expandSlice(slice)
	if err != nil {
		return "", err
	}
	u := name
	if !strings.HasSuffix(name, ".slice") {
		if u = name + ".scope"; prefix != "" {
			u = prefix + "-" + u
		}
	} else if above, err = expandSlice(name); err == nil { // which lies where its name says
		above = filepath.Dir(above)
	}
	if err != nil {
		return "", err
	}
	if name == "" || strings.ContainsAny(u, "/\x00") {
		return "", fault.New(fault.Invalid, "cgroupsPath %q names no unit of systemd", cgroupsPath)
	}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return "", fault.New(fault.Unavailable, "systemd not running on this host, cannot use systemd cgroups manager")
	}
	if !user {
		return systemUnit + filepath.Join(above, u), nil
	}
	c, err := connectManager(true)
	if err != nil {
		return "", err
	}
	defer c.Close()
	home, err := c.Call(manager, managerPath, "org.freedesktop.DBus.Properties", "Get", manager+".Manager", "ControlGroup")
	if err != nil || len(home) == 0 {
		return "", fault.New(fault.Unavailable, "the user's systemd does not tell its control group: %w", err)
	}
	return userUnit + filepath.Join("/", home[0], above, u), nil
}

// expandSlice is where a slice lies: a-b.slice is below a.slice.
func expandSlice(slice string) (string, error) {
	bad := fault.New(fault.Invalid, "invalid slice name: %s", slice)
	name, ok := strings.CutSuffix(slice, ".slice")
	switch {
	case !ok || name == "" || strings.ContainsAny(name, "/\x00"):
		return "", bad
	case name == "-":
		return "/", nil
	}
	path, prefix := "", ""
	for word := range strings.SplitSeq(name, "-") {
		if word == "" {
			return "", bad
		}
		path += "/" + prefix + word + ".slice"
		prefix += word + "-"
	}
	return path, nil
}

// unitOf takes the unit out of a path that Systemd gave.
func unitOf(path string) (rest string, u *unit) {
	rest, ok := strings.CutPrefix(path, systemUnit)
	user := false
	if !ok {
		if rest, user = strings.CutPrefix(path, userUnit); !user {
			return path, nil
		}
	}
	u = &unit{name: filepath.Base(rest), slice: filepath.Base(filepath.Dir(rest)), user: user}
	if !strings.HasSuffix(u.slice, ".slice") {
		u.slice = "-.slice"
	}
	return rest, u
}

const (
	manager     = "org.freedesktop.systemd1"
	managerPath = dbus.Path("/org/freedesktop/systemd1")
)

// connectManager connects to systemd: its own socket answers without a bus, and
// the bus where only that is there.
func connectManager(user bool) (*dbus.Conn, error) {
	own, bus, variable := "/run/systemd/private", "/run/dbus/system_bus_socket", "DBUS_SYSTEM_BUS_ADDRESS"
	if user {
		dir := os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			return nil, fault.New(fault.Unavailable, "XDG_RUNTIME_DIR is not set, so the user's systemd cannot be found; log in, or see loginctl(1) enable-linger")
		}
		own, bus, variable = dir+"/systemd/private", dir+"/bus", "DBUS_SESSION_BUS_ADDRESS"
	}
	if path, ok := strings.CutPrefix(os.Getenv(variable), "unix:path="); ok {
		bus, _, _ = strings.Cut(path, ",")
	}
	c, err := dbus.Direct(own)
	if err == nil {
		return c, nil
	}
	c, err = dbus.Bus(bus)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "systemd cannot be reached: %w", err)
	}
	for _, call := range [][]any{{"org.freedesktop.DBus", dbus.Path("/org/freedesktop/DBus"), "org.freedesktop.DBus", "AddMatch",
		"type='signal',interface='" + manager + ".Manager',member='JobRemoved'"}, {manager, managerPath, manager + ".Manager", "Subscribe"}} {
		if _, err = c.Call(call[0].(string), call[1].(dbus.Path), call[2].(string), call[3].(string), call[4:]...); err != nil {
			c.Close()
			return nil, fault.New(fault.Unavailable, "systemd cannot be listened to: %w", err)
		}
	}
	return c, nil
}

// job has the manager do something and waits until it is done.
func (u *unit) job(c *dbus.Conn, method string, args ...any) error {
	answer, err := c.Call(manager, managerPath, manager+".Manager", method, args...)
	if err != nil || len(answer) == 0 {
		return err
	}
	result := ""
	err = c.Await(10*time.Second, "JobRemoved", func(s []string) bool { // job, unit, result
		if len(s) < 3 || s[0] != answer[0] {
			return false
		}
		result = s[2]
		return true
	})
	if err == nil && result != "done" {
		err = fault.New(fault.Internal, "systemd's job for %s ended: %s", u.name, result)
	}
	return err
}

func named(err error, name string) bool {
	var e *dbus.Error
	return errors.As(err, &e) && e.Name == name
}

// start makes the unit with its first process.
func (u *unit) start(pid int, properties []dbus.Property) error {
	c, err := connectManager(u.user)
	if err != nil {
		return err
	}
	defer c.Close()
	p := []dbus.Property{{Name: "Description", Value: "container " + u.name}}
	if strings.HasSuffix(u.name, ".slice") {
		p = append(p, dbus.Property{Name: "Wants", Value: []string{u.slice}})
	} else {
		p = append(p, dbus.Property{Name: "Slice", Value: u.slice}, dbus.Property{Name: "Delegate", Value: true}, dbus.Property{Name: "PIDs", Value: []uint32{uint32(pid)}})
	}
	p = append(p, dbus.Property{Name: "DefaultDependencies", Value: false})
	p = append(p, properties...)
	start := func() error { return u.job(c, "StartTransientUnit", u.name, "replace", p, []dbus.Unit{}) }
	deadline := time.Now().Add(2 * time.Second)
	for err = start(); named(err, manager+".UnitExists") && time.Now().Before(deadline); err = start() {
		// An earlier one that ended, maybe in failure, is forgotten soon.
		_, _ = c.Call(manager, managerPath, manager+".Manager", "ResetFailedUnit", u.name)
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		return fault.New(fault.Unavailable, "unable to start unit %q (properties %v): %w", u.name, p, err)
	}
	return nil
}

// set tells systemd other limits, until the unit ends.
func (u *unit) set(properties []dbus.Property) error {
	if len(properties) == 0 {
		return nil
	}
	c, err := connectManager(u.user)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err = c.Call(manager, managerPath, manager+".Manager", "SetUnitProperties", u.name, true, properties); err != nil {
		return fault.New(fault.Unavailable, "unable to set unit properties of %q: %w", u.name, err)
	}
	return nil
}

// stop ends the unit, if it is still there. It has no processes any more.
func (u *unit) stop() error {
	c, err := connectManager(u.user)
	if err != nil {
		return err
	}
	defer c.Close()
	err = u.job(c, "StopUnit", u.name, "replace")
	if named(err, manager+".NoSuchUnit") {
		return nil
	}
	_, _ = c.Call(manager, managerPath, manager+".Manager", "ResetFailedUnit", u.name)
	if err != nil {
		return fault.New(fault.Unavailable, "stop the unit %q: %w", u.name, err)
	}
	return nil
}

// Begin makes the groups of a unit with a process in them, and sets the limits;
// for other groups Create has done so.
func (g *Group) Begin(pid int, r *specs.LinuxResources) error {
	if r == nil {
		r = &specs.LinuxResources{}
	}
	if err := g.refuse(r); err != nil {
		return err
	}
	if procs, _ := g.Procs(); len(procs) > 0 {
		return fault.New(fault.Conflict, "container's cgroup is not empty: the unit %s has %d processes; another container may use it", g.unit.name, len(procs))
	}
	all := *r
	all.Devices = fromNothing(r.Devices)
	properties := append(accounting(g.Unified), g.properties(&all)...)
	if err := g.unit.start(pid, properties); err != nil {
		return err
	}
	g.unit.waits = false
	for i := range g.Members { // systemd knows only some of v1
		m := &g.Members[i]
		if err := os.MkdirAll(m.Dir, 0o755); err != nil {
			return fault.New(fault.Internal, "make the control group %s: %w", m.Dir, err)
		}
		if err := g.prepare(m, r); err != nil {
			return err
		}
		if err := write(m.Dir, "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return g.Set(r)
}

// end has systemd forget the unit, after its processes.
func (g *Group) end() error {
	if g.unit == nil {
		return nil
	}
	deadline := time.Now().Add(10 * time.Second)
	for pause := 200 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		procs, err := g.Procs()
		if err != nil || len(procs) == 0 {
			break
		}
		if time.Now().After(deadline) {
			return fault.New(fault.Unavailable, "the unit %s still has processes after 10 s of killing them", g.unit.name)
		}
		_ = g.Signal(unix.SIGKILL)
		time.Sleep(pause)
	}
	// systemd hears that the group is empty and removes it; it is asked only when
	// it does not.
	for deadline = time.Now().Add(time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(g.killDir()); errors.Is(err, unix.ENOENT) {
			return nil
		}
	}
	return g.unit.stop()
}

func accounting(unified bool) []dbus.Property {
	io := "BlockIOAccounting"
	if unified {
		io = "IOAccounting"
	}
	var out []dbus.Property
	for _, name := range [...]string{"MemoryAccounting", "CPUAccounting", "TasksAccounting", io} {
		out = append(out, dbus.Property{Name: name, Value: true})
	}
	return out
}

// properties are the limits in systemd's words, systemd.resource-control(5).
func (g *Group) properties(r *specs.LinuxResources) []dbus.Property {
	var out []dbus.Property
	add := func(name string, v any) { out = append(out, dbus.Property{Name: name, Value: v}) }
	bytes := func(name string, n *int64) {
		if n != nil && *n != 0 {
			add(name, orInfinity(*n))
		}
	}
	if m := r.Memory; m != nil {
		if g.Unified {
			bytes("MemoryMax", m.Limit)
			bytes("MemoryLow", m.Reservation)
			if s, ok := swapV2(m); ok {
				n, err := strconv.ParseUint(s, 10, 64)
				if err != nil {
					n = cgroupfs.NoLimit
				}
				add("MemorySwapMax", n)
			}
		} else {
			bytes("MemoryLimit", m.Limit)
		}
	}
	if c := r.CPU; c != nil {
		if c.Shares != nil && *c.Shares != 0 {
			if g.Unified {
				add("CPUWeight", weight(*c.Shares))
			} else {
				add("CPUShares", *c.Shares)
			}
		}
		out = append(out, quota(c)...)
		for name, list := range map[string]string{"AllowedCPUs": c.Cpus, "AllowedMemoryNodes": c.Mems} {
			if mask := bitmask(list); g.Unified && mask != nil {
				add(name, mask)
			}
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil {
		add("TasksMax", max(orInfinity(*p.Limit), 1))
	}
	if b := r.BlockIO; b != nil && b.Weight != nil && *b.Weight != 0 && !g.Unified {
		add("BlockIOWeight", uint64(*b.Weight))
	}
	if !g.Unified { // where the last writer wins; of eBPF's programs all have to agree
		out = append(out, devicePolicy(r.Devices)...)
	}
	return append(out, unifiedProperties(r.Unified)...)
}

func orInfinity(n int64) uint64 {
	if n < 0 {
		return cgroupfs.NoLimit
	}
	return uint64(n)
}

// quota is the time of processors in each second of the clock, which systemd
// counts in hundredths.
func quota(c *specs.LinuxCPU) (out []dbus.Property) {
	period := uint64(0)
	if c.Period != nil && *c.Period != 0 {
		period = *c.Period
		out = append(out, dbus.Property{Name: "CPUQuotaPeriodUSec", Value: period})
	}
	if c.Quota == nil || *c.Quota == 0 {
		return out
	}
	each := uint64(cgroupfs.NoLimit)
	if *c.Quota > 0 {
		if period == 0 {
			period = 100000
		}
		each = (uint64(*c.Quota)*1000000/period + 9999) / 10000 * 10000
	}
	return append(out, dbus.Property{Name: "CPUQuotaPerSecUSec", Value: each})
}

// bitmask turns a list such as 0-2,7 into bytes, the lowest first; nil for an
// empty one, or one that is none, of which the kernel will tell.
func bitmask(list string) []byte {
	var mask []byte
	for part := range strings.SplitSeq(strings.TrimSpace(list), ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 13)
		b, err2 := strconv.ParseUint(last, 10, 13)
		if err1 != nil || err2 != nil {
			return nil
		}
		for ; a <= b; a++ {
			for int(a/8) >= len(mask) {
				mask = append(mask, 0)
			}
			mask[a/8] |= 1 << (a % 8)
		}
	}
	return mask
}

// devicePolicy lists what is allowed when the rules begin with forbidding all;
// otherwise, and for what has no name there, systemd leaves it to our rules.
func devicePolicy(rules []specs.LinuxDeviceCgroup) []dbus.Property {
	if len(rules) == 0 {
		return nil
	}
	deny := false
	var allow [][2]string
	for _, list := range [...][]specs.LinuxDeviceCgroup{rules, defaultDevices} {
		for i := range list {
			d := &list[i]
			all := d.Type == "" || d.Type == "a"
			switch {
			case all:
				deny, allow = !d.Allow, nil
			case deny && d.Allow:
				if node, ok := deviceName(d); ok {
					allow = append(allow, [2]string{node, accessOf(d.Access)})
				}
			}
		}
	}
	if !deny {
		return []dbus.Property{{Name: "DevicePolicy", Value: "auto"}, {Name: "DeviceAllow", Value: [][2]string{}}}
	}
	// Assigning nothing forgets what was there.
	return []dbus.Property{{Name: "DevicePolicy", Value: "strict"}, {Name: "DeviceAllow", Value: [][2]string{}}, {Name: "DeviceAllow", Value: allow}}
}

func accessOf(access string) string {
	if strings.Trim(access, "a") == "" {
		return "rwm"
	}
	return access
}

// deviceName writes a device as systemd names it: one by its number, a whole
// kind by the driver's name in /proc/devices.
func deviceName(d *specs.LinuxDeviceCgroup) (string, bool) {
	kind := map[string]string{"c": "char", "b": "block"}[d.Type]
	major, minor := star(d.Major), star(d.Minor)
	switch {
	case major == "*" && minor == "*":
		return kind + "-*", true
	case major == "*":
		return "", false
	case minor != "*":
		return fmt.Sprintf("/dev/%s/%s:%s", kind, major, minor), true
	}
	b, err := os.ReadFile("/proc/devices")
	if err != nil {
		return "", false
	}
	section := map[string]string{"c": "Character devices:", "b": "Block devices:"}[d.Type]
	here := false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if strings.HasSuffix(line, "devices:") {
			here = line == section
		} else if n, name, ok := strings.Cut(line, " "); here && ok && n == major {
			return kind + "-" + name, true
		}
	}
	return "", false
}

// unifiedProperties tells of the files of the unified map those that systemd
// has a property for.
func unifiedProperties(files map[string]string) (out []dbus.Property) {
	number := map[string]string{"cpu.weight": "CPUWeight", "memory.min": "MemoryMin", "memory.low": "MemoryLow", "memory.high": "MemoryHigh",
		"memory.max": "MemoryMax", "memory.swap.max": "MemorySwapMax", "pids.max": "TasksMax"}
	for file, text := range files {
		text = strings.TrimSpace(text)
		switch file {
		case "cpu.max":
			limit, word, _ := strings.Cut(text, " ")
			c := specs.LinuxCPU{}
			if n, err := strconv.ParseInt(limit, 10, 64); err == nil {
				c.Quota = &n
			} else if none := int64(-1); limit == "max" {
				c.Quota = &none
			}
			if n, err := strconv.ParseUint(strings.TrimSpace(word), 10, 64); err == nil {
				c.Period = &n
			}
			out = append(out, quota(&c)...)
		case "cpuset.cpus":
			if mask := bitmask(text); mask != nil {
				out = append(out, dbus.Property{Name: "AllowedCPUs", Value: mask})
			}
		case "cpuset.mems":
			if mask := bitmask(text); mask != nil {
				out = append(out, dbus.Property{Name: "AllowedMemoryNodes", Value: mask})
			}
		default:
			n, err := strconv.ParseUint(text, 10, 64)
			if text == "max" {
				n, err = cgroupfs.NoLimit, nil
			}
			if name := number[file]; name != "" && err == nil {
				out = append(out, dbus.Property{Name: name, Value: n})
			}
		}
	}
	return out
}
