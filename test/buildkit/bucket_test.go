package buildkit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tarehq/tare/test/s3"
)

// TestBucketCache writes a build's cache into a bucket and builds from it where there
// is no other: by buildx, with the credentials in its options.
func TestBucketCache(t *testing.T) {
	server := s3.Start(t, "caches")
	r := newRig(t)
	dir := directory(t, map[string]string{"Dockerfile": "FROM busybox\nCOPY f /f\nRUN head -c 200000 /dev/urandom > /random\nRUN sha256sum /random > /sum; cat /sum\n", "f": "f"})
	bucket := "type=s3,bucket=caches,region=us-east-1,endpoint_url=http://" + server.Host + ",use_path_style=true,prefix=of/,name=one;two,access_key_id=" + s3.AccessKey
	build := func(secret string, args ...string) (string, error) {
		return r.try(t, dir, append([]string{"buildx", "build", "--cache-from", bucket + ",secret_access_key=" + secret}, append(args, ".")...)...)
	}
	text, err := build(s3.SecretKey, "--cache-to", bucket+",mode=max,touch_refresh=0s,secret_access_key="+s3.SecretKey, "-t", "first")
	if err != nil || strings.Contains(text, "CACHED") {
		t.Fatalf("%v\n%s", err, text)
	}
	for _, name := range []string{"of/manifests/one", "of/manifests/two"} {
		if st, err := os.Stat(filepath.Join(server.Root, "caches", name)); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v %v", name, st, err)
		}
	}
	sums := r.Tare(t, "run", "--rm", "first", "cat", "/sum")
	// A second time nothing is written but the names; what is old is made new.
	if text, err := build(s3.SecretKey, "--cache-to", bucket+",mode=max,touch_refresh=0s,secret_access_key="+s3.SecretKey); err != nil || strings.Contains(text, "writing layer") {
		t.Errorf("%v\n%s", err, text)
	}
	r.Tare(t, "builder", "prune", "-af")
	r.Tare(t, "image", "rm", "first")
	if text, err = build(s3.SecretKey, "-t", "second"); err != nil || strings.Count(text, "CACHED") != 3 {
		t.Fatalf("%v\n%s", err, text)
	}
	if got := r.Tare(t, "run", "--rm", "second", "cat", "/sum"); got != sums {
		t.Errorf("the layer is another: %s, not %s", got, sums)
	}
	if strings.Contains(r.docker(t, dir, "buildx", "history", "inspect", "--format", "json"), s3.SecretKey) {
		t.Error("the history has the secret")
	}
	// A layer that is gone is made again, one that is something else too.
	r.Tare(t, "builder", "prune", "-af")
	r.Tare(t, "image", "rm", "second")
	blobs, err := filepath.Glob(filepath.Join(server.Root, "caches/of/blobs/*"))
	if err != nil || len(blobs) < 3 {
		t.Fatalf("%v %v", blobs, err)
	}
	for _, b := range blobs {
		if err := os.WriteFile(b, []byte("something else"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err = build(s3.SecretKey, "-t", "third"); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got := r.Tare(t, "run", "--rm", "third", "cat", "/sum", "/f"); got == sums || !strings.HasSuffix(got, "f") {
		t.Error(got)
	}
	// A cache that cannot be had does not hinder a build; one that cannot be written does.
	if text, err := build("wrong", "--no-cache"); err != nil || !strings.Contains(text, "cannot read of/manifests/one of the bucket caches") {
		t.Errorf("%v\n%s", err, text)
	}
	if text, err := build(s3.SecretKey, "--cache-to", bucket+",secret_access_key=wrong"); err == nil || !strings.Contains(text, "of the bucket caches") {
		t.Errorf("%v\n%s", err, text)
	}
}
