package create

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	wire "github.com/moby/moby/api/types/container"
	wirenet "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/container/healthcheck"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image/catalog"
	"github.com/tarehq/tare/network"
)

func testImage(entrypoint, cmd []string) catalog.Image {
	return catalog.Image{Config: dockerspec.DockerOCIImage{Config: dockerspec.DockerOCIImageConfig{ImageConfig: ocispec.ImageConfig{
		Entrypoint: entrypoint, Cmd: cmd, Env: []string{"A=image", "B=image"}, Labels: map[string]string{"l": "image", "m": "image"},
		ExposedPorts: map[string]struct{}{"80/tcp": {}},
	}}}}
}

func TestEntrypointAndCommand(t *testing.T) {
	for _, c := range []struct {
		name           string
		entry, cmd     []string // the user's
		want           []string
		imgEntry, imgC []string
	}{
		{"the image's", nil, nil, []string{"e", "c"}, []string{"e"}, []string{"c"}},
		{"own command", nil, []string{"x"}, []string{"e", "x"}, []string{"e"}, []string{"c"}},
		{"own entrypoint hides the image's command", []string{"y"}, nil, []string{"y"}, []string{"e"}, []string{"c"}},
		{"both own", []string{"y"}, []string{"x"}, []string{"y", "x"}, []string{"e"}, []string{"c"}},
		{"emptied entrypoint", []string{""}, []string{"x"}, []string{"x"}, []string{"e"}, []string{"c"}},
	} {
		config := &wire.Config{Entrypoint: c.entry, Cmd: c.cmd}
		MergeImage(config, testImage(c.imgEntry, c.imgC))
		if got := append(slices.Clone(config.Entrypoint), config.Cmd...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestMergeImage(t *testing.T) {
	config := &wire.Config{Env: []string{"B=user", "C=user"}, Labels: map[string]string{"m": "user"}}
	MergeImage(config, testImage(nil, []string{"c"}))
	if diff := cmp.Diff([]string{"B=user", "C=user", "A=image"}, config.Env); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"l": "image", "m": "user"}, config.Labels); diff != "" {
		t.Error(diff)
	}
	if _, ok := config.ExposedPorts[wirenet.MustParsePort("80/tcp")]; !ok {
		t.Error("the image's exposed port is missing")
	}
}

// What inspect shows of a request is what Docker shows, to the last default.
func TestDefaults(t *testing.T) {
	swappiness := int64(-1)
	req := Request{Config: &wire.Config{Volumes: map[string]struct{}{}}, HostConfig: &wire.HostConfig{Resources: wire.Resources{MemorySwappiness: &swappiness}}}
	if err := normalize(&req); err != nil {
		t.Fatal(err)
	}
	h := req.HostConfig
	if h.OomKillDisable == nil || *h.OomKillDisable || h.MemorySwappiness != nil || req.Config.Volumes != nil ||
		!slices.Contains(h.MaskedPaths, "/proc/kcore") || !slices.Contains(h.ReadonlyPaths, "/proc/sys") {
		t.Errorf("%+v", h)
	}
	req.HostConfig = &wire.HostConfig{MaskedPaths: []string{}}
	if err := normalize(&req); err != nil || req.HostConfig.MaskedPaths == nil || len(req.HostConfig.MaskedPaths) != 0 {
		t.Errorf("nothing masked, as asked: %v %q", err, req.HostConfig.MaskedPaths)
	}
	req.HostConfig = &wire.HostConfig{Privileged: true}
	if err := normalize(&req); err != nil || req.HostConfig.MaskedPaths != nil || req.HostConfig.ReadonlyPaths != nil {
		t.Errorf("privileged: %v %+v", err, req.HostConfig)
	}
}

func TestPortWarnings(t *testing.T) {
	h := &wire.HostConfig{NetworkMode: "host", PortBindings: wirenet.PortMap{wirenet.MustParsePort("80/tcp"): nil}}
	if got := portWarnings(h); len(got) != 1 || !strings.Contains(got[0], "host network mode") {
		t.Errorf("%q", got)
	}
	h.NetworkMode = "bridge"
	if got := portWarnings(h); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

func TestWantedPorts(t *testing.T) {
	bindings := wirenet.PortMap{
		wirenet.MustParsePort("81/tcp"): {{HostPort: "8081"}},
		wirenet.MustParsePort("80/tcp"): {{HostPort: "9000-9005"}},
		wirenet.MustParsePort("53/udp"): {{}},
	}
	got, err := Ports(bindings, wirenet.PortSet{wirenet.MustParsePort("443"): {}, wirenet.MustParsePort("80"): {}}, true)
	if err != nil {
		t.Fatal(err)
	}
	want := []network.Port{
		{HostPort: 9000, HostPortEnd: 9005, ContainerPort: 80, Proto: "tcp"},
		{HostPort: 8081, ContainerPort: 81, Proto: "tcp"},
		{ContainerPort: 443, Proto: "tcp"},
		{ContainerPort: 53, Proto: "udp"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if _, err := Ports(wirenet.PortMap{wirenet.MustParsePort("80"): {{HostPort: "9-1"}}}, nil, false); !errors.Is(err, fault.Invalid) {
		t.Errorf("a range that runs backwards: %v", err)
	}
}

func TestPlatformWarnings(t *testing.T) {
	img := catalog.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "s390x"}}
	if got := platformWarnings(img, ""); len(got) != 1 || !strings.Contains(got[0], "(linux/s390x) does not match the detected host platform (linux/"+runtime.GOARCH) {
		t.Error(got)
	}
	if got := platformWarnings(img, "linux/s390x"); got != nil {
		t.Error(got)
	}
	img.Platform.Architecture = runtime.GOARCH
	if got := platformWarnings(img, ""); got != nil {
		t.Error(got)
	}
}

// What cgroup v2 cannot limit is dropped there, and nowhere else.
func TestDiscard(t *testing.T) {
	for _, cgroup2 := range []bool{false, true} {
		swappiness, disable := int64(60), true
		h := &wire.HostConfig{}
		h.MemorySwappiness, h.OomKillDisable = &swappiness, &disable
		warnings := Discard(h, cgroup2)
		if dropped := h.MemorySwappiness == nil && !*h.OomKillDisable; dropped != cgroup2 || (len(warnings) == 2) != cgroup2 {
			t.Errorf("cgroup v2 %v: dropped %v, %q", cgroup2, dropped, warnings)
		}
	}
}

func TestDiscardSwap(t *testing.T) {
	for _, test := range []struct {
		counted      bool
		memory, swap int64
		want         int64
		warned       bool
	}{{true, 8, 16, 16, false}, {false, 8, 16, -1, true}, {false, 8, -1, -1, false}, {false, 0, 0, 0, false}} {
		h := &wire.HostConfig{Resources: wire.Resources{Memory: test.memory, MemorySwap: test.swap}}
		if warnings := DiscardSwap(h, test.counted); h.MemorySwap != test.want || (len(warnings) == 1) != test.warned {
			t.Errorf("%+v: %d, %q", test, h.MemorySwap, warnings)
		}
	}
}

// An image's volumes are the container's, beside those of the user.
func TestVolumesOfAnImage(t *testing.T) {
	img := testImage(nil, []string{"c"})
	img.Config.Config.Volumes = map[string]struct{}{"/data": {}, "/h/": {}}
	config := &wire.Config{Volumes: map[string]struct{}{"/mine": {}}}
	MergeImage(config, img)
	if len(config.Volumes) != 3 || len(img.Config.Config.Volumes) != 2 {
		t.Errorf("%v of %v", config.Volumes, img.Config.Config.Volumes)
	}
}

// The request's check and the image's are merged field by field, and the
// image's shell runs the command of its shell form.
func TestHealthOfImage(t *testing.T) {
	img := testImage(nil, nil)
	img.Config.Config.Shell = []string{"/bin/ash", "-ec"}
	img.Config.Config.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD-SHELL", "probe it"}, Interval: time.Second, Timeout: 2 * time.Second, Retries: 7}
	merged := func(h *wire.HealthConfig) (healthcheck.Check, bool) {
		c := &wire.Config{Healthcheck: h}
		MergeImage(c, img)
		return healthcheck.Of(c)
	}
	got, ok := merged(&wire.HealthConfig{Timeout: 4 * time.Second, StartPeriod: 3 * time.Second})
	want := healthcheck.Check{Argv: []string{"/bin/ash", "-ec", "probe it"}, Interval: time.Second, Timeout: 4 * time.Second,
		StartPeriod: 3 * time.Second, StartInterval: 5 * time.Second, Retries: 7}
	if d := cmp.Diff(want, got); !ok || d != "" {
		t.Error(d)
	}
	if _, ok := merged(&wire.HealthConfig{Test: []string{"NONE"}}); ok {
		t.Error("it is not switched off")
	}
}
