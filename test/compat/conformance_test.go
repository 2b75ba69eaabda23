package compat

import (
	"encoding/xml"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/storage"
	"github.com/tarehq/tare/registry/storage/dir"
	"github.com/tarehq/tare/test/daemon"
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
	for where, open := range map[string]func(*testing.T) storage.Storage{"directory": openDirectory} {
		for name, s := range suites {
			t.Run(where+"/"+name, func(t *testing.T) {
				store := open(t)
				t.Cleanup(func() {
					if err := store.Close(); err != nil {
						t.Error(err)
					}
				})
				server := httptest.NewServer(registry.New(registry.Config{Storage: store}))
				t.Cleanup(server.Close)
				conform(t, filepath.Join(programs, s.module), server.URL, s.env)
			})
		}
	}
}

func openDirectory(t *testing.T) storage.Storage {
	t.Helper()
	s, err := dir.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
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
