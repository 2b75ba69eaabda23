package compat

import (
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/s3"
)

// suites are the OCI's tests of registries: how each is built, in the module
// below conformance/ that requires it, and how it is told what to do.
var suites = map[string]struct {
	module, build string
	env           []string
}{
	"1.1": {"dev", "build", []string{"OCI_VERSION=1.1"}},
	"dev": {"dev", "build", []string{"OCI_VERSION=dev"}},
	"while 1.1 was written": {"v1.1", "test -c", []string{"OCI_TEST_PULL=1", "OCI_TEST_PUSH=1", "OCI_TEST_CONTENT_DISCOVERY=1",
		"OCI_TEST_CONTENT_MANAGEMENT=1", "OCI_AUTOMATIC_CROSSMOUNT=0"}},
}

// TestConformance runs the suites against a registry over each storage.
func TestConformance(t *testing.T) {
	programs := t.TempDir()
	for _, s := range suites {
		program := filepath.Join(programs, s.module)
		if _, err := os.Stat(program); err == nil {
			continue
		}
		args := append(strings.Fields(s.build), "-o", program, "github.com/opencontainers/distribution-spec/conformance")
		cmd := exec.Command("go", args...)
		cmd.Dir = filepath.Join(daemon.Root(), "test/compat/conformance", s.module)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %s in %s: %v\n%s", strings.Join(args, " "), cmd.Dir, err, out)
		}
	}
	server := s3.Start(t, "registry")
	for where, storage := range map[string]func(t *testing.T) string{
		"directory": func(t *testing.T) string { return fmt.Sprintf("[storage]\nroot = %q\n", t.TempDir()) },
		"bucket": func(t *testing.T) string {
			return fmt.Sprintf("[storage.s3]\nendpoint = \"http://%s\"\nbucket = \"registry\"\nprefix = %q\nregion = \"us-east-1\"\naccess_key = %q\nsecret_key = %q\npath_style = true\n",
				server.Host, t.Name(), s3.AccessKey, s3.SecretKey)
		},
	} {
		for name, s := range suites {
			t.Run(where+"/"+name, func(t *testing.T) {
				conform(t, filepath.Join(programs, s.module), serve(t, storage(t)), s.env)
			})
		}
	}
}

// ready is how tare-registry says where it listens.
var ready = regexp.MustCompile(`tare-registry is ready.*addresses=\[(http://[^ \]]+)\]`)

// serve runs tare-registry with the configuration until the test's end, and
// returns its address.
func serve(t *testing.T, configuration string) string {
	t.Helper()
	dir := t.TempDir()
	config, logPath := filepath.Join(dir, "registry.toml"), filepath.Join(dir, "log")
	if err := os.WriteFile(config, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(logPath)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(daemon.Bin(t), "tare-registry"), "serve", "--config", config, "--addr", "127.0.0.1:0")
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
		if text, _ := os.ReadFile(logPath); err != nil || t.Failed() {
			t.Errorf("tare-registry ended with %v:\n%s", err, text)
		}
	})
	var found [][]byte
	testutil.Eventually(t, 30*time.Second, "tare-registry is ready", func() bool {
		text, err := os.ReadFile(logPath)
		if err != nil {
			t.Fatal(err)
		}
		found = ready.FindSubmatch(text)
		return found != nil
	})
	return string(found[1])
}

// conform runs a suite against the registry and reads its report.
func conform(t *testing.T, program, url string, env []string) {
	t.Helper()
	report := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program)
	cmd.Dir = report
	_, host, _ := strings.Cut(url, "//")
	cmd.Env = append(append(os.Environ(), env...),
		"OCI_REGISTRY="+host, "OCI_TLS=disabled", "OCI_REPO1=conformance/one", "OCI_REPO2=conformance/two", "OCI_RESULTS_DIR="+report,
		"OCI_ROOT_URL="+url, "OCI_NAMESPACE=conformance/one", "OCI_CROSSMOUNT_NAMESPACE=conformance/two", "OCI_REPORT_DIR="+report)
	out, failed := cmd.CombinedOutput()
	data, err := os.ReadFile(filepath.Join(report, "junit.xml"))
	if err != nil {
		t.Fatalf("no report: %v\n%s", err, out)
	}
	var suites struct {
		Cases []struct {
			Name   string `xml:"name,attr"`
			Status string `xml:"status,attr"`
			Inner  string `xml:",innerxml"`
		} `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(data, &suites); err != nil {
		t.Fatal(err)
	}
	count := map[string]int{}
	for _, c := range suites.Cases {
		switch count[c.Status]++; c.Status {
		case "passed", "disabled":
		case "skipped":
			t.Logf("skipped: %s", c.Name)
		default:
			t.Errorf("%s: %s\n%.2000s", c.Status, c.Name, c.Inner)
		}
	}
	if count["passed"] < 70 || failed != nil && !t.Failed() {
		t.Errorf("the report is %v, the end %v\n%s", count, failed, out)
	}
	t.Log(count)
}
