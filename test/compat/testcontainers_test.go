package compat

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/images"
)

// The names under which testcontainers-go's tests ask for images, and the target of
// test/clients/images that stands for each.
var hubImages = map[string][]string{
	"nginx": {"nginx", "nginx:alpine", "nginx:mainline"}, "delayed-nginx": {"menedev/delayed-nginx:1.15.2"}, "redis": {"redis"},
	"alpine": {"alpine", "alpine:3.23"}, "bash": {"bash:5.2.26"}, "postgres": {"postgres:12"}, "registry": {"registry:2"},
}

// TestTestcontainersOwn runs the tests that testcontainers-go has of itself,
// unmodified, from the module's source.
func TestTestcontainersOwn(t *testing.T) {
	needsClients(t)
	testutil.RequireRoot(t)
	if os.Getenv("TARE_TEST_TESTCONTAINERS") == "" {
		t.Skip("they take a quarter of an hour: TARE_TEST_TESTCONTAINERS=1 runs them")
	}
	d := daemon.Start(t)
	d.ImportBusybox(t)
	d.Tare(t, "import", images.Debian(t), "debian:bookworm")
	for target, names := range hubImages {
		args := []string{"build", "-q", "--target", target}
		for _, name := range names {
			args = append(args, "-t", name)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, d.Program("tare"), append(args, filepath.Join(daemon.Root(), "test/clients/images"))...)
		cmd.Env = append(d.Env(), "DOCKER_BUILDKIT=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	source := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", "-euc", `go mod download github.com/testcontainers/testcontainers-go
cp -r "$(go list -m -f '{{.Dir}}' github.com/testcontainers/testcontainers-go)/." "$1"
chmod -R u+w "$1"`, "sh", source)
	cmd.Dir = filepath.Join(daemon.Root(), "test/clients")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	skipped := skippedOfTestcontainers
	if able, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0); err != nil || able == 0 {
		skipped = append(skipped, "^TestDockerContainerResources$") // raises limits
	}
	cmd = exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-p", "1", "-skip", strings.Join(skipped, "|"), ".", "./wait", "./network", "./internal/...", "./exec/...", "./log/...")
	cmd.Dir = source
	cmd.Env = append(d.Env(), "HOME="+t.TempDir(), "GOCACHE="+goEnv(t, "GOCACHE"), "GOMODCACHE="+goEnv(t, "GOMODCACHE"), "TESTCONTAINERS_RYUK_DISABLED=true", "TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if dir := os.Getenv("TARE_TEST_KEEP"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "testcontainers.log"), out, 0o644); err != nil {
			t.Error(err)
		}
	}
	passed, failed := 0, []string{}
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "--- PASS: ") {
			passed++
		} else if strings.HasPrefix(line, "--- FAIL: ") {
			failed = append(failed, strings.Fields(line)[2])
		}
	}
	t.Logf("%d of their tests pass", passed)
	if err != nil || passed < 100 {
		t.Errorf("%v; failed are %v\n%s", err, failed, out[max(0, len(out)-20000):])
	}
}

// skippedOfTestcontainers are what cannot be had here.
var skippedOfTestcontainers = []string{
	"Reaper", "^TestSpawnerRetryError$", // Ryuk is an image of Docker Hub's only
	"^TestPodman", "^TestDefaultNetworkAlias$",
	"^TestContainerCreationWaitsForLog",                                             // mysql
	"^TestBuildContainerFromDockerfile", "^TestCreateContainerFromPrivateRegistry$", // bases pinned by digest
	"^TestContainerCustomPlatformImage$", "^TestPullDockerImageWithPlatform$", "^TestWithAlwaysPull$", "^TestWithImagePlatform$", // pulls
	"^TestWithHostPortAccess$", "^TestExposeHostPorts", // testcontainers/sshd
	"^TestDockerProvider_.*_?[rR]etries$", "^TestContainerLogWithErrClosed$", // docker:dind
	"^TestRestartContainerWithLogConsumer$", "^ExampleHTTPStrategy_WithBasicAuth$",
	"^TestContainer$", // Ryuk again
	"^TestContainerTerminationRemovesDockerImage$", // bases pinned by digest, or of Go
	"^Test_LogConsumerGetsCalled$", "^Test_ShouldRecognizeLogTypes$", "^Test_MultipleLogConsumers$", "^TestContainerLogsEnableAtStart$",
	"^Test_StartLogProductionStillStartsWith", "^Test_MultiContainerLogConsumer_CancelledContext$", "^Test_BuildContainerFromDockerfileWithBuildArgs$", "^TestCustomLabelsBuildOptionsModifier$",
	"^TestHTTPStrategyWaitUntilReady", "^ExampleHTTPStrategy_WithHeaders$", "^ExampleForTLSCert$", // testdata of another module
	"^TestContainerContextCancellation$", "^TestContainerRunningCheckingStatusCode$", "^TestWithLogConsumers$", // influxdb, mysql
	"^TestParallelContainersWithReuse$", "^TestUDPPortBinding$", // postgis, alpine/socat
	"^TestCustomPrefixTrailingSlashIsProperlyRemovedIfPresent$", "^TestImageSubstitutors$", "^ExampleGenericContainer_withSubstitutors$", // other registries
	"^ExampleContainer_Host$",                       // looks for the way out of the container that the tests are in
	"^ExampleGenericContainer_buildFromDockerfile$", // reads the log before the container has said anything
	"^ExampleRun$",                                  // finds below a tmpfs what it hides
}
