package e2e

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
)

// TestUsersOfOtherRuntimes: a runtime that says that it maps the owners of mounts makes
// containers with a user namespace, and one that does not is refused. TARE_TEST_RUNC
// names a runc beside that of the machine, from 1.2 on.
func TestUsersOfOtherRuntimes(t *testing.T) {
	testutil.RequireRoot(t)
	var paths []string
	for _, name := range []string{os.Getenv("TARE_TEST_RUNC"), "runc", "crun"} {
		if path, err := exec.LookPath(name); err == nil {
			paths = append(paths, path)
		}
	}
	if len(paths) == 0 {
		t.Skip("there is no other runtime")
	}
	for _, path := range paths {
		t.Run(path[strings.LastIndexByte(path, '/')+1:], func(t *testing.T) {
			u := withUsers(t, "containers:200000:131072\n", "--add-runtime", "other="+path)
			if err := os.Chmod(u.Dir, 0o711); err != nil { // as what leads to an exec root is
				t.Fatal(err)
			}
			out, err := u.Command(t, "tare", "run", "-d", "--name", "mapped", "--runtime", "other", "--userns", "auto", "-v", "vol:/v", "busybox",
				"sh", "-c", "touch /v/mine /mine; stat -c %u:%g /v/mine /etc/hosts; sleep 1000").CombinedOutput()
			said, _ := exec.Command(path, "features").Output()
			if !strings.Contains(strings.Join(strings.Fields(string(said)), ""), `"idmap":{"enabled":true`) {
				if err == nil || !strings.Contains(string(out), "does not map the owners of volumes (runc does from 1.2 on)") {
					t.Errorf("it runs, or is refused in other words: %v, %s", err, out)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v, %s", err, out)
			}
			first, _ := u.mapped("mapped")
			if first < 200000 {
				t.Errorf("root is %d outside", first)
			}
			u.want("0:0\n0:0", "logs", "mapped")
			u.want("0", "exec", "mapped", "id", "-u")
			for _, path := range []string{u.Dir + "/data/volumes/vol/_data/mine", u.upper("mapped") + "/mine"} { // on disk as without a namespace
				if got := u.owner(path); got != "0:0" {
					t.Errorf("%s belongs to %s", path, got)
				}
			}
			u.Tare(t, "rm", "-f", "mapped")
		})
	}
}
