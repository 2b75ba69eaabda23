package spec

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/fault"
)

const passwd = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nbad:x:y:z\nann:x:1000:1001::/home/ann:/bin/sh\n4711:x:5:5::/five:\n"
const group = "root:x:0:\nann:x:1001:\nwheel:x:10:root,ann\ndisk:x:6:ann\nbad:x:q:ann\n"

func TestUser(t *testing.T) {
	for who, want := range map[string]Identity{
		"":           {UID: 0, GID: 0, Groups: []uint32{10}, Home: "/root"},
		"root":       {UID: 0, GID: 0, Groups: []uint32{10}, Home: "/root"},
		"ann":        {UID: 1000, GID: 1001, Groups: []uint32{10, 6}, Home: "/home/ann"},
		"1000":       {UID: 1000, GID: 1001, Groups: []uint32{10, 6}, Home: "/home/ann"},
		"ann:disk":   {UID: 1000, GID: 6, Home: "/home/ann"},
		"ann:99":     {UID: 1000, GID: 99, Home: "/home/ann"},
		"12345":      {UID: 12345, Home: "/"},
		"12345:77":   {UID: 12345, GID: 77, Home: "/"},
		"4711":       {UID: 5, GID: 5, Home: "/five"}, // a name goes before a number
		"2147483647": {UID: 2147483647, Home: "/"},
	} {
		got, err := User(who, []byte(passwd), []byte(group), nil)
		if err != nil {
			t.Errorf("%q: %v", who, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", who, diff)
		}
	}
	for _, bad := range []string{"nobody", "ann:nobody", "2147483648", "-1"} {
		if id, err := User(bad, []byte(passwd), []byte(group), nil); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %+v, %v", bad, id, err)
		}
	}
	id, err := User("ann:ann", []byte(passwd), []byte(group), []string{"wheel", "5000"})
	if err != nil || !slices.Equal(id.Groups, []uint32{10, 5000}) {
		t.Errorf("--group-add: %+v, %v", id, err)
	}
}

func TestOwnGroupIsSupplementaryToo(t *testing.T) {
	got := Identity{UID: 1000, GID: 7, Groups: []uint32{5, 7}}.process()
	if !slices.Equal(got.AdditionalGids, []uint32{7, 5}) {
		t.Errorf("%v", got.AdditionalGids)
	}
}

func TestCapabilities(t *testing.T) {
	has := func(add, drop []string, privileged bool) []string {
		caps, err := capabilities(add, drop, privileged)
		if err != nil {
			t.Fatal(err)
		}
		return caps
	}
	if got := has(nil, []string{"ALL"}, false); len(got) != 0 {
		t.Errorf("--cap-drop ALL leaves %v", got)
	}
	if got := has([]string{"net_admin"}, []string{"all"}, false); !slices.Equal(got, []string{"CAP_NET_ADMIN"}) {
		t.Errorf("all dropped, one added: %v", got)
	}
	if got := has([]string{"ALL"}, []string{"CHOWN"}, false); slices.Contains(got, "CAP_CHOWN") || !slices.Contains(got, "CAP_SETUID") {
		t.Errorf("all added, one dropped: %v", got)
	}
	if got := has([]string{"SYS_ADMIN"}, []string{"cap_chown"}, false); slices.Contains(got, "CAP_CHOWN") || !slices.Contains(got, "CAP_SYS_ADMIN") || len(got) != len(defaultCaps) {
		t.Errorf("one added, one dropped: %v", got)
	}
	if _, err := capabilities([]string{"FLYING"}, nil, false); !errors.Is(err, fault.Invalid) {
		t.Errorf("an unknown one: %v", err)
	}
}

