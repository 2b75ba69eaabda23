package supervise_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/supervise"
)

func TestUpdate(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		b := newBox(t, rt, shell(`while true; do sleep 0.01; done`)...)
		b.create(launcher(t, 0))
		b.start()
		pids := int64(17)
		if err := b.keeper.Update(b.ctx(), &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}); err != nil {
			t.Fatal(err)
		}
		files, _ := filepath.Glob("/sys/fs/cgroup/*" + b.spec.Linux.CgroupsPath + "/pids.max")
		if unified, _ := filepath.Glob("/sys/fs/cgroup" + b.spec.Linux.CgroupsPath + "/pids.max"); len(files) == 0 {
			files = unified
		}
		if len(files) != 1 {
			t.Fatalf("files %v", files)
		}
		if text, err := os.ReadFile(files[0]); strings.TrimSpace(string(text)) != "17" {
			t.Errorf("%s has %q, %v", files[0], text, err)
		}
		if err := b.keeper.Update(b.ctx(), &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4095"}}); err == nil {
			t.Error("a processor that is not there was taken")
		}
	})
}
