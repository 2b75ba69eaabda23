package compat

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/images"
	"github.com/tarehq/tare/test/registry"
)

// TestClientsAndRegistries has both clients take an image through each kind of
// registry with what the kind asks for. Nothing of it changes on the way.
func TestClientsAndRegistries(t *testing.T) {
	testutil.RequireRoot(t)
	users := map[string]string{"ann": "secret"}
	rights := &registry.Rights{Passwords: users, Access: map[string]map[string][]string{"": {"open/*": {"pull"}}, "ann": {"**": {"*"}}}}
	kinds := map[string]registry.Options{
		"plain": {}, "TLS": {TLS: true}, "htpasswd": {Htpasswd: users}, "htpasswd, TLS": {TLS: true, Htpasswd: users},
		"token": {Token: rights}, "token, TLS": {TLS: true, Token: rights},
	}
	hosts := t.TempDir()
	registries := map[string]*registry.Registry{}
	for kind, o := range kinds {
		r := registry.Start(t, o)
		registries[kind] = r
		if r.CA != "" { // as in Docker's certs.d
			dir := filepath.Join(hosts, r.Host)
			if out, err := exec.Command("sh", "-c", "mkdir -p "+dir+" && cp "+r.CA+" "+dir+"/ca.crt").CombinedOutput(); err != nil {
				t.Fatalf("%s", out)
			}
		}
	}
	d := daemon.Start(t, "--registry-hosts-dir", hosts)
	for kind, r := range registries {
		for n, client := range []string{"tare", "docker"} {
			t.Run(kind+" "+client, func(t *testing.T) {
				through(t, d, r, client, images.Spec{Layers: 3, Seed: uint64(n), Docker: n == 1, Files: 5})
			})
		}
	}
}

// through takes an image from the registry and back under another name.
func through(t *testing.T, d *daemon.Daemon, r *registry.Registry, client string, spec images.Spec) {
	private := strings.Contains(t.Name(), "htpasswd") || strings.Contains(t.Name(), "token")
	creds := []string{}
	if private {
		creds = []string{"--dest-creds=ann:secret"}
	}
	img := images.Make(t, spec)
	name := r.Host + "/team/" + client
	images.Copy(t, img.Ref(), "docker://"+name+":1", creds...)
	run := func(input string, args ...string) (string, error) {
		cmd := d.Command(t, client, args...)
		cmd.Env = append(cmd.Env, "DOCKER_CONFIG="+filepath.Join(d.Dir, "config-"+client))
		cmd.Stdin = strings.NewReader(input)
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	must := func(args ...string) string {
		t.Helper()
		out, err := run("", args...)
		if err != nil {
			t.Fatalf("%v: %v %s", args, err, out)
		}
		return out
	}
	if private {
		if out, err := run("", "pull", name+":1"); err == nil {
			t.Errorf("nobody may pull: %s", out)
		}
		if out, err := run("wrong", "login", "-u", "ann", "--password-stdin", r.Host); err == nil {
			t.Errorf("a wrong password is right: %s", out)
		}
		if out, err := run("secret", "login", "-u", "ann", "--password-stdin", r.Host); err != nil || !strings.Contains(out, "Login Succeeded") {
			t.Fatalf("login: %v %s", err, out)
		}
	}
	must("pull", name+":1")
	digest := img.Manifest.Digest.String()
	if got := must("image", "inspect", "-f", "{{index .RepoDigests 0}}", name+":1"); got != name+"@"+digest {
		t.Errorf("pulled %s, it was %s", got, digest)
	}
	other := name + "-copy"
	for _, tag := range []string{"a", "b"} {
		must("tag", name+":1", other+":"+tag)
	}
	if out := must("push", "-a", other); strings.Count(out, "digest: "+digest) != 2 {
		t.Errorf("push -a says %s", out)
	}
	raw := skopeo(t, append([]string{"inspect", "--raw", "--tls-verify=false", "docker://" + other + ":b"}, inspectCreds(private)...)...)
	if want, err := os.ReadFile(images.Layout(img.Dir).Path(img.Manifest.Digest)); err != nil || string(raw) != string(want) {
		t.Errorf("the manifest has become %s, %v", raw, err)
	}
	must("rmi", name+":1", other+":a", other+":b")
	must("pull", name+"@"+digest)
	must("rmi", name+"@"+digest)
	must("pull", "-a", other)
	must("rmi", other+":a", other+":b")
	if private {
		must("logout", r.Host)
		if out, err := run("", "pull", name+":1"); err == nil {
			t.Errorf("nobody may pull: %s", out)
		}
	}
}

func inspectCreds(private bool) []string {
	if private {
		return []string{"--creds=ann:secret"}
	}
	return nil
}

func skopeo(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("skopeo", append([]string{"--insecure-policy"}, args...)...)
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("skopeo %v: %v: %s", args, err, errOut.String())
	}
	return out
}

func umoci(t *testing.T, image string) (rootfs string) {
	t.Helper()
	bundle := filepath.Join(t.TempDir(), "bundle")
	if out, err := exec.Command("umoci", "unpack", "--image", image, bundle).CombinedOutput(); err != nil {
		t.Fatalf("umoci: %v: %s", err, out)
	}
	return filepath.Join(bundle, "rootfs")
}

