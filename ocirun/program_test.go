package ocirun

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/tarehq/tare/ocirun/cgroup"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden shows the kernel steps of specifications as text. Nothing is
// executed; the descriptors are inventions.
func TestGolden(t *testing.T) {
	cases := map[string]func(*builder){
		"default": func(*builder) {},
		"memfd":   func(b *builder) { b.initFD = 12 },
		"gate":    func(b *builder) { b.gate = gate{14, 15}; b.again = unix.CLONE_NEWNS | unix.CLONE_NEWNET },
		"user-namespace": func(b *builder) {
			b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			b.rootTree = 20
		},
		"terminal": func(b *builder) { b.spec.Process.Terminal = true; b.console = 30 },
		"bind": func(b *builder) {
			b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/deep/down/data", Type: "bind", Source: "/data",
				Options: []string{"rbind", "ro", "rprivate"}})
		},
	}
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			s := Default("/rootfs", "sh")
			b := &builder{program: newProgram(32), spec: s, bundle: "/bundle", rootfs: "/rootfs", rootTree: -1, fifo: -1, initFD: -1, proc: -1,
				sync: 10, peer: 11, stdio: [3]int{5, 6, 7}, tasks: []int{13}, home: "/root",
				isDir: func(string) (bool, error) { return true, nil },
				group: &cgroup.Group{Members: []cgroup.Member{{Controllers: []string{"pids"}, Dir: "/cg/pids/x", Mount: "/cg/pids"}}}}
			s.Process.Capabilities.Bounding = nil
			change(b)
			if err := b.build(); err != nil {
				t.Fatal(err)
			}
			got, file := b.String(), filepath.Join("testdata", name+".golden")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), got); d != "" {
				t.Error(d)
			}
		})
	}
}
