package nofile

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestOriginal starts this test again with a limit that package syscall raises.
func TestOriginal(t *testing.T) {
	if os.Getenv("NOFILE_CHILD") != "" {
		limit, err := Original()
		fmt.Println(limit.Cur, err)
		os.Exit(0)
	}
	cmd := exec.Command("sh", "-c", `ulimit -Sn 321; exec "$0" -test.run TestOriginal`, os.Args[0])
	cmd.Env = append(os.Environ(), "NOFILE_CHILD=1")
	out, err := cmd.Output()
	if err != nil || string(out) != "321 <nil>\n" {
		t.Errorf("the original limit is %q, %v; want 321", out, err)
	}
}

func TestRoom(t *testing.T) {
	size := func() string {
		status, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(status), "FDSize:")
		line, _, _ := strings.Cut(rest, "\n")
		return strings.TrimSpace(line)
	}
	if before := size(); before == "2048" {
		t.Skip("there is room already")
	}
	Room(1500)
	if after := size(); after != "2048" {
		t.Errorf("the table has %s entries, want 2048", after)
	}
}