func TestEnv(t *testing.T) {
	got := Env([]string{"PATH=/mine", "A=1", "HOME="}, "box", "/root", true)
	if want := []string{"PATH=/mine", "HOSTNAME=box", "TERM=xterm", "A=1", "HOME=/root"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Override([]string{"A=1", "B=2"}, []string{"A", "B=3", "C=4", "D"}); !slices.Equal(got, []string{"B=3", "C=4"}) {
		t.Errorf("override: %q", got)
	}
}

func build(t *testing.T, h wire.HostConfig) *specs.Spec {
	t.Helper()
	mounts, err := Wanted(&h)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Build(Input{ID: "id", Config: &wire.Config{}, HostConfig: &h, Mounts: mounts, Path: "/bin/true", Rootfs: "/r", UTSName: "box"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mountAt(s *specs.Spec, target string) *specs.Mount {
	for i, m := range s.Mounts {
		if m.Destination == target {
			return &s.Mounts[i]
		}
	}
	return nil
}

// Compose files ask for SELinux labels on every host.
func TestBindsWithLabels(t *testing.T) {
	for _, mode := range []string{"ro,z", "Z,ro"} {
		m, err := parseBind("/x:/y:"+mode, "")
		if err != nil || !slices.Equal(m.oci(Identity{}, nil).Options, []string{"rbind", "rprivate", "rro"}) || m.Mode != mode {
			t.Errorf("%s: %+v, %v", mode, m, err)
		}
	}
}

func TestMounts(t *testing.T) {
	s := build(t, wire.HostConfig{Binds: []string{"/h/deep:/a/b/c:ro", "/h:/a"}, Tmpfs: map[string]string{"/dev/shm": "size=1m"}, ShmSize: 64 << 20})
	if m := mountAt(s, "/a/b/c"); m == nil || !slices.Contains(m.Options, "rro") || !slices.Contains(m.Options, "rprivate") {
		t.Errorf("a read-only bind: %+v", m)
	}
	if m := mountAt(s, "/dev/shm"); m == nil || !slices.Contains(m.Options, "size=1m") {
		t.Errorf("the user's mount does not take the place of ours: %+v", m)
	}
	at := func(target string) int {
		return slices.IndexFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == target })
	}
	if at("/a") > at("/a/b/c") {
		t.Error("a child is mounted before its parent")
	}
	for _, bind := range []string{"x", "/x:relative", "/x:/", "", ":/x", "/x:", "/x:ro", "/x:/y:bogus", "/x:/y:z,Z", "/x:/y:nocopy", "v:/y:rshared", "a:b:c:d",
		"/x:/y:ro,rw", "/x:/y:slave,private", "/x:/y:,"} {
		if m, err := parseBind(bind, ""); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %+v, %v", bind, m, err)
		}
	}
}

func TestRefusedMountsAndCapabilities(t *testing.T) {
	for want, h := range map[string]wire.HostConfig{
		`invalid mount "/h" at "/a\x00b": there is a NUL byte`:                                         {Binds: []string{"/h:/a\x00b"}},
		`invalid mount "tmpfs" at "/a\x00": there is`:                                                  {Tmpfs: map[string]string{"/a\x00": ""}},
		`invalid tmpfs option "foo"`:                                                                   {Tmpfs: map[string]string{"/x": "size=1m,foo"}},
		`invalid mount config for type "tmpfs": invalid option: uid=5`:                                 {Mounts: []mount.Mount{{Type: "tmpfs", Target: "/x", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"uid", "5"}}}}}},
		`invalid mount config for type "tmpfs": size cannot be negative`:                               {Mounts: []mount.Mount{{Type: "tmpfs", Target: "/x", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: -1}}}},
		`invalid mount config for type "foo": mount type unknown`:                                      {Mounts: []mount.Mount{{Type: "foo", Target: "/x"}}},
		`invalid mount config for type "cluster": cluster volumes need a swarm`:                        {Mounts: []mount.Mount{{Type: "cluster", Target: "/x"}}},
		`invalid mount config for type "image": field Source must not be empty`:                        {Mounts: []mount.Mount{{Type: "image", Target: "/x"}}},
		`invalid mount config for type "volume": must not set Subpath when using anonymous volumes`:    {Mounts: []mount.Mount{{Type: "volume", Target: "/x", VolumeOptions: &mount.VolumeOptions{Subpath: "a"}}}},
		`invalid mount config for type "volume": subpath must be a relative path within the volume`:    {Mounts: []mount.Mount{{Type: "volume", Source: "v", Target: "/x", VolumeOptions: &mount.VolumeOptions{Subpath: "../a"}}}},
		`invalid volume specification: 'v:/x:shared': invalid mount config for type "volume": field B`: {Binds: []string{"v:/x:shared"}},
		`Duplicate mount point: /x`:                                                                    {Binds: []string{"v:/x", "/h:/x/"}},
		`invalid CapAdd: unknown capability: "CAP_FOO"`:                                                {CapAdd: []string{"foo"}},
		`invalid CapDrop: unknown capability: "CAP_FOO"`:                                               {CapDrop: []string{"CAP_FOO"}},
	} {
		mounts, err := Wanted(&h)
		if err == nil {
			_, err = Build(Input{Config: &wire.Config{}, HostConfig: &h, Mounts: mounts, Path: "x"})
		}
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	build(t, wire.HostConfig{Binds: []string{"/h:/a:ro,private,cached", "/h:/b:"}, Tmpfs: map[string]string{"/x": "size=1m,mode=700,uid=5,exec", "/y": ""}})
}

