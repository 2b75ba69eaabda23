package supervise_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/supervise"
)

// newNetNS makes a network namespace that lives as long as the file.
func newNetNS(t *testing.T) *os.File {
	t.Helper()
	type result struct {
		f   *os.File
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			made <- result{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		made <- result{f, err}
	}()
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	t.Cleanup(func() { r.f.Close() })
	return r.f
}

func TestNetworkNamespaceHandedOver(t *testing.T) {
	eachRuntime(t, func(t *testing.T, rt supervise.Runtime) {
		ns := newNetNS(t)
		var st unix.Stat_t
		if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		b := newBox(t, rt, "/bin/busybox", "readlink", "/proc/self/ns/net")
		b.cfg.NetNS = ns
		b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: "network", Path: supervise.NetNSPath})
		b.create(launcher(t, 0))
		b.start()
		b.wait(0)
		if got, want := strings.TrimSpace(b.log("stdout")), fmt.Sprintf("net:[%d]", st.Ino); got != want {
			t.Errorf("the container is in %s, not in %s", got, want)
		}
		b.release()
	})
}
