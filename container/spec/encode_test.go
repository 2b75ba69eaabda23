package spec

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	wire "github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func sampleSpec(t testing.TB, options ...string) *specs.Spec {
	t.Helper()
	if err := Warm(); err != nil {
		t.Fatal(err)
	}
	s, err := Build(Input{ID: "x", Config: &wire.Config{}, Path: "sh", Rootfs: "/r", UTSName: "x",
		HostConfig: &wire.HostConfig{ShmSize: 1 << 20, SecurityOpt: options}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// The text that is put together says the same as the one of encoding/json.
func TestEncode(t *testing.T) {
	for _, options := range [][]string{nil, {"seccomp=unconfined"}, {`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`}} {
		want := sampleSpec(t, options...)
		text, err := Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got := new(specs.Spec)
		if err := json.Unmarshal(text, got); err != nil {
			t.Fatalf("%v: %v", options, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v: %s", options, diff)
		}
		if builtIn := want.Linux.Seccomp != nil && want.Linux.Seccomp == builtin.profile; builtIn != (options == nil) {
			t.Errorf("%v: the built-in profile: %v", options, builtIn)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	s := sampleSpec(b)
	for b.Loop() {
		if _, err := Encode(s); err != nil {
			b.Fatal(err)
		}
	}
}
