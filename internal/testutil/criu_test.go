package testutil

import (
	"os/exec"
	"strings"
	"testing"
)

func TestCRIU(t *testing.T) {
	out, err := exec.Command(CRIU(t), "--version").CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "Version: 4.") {
		t.Errorf("%v: %s", err, out)
	}
}
