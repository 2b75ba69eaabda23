package cgroupfs

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseLayout(t *testing.T) {
	mounts := `24 1 0:6 / /dev rw - devtmpfs devtmpfs rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/mem\040ory rw,relatime shared:9 - cgroup cgroup rw,memory
36 31 0:32 / /again rw,relatime shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
`
	own := "4:memory:/a/b\n2:cpu,cpuacct:/\n1:name=systemd:/s\n0::/u\n"
	want := &Layout{V1: []Hierarchy{{[]string{"cpu", "cpuacct"}, "/sys/fs/cgroup/cpu,cpuacct", "/"}, {[]string{"memory"}, "/sys/fs/cgroup/mem ory", "/a/b"},
		{[]string{"name=systemd"}, "/sys/fs/cgroup/systemd", "/s"}},
		V2: &Hierarchy{nil, "/sys/fs/cgroup/unified", "/u"}}
	if d := cmp.Diff(want, Parse(mounts, own)); d != "" {
		t.Error(d)
	}
	// Version 2 alone, with what old programs want beside it.
	mounts = `40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 /x /some/place rw,relatime - cgroup2 cgroup2 rw
42 31 0:38 / /other/place rw,relatime - cgroup2 cgroup2 rw
`
	want = &Layout{V2: &Hierarchy{nil, "/other/place", "/u"}}
	if d := cmp.Diff(want, Parse(mounts, own)); d != "" {
		t.Error(d)
	}
	mounts += `43 31 0:38 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw
32 31 0:29 / /sys/fs/cgroup/net_cls rw,relatime - cgroup cgroup rw,net_cls
`
	want.V2.Mount = "/sys/fs/cgroup"
	if d := cmp.Diff(want, Parse(mounts, own)); d != "" {
		t.Error(d)
	}
}

// TestGroup: a process's groups, up to the container's own.
func TestGroup(t *testing.T) {
	v1 := &Layout{V1: []Hierarchy{{[]string{"cpu", "cpuacct"}, "/c", "/"}, {[]string{"freezer"}, "/f", "/"}}, V2: &Hierarchy{nil, "/u", "/"}}
	g := v1.Group("5:cpu,cpuacct:/p/id/inner\n3:freezer:/p/id\n0::/\n", "id")
	if g.Dir("cpuacct") != "/c/p/id" || g.Dir("freezer") != "/f/p/id" || g.Dir("memory") != "" {
		t.Errorf("v1: %v", g)
	}
	v2 := &Layout{V2: &Hierarchy{nil, "/u", "/"}}
	if g := v2.Group("0::/p/id-not/x\n", "id"); g.Dir("memory") != "/u/p/id-not/x" {
		t.Errorf("v2: %v", g)
	}
	if g := v2.Group("0::/p/id/x/id/y\n", "id"); g.Dir("") != "/u/p/id" {
		t.Errorf("v2: %v", g)
	}
}