func TestHalfRequests(t *testing.T) {
	for what, h := range map[string]wire.HostConfig{
		"no limit":  {Resources: wire.Resources{Ulimits: []*wire.Ulimit{nil}}},
		"no such":   {Resources: wire.Resources{Ulimits: []*wire.Ulimit{{Name: "nosuch"}}}},
		"no device": {Resources: wire.Resources{Devices: []wire.DeviceMapping{{}}}},
	} {
		if _, err := Build(Input{Config: &wire.Config{}, HostConfig: &h, Path: "x"}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestReadOnlyRoot(t *testing.T) {
	for readOnly, want := range map[bool]string{false: "rw", true: "ro"} {
		s, err := Build(Input{Config: &wire.Config{}, HostConfig: &wire.HostConfig{ReadonlyRootfs: readOnly}, Path: "x", Hosts: "/hosts"})
		if err != nil {
			t.Fatal(err)
		}
		if m := mountAt(s, "/etc/hosts"); m == nil || !slices.Contains(m.Options, want) {
			t.Errorf("read-only %v: %+v", readOnly, m)
		}
	}
}

func TestMountOptions(t *testing.T) {
	bind := func(o *mount.BindOptions) mount.Mount {
		return mount.Mount{Type: mount.TypeBind, Source: "/h", Target: "/x", ReadOnly: true, BindOptions: o}
	}
	for want, m := range map[string]mount.Mount{
		"rro": bind(nil), "ro": bind(&mount.BindOptions{ReadOnlyNonRecursive: true}), "bind": bind(&mount.BindOptions{NonRecursive: true}),
		"rslave": bind(&mount.BindOptions{Propagation: mount.PropagationRSlave}),
	} {
		if got, err := ParseMount(m); err != nil || !slices.Contains(got.oci(Identity{}, nil).Options, want) {
			t.Errorf("%s: %v, %v", want, got.oci(Identity{}, nil).Options, err)
		}
	}
	writable := bind(&mount.BindOptions{ReadOnlyForceRecursive: true})
	writable.ReadOnly = false
	extra := bind(nil)
	extra.ImageOptions = &mount.ImageOptions{}
	for what, m := range map[string]mount.Mount{
		"an unknown propagation": bind(&mount.BindOptions{Propagation: "noexec"}), "read-only and writable": writable,
		"recursive and not": bind(&mount.BindOptions{ReadOnlyNonRecursive: true, ReadOnlyForceRecursive: true}), "a field of another type": extra,
	} {
		if got, err := ParseMount(m); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v, %v", what, got.oci(Identity{}, nil).Options, err)
		}
	}
}

func TestPrivileged(t *testing.T) {
	s := build(t, wire.HostConfig{Privileged: true})
	if s.Linux.Seccomp != nil || len(s.Linux.MaskedPaths)+len(s.Linux.ReadonlyPaths) > 0 {
		t.Error("a privileged container is confined")
	}
	if r := s.Linux.Resources.Devices; len(r) != 1 || !r[0].Allow {
		t.Errorf("its devices: %+v", r)
	}
	s = build(t, wire.HostConfig{Privileged: true, MaskedPaths: []string{"/proc/keys"},
		Resources: wire.Resources{Devices: []wire.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/other"}, {PathOnHost: "/dev/zero", PathInContainer: "/dev/full"}}}})
	minors := map[string][]int64{}
	for _, d := range s.Linux.Devices {
		minors[d.Path] = append(minors[d.Path], d.Minor)
	}
	if !slices.Equal(minors["/dev/other"], []int64{3}) || !slices.Equal(minors["/dev/full"], []int64{5}) || len(s.Linux.MaskedPaths) != 1 {
		t.Errorf("what was asked for besides: %v, masked %q", minors, s.Linux.MaskedPaths)
	}
	absent := wire.HostConfig{Privileged: true, Resources: wire.Resources{Devices: []wire.DeviceMapping{{PathOnHost: "/dev/nosuch", PathInContainer: "/dev/x"}}}}
	if _, err := Build(Input{Config: &wire.Config{}, HostConfig: &absent, Path: "x"}); !errors.Is(err, fault.Invalid) {
		t.Errorf("a device that is not there: %v", err)
	}
	s = build(t, wire.HostConfig{})
	if s.Linux.Seccomp == nil || len(s.Linux.MaskedPaths) == 0 || len(s.Linux.ReadonlyPaths) == 0 {
		t.Error("an ordinary container is not confined")
	}
	if r := s.Linux.Resources.Devices[0]; r.Allow {
		t.Error("devices are open by default")
	}
}

func TestSecurityOptions(t *testing.T) {
	for opt, ok := range map[string]bool{
		"no-new-privileges": true, "no-new-privileges=true": true, "no-new-privileges:false": true, "seccomp=unconfined": true,
		"seccomp=builtin": true, `seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`: true, "apparmor=unconfined": true, "label=disable": true,
		"systempaths=unconfined": true, "writable-cgroups": true, "writable-cgroups=false": true, "disable": true, "writable-cgroups=x": false,
		"seccomp=nonsense": false, "apparmor=mine": false, "label=type:x": false, "what=ever": false, "whatever": false,
		"no-new-privileges=maybe": false,
	} {
		if err := CheckSecurity([]string{opt}, Modules{}); (err == nil) != ok {
			t.Errorf("%s: %v", opt, err)
		}
	}
}
