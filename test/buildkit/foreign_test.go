package buildkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/test/daemon"
)

// machines are the processors that the test tries, with how binfmt_misc calls their
// emulator and the machine's number in the head of a program, from elf(5).
var machines = map[string]struct {
	emulator string
	number   byte
}{"arm64": {"qemu-aarch64", 183}, "amd64": {"qemu-x86_64", 62}}

// emulate has the kernel run another processor's programs by QEMU's emulator until
// the end of the test, and names the processor.
func emulate(t *testing.T) string {
	t.Helper()
	arch := "arm64"
	if runtime.GOARCH == arch {
		arch = "amd64"
	}
	m := machines[arch]
	program, err := exec.LookPath(m.emulator + "-static")
	if err != nil {
		t.Skip("needs qemu-user-static")
	}
	const dir = "/proc/sys/fs/binfmt_misc"
	if _, err := os.Stat(dir + "/register"); err != nil {
		if err := unix.Mount("binfmt_misc", dir, "binfmt_misc", 0, ""); err != nil { // in the tests' own mount namespace
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
	}
	if _, err := os.Stat(filepath.Join(dir, m.emulator)); err == nil {
		return arch // the machine does so always
	}
	magic, mask := `\x7fELF\x02\x01\x01`+strings.Repeat(`\x00`, 9)+`\x02\x00`+fmt.Sprintf(`\x%02x\x00`, m.number), strings.Repeat(`\xff`, 7)+strings.Repeat(`\x00`, 9)+`\xfe\xff\xff\xff`
	if err := os.WriteFile(dir+"/register", []byte(":"+m.emulator+":M::"+magic+":"+mask+":"+program+":OCF"), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(filepath.Join(dir, m.emulator), []byte("-1"), 0); err != nil {
			t.Error(err)
		}
	})
	return arch
}

// TestForeignPlatform builds for two processors at once, one of which this machine has
// not: its step is run by an emulator. Without one it is said what is missing.
func TestForeignPlatform(t *testing.T) {
	r := newRig(t)
	dir := directory(t, map[string]string{"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY native-$TARGETARCH /native\nRUN [\"/native\"]\n"})
	foreign := "arm64"
	if runtime.GOARCH == foreign {
		foreign = "amd64"
	}
	for _, arch := range []string{runtime.GOARCH, foreign} {
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "native-"+arch), "./test/buildkit/testdata/native")
		cmd.Dir, cmd.Env = daemon.Root(), append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	both := []string{"buildx", "build", "--no-cache", "--platform", "linux/" + runtime.GOARCH + ",linux/" + foreign, "--output", "type=local,dest=out", "."}
	if _, err := os.Stat("/proc/sys/fs/binfmt_misc/" + machines[foreign].emulator); err != nil {
		if text, err := r.try(t, dir, both...); err == nil || !strings.Contains(text, "exit code: 255: this machine does not run programs for linux/"+foreign+"; install qemu-user-static") {
			t.Fatalf("%v %s", err, text)
		}
	}
	emulate(t)
	text := r.docker(t, dir, both...)
	for _, arch := range []string{runtime.GOARCH, foreign} {
		made, err := os.ReadFile(filepath.Join(dir, "out/linux_"+arch, "made"))
		if err != nil || string(made) != arch || !strings.Contains(text, "runs on "+arch) {
			t.Errorf("%s: %q, %v\n%s", arch, made, err, text)
		}
	}
	// A daemon that is started now offers the platform, and an image has both.
	r.Signal(t, unix.SIGTERM)
	r.Up(t)
	if text := r.docker(t, dir, "buildx", "inspect"); !strings.Contains(text, "linux/"+foreign) {
		t.Error(text)
	}
	r.docker(t, dir, append(both[:len(both)-3:len(both)-3], "--output", "type=oci,dest=o.tar", ".")...)
	_, index := indexOf(t, layoutOf(t, dir+"/o.tar"))
	var found []string
	for _, m := range index.Manifests {
		found = append(found, m.Platform.Architecture)
	}
	for _, arch := range []string{runtime.GOARCH, foreign} {
		if !slices.Contains(found, arch) {
			t.Errorf("no %s among %s", arch, found)
		}
	}
}