// A Debian comes through a registry, this engine, an archive, skopeo and umoci
// as it was, file by file, and so a container sees it.
func TestDebianThroughAll(t *testing.T) {
	testutil.RequireRoot(t)
	tar, err := os.Open(images.Debian(t))
	if err != nil {
		t.Fatal(err)
	}
	defer tar.Close()
	img := images.Make(t, images.Spec{Bases: []io.Reader{tar}, Layers: 2, Files: 10, Config: ocispec.ImageConfig{Cmd: []string{"/bin/sh"}}})
	unpacked := func(image string) map[string]string {
		tree := images.Tree(t, umoci(t, image))
		delete(tree, ".") // which has no entry, and so the time of its making
		return tree
	}
	want := unpacked(img.Dir + ":" + img.Tag)
	r := registry.Start(t, registry.Options{})
	images.Copy(t, img.Ref(), "docker://"+r.Host+"/debian:1")
	d := daemon.Start(t)
	ref := r.Host + "/debian:1"
	d.Tare(t, "pull", "-q", ref)
	saved := filepath.Join(t.TempDir(), "saved.tar")
	d.Tare(t, "save", "-o", saved, ref)
	for _, kind := range []string{"oci-archive:" + saved, "docker-archive:" + saved} {
		to := t.TempDir()
		skopeo(t, "copy", "-q", kind, "oci:"+to+":x")
		if diff := cmp.Diff(want, unpacked(to+":x")); diff != "" {
			t.Errorf("by %s it has become\n%s", kind, diff)
		}
	}

	// What a container has, by its export, which GNU tar extracts.
	d.Tare(t, "create", "--name", "box", ref)
	seen := t.TempDir()
	export := d.Command(t, "tare", "export", "box")
	extract := exec.Command("tar", "-C", seen, "--numeric-owner", "--same-owner", "-p", "--xattrs", "--xattrs-include=*", "--acls", "-xf", "-")
	if extract.Stdin, err = export.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := export.Start(); err != nil {
		t.Fatal(err)
	}
	if out, err := extract.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	if err := export.Wait(); err != nil {
		t.Fatal(err)
	}
	got := images.Tree(t, seen)
	for name, text := range want {
		if mounted[name] {
			continue
		}
		if got[name] != text {
			t.Errorf("%s is %q in the container, %q in the image", name, got[name], text)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok && !mounted[name] {
			t.Errorf("%s is in the container and not in the image", name)
		}
	}
}

// mounted are the places of a container that an engine puts something over, or
// changes the time of by that.
var mounted = map[string]bool{".": true, "dev": true, "etc": true, "dev/console": true, "dev/pts": true, "dev/shm": true, ".dockerenv": true,
	"etc/hosts": true, "etc/hostname": true, "etc/resolv.conf": true, "etc/mtab": true, "proc": true, "sys": true}

// What umoci makes and changes is pulled as umoci would unpack it, whiteouts
// included.
func TestUmociMakes(t *testing.T) {
	testutil.RequireRoot(t)
	img := images.Make(t, images.Spec{Layers: 2, Files: 8})
	bundle := filepath.Join(t.TempDir(), "bundle")
	script := fmt.Sprintf(`set -e
umoci unpack --image %[1]s:latest %[2]s
cd %[2]s/rootfs
rm layer0/0/file1; rm -r layer1; mkdir layer1; echo new > layer1/new; ln layer0/0/file2 layer0/hard; ln -s /layer0 gone
mkfifo pipe; setfattr -n user.note -v x layer0/0/file3; chown 3000000000:7 layer0/0/file4; chmod 4711 layer0/0/file4
cd /
umoci repack --image %[1]s:changed %[2]s`, img.Dir, bundle)
	if out, err := exec.Command("bash", "-c", script).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := images.Tree(t, umoci(t, img.Dir+":changed"))
	r := registry.Start(t, registry.Options{})
	d := daemon.Start(t)
	for _, how := range []string{"gzip", "zstd", "zstd:chunked"} {
		tag := strings.ReplaceAll(how, ":", "-")
		skopeo(t, "copy", "-q", "--dest-tls-verify=false", "--dest-compress-format", how, "oci:"+img.Dir+":changed", "docker://"+r.Host+"/umoci:"+tag)
		ref := r.Host + "/umoci:" + tag
		d.Tare(t, "pull", "-q", ref)
		saved := filepath.Join(t.TempDir(), "saved.tar")
		d.Tare(t, "save", "-o", saved, ref)
		to := t.TempDir()
		skopeo(t, "copy", "-q", "--dest-decompress", "oci-archive:"+saved, "dir:"+to)
		into := t.TempDir()
		skopeo(t, "copy", "-q", "dir:"+to, "oci:"+into+":x")
		if diff := cmp.Diff(want, images.Tree(t, umoci(t, into+":x"))); diff != "" {
			t.Errorf("%s: it has become\n%s", how, diff)
		}
	}
}
