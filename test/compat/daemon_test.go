package compat

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
)

// identity is a certificate with its key, in files.
type identity struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	path string // of the files, without .pem and -key.pem
}

// issue makes a certificate that the issuer signs, itself when nil.
func issue(t *testing.T, dir, name string, usage x509.ExtKeyUsage, issuer *identity) *identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{usage},
		IsCA: issuer == nil, BasicConstraintsValid: true,
	}
	if issuer == nil {
		template.ExtKeyUsage = nil
		issuer = &identity{cert: template, key: key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, key.Public(), issuer.key)
	if err != nil {
		t.Fatal(err)
	}
	id := &identity{key: key, path: filepath.Join(dir, name)}
	if id.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for path, block := range map[string]*pem.Block{id.path + ".pem": {Type: "CERTIFICATE", Bytes: der}, id.path + "-key.pem": {Type: "EC PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

// TestDockerOverTLS has Docker's client and the daemon show each other their
// certificates over TCP, and refuses clients without the right one.
func TestDockerOverTLS(t *testing.T) {
	testutil.RequireRoot(t)
	dir := t.TempDir()
	ca := issue(t, dir, "ca", 0, nil)
	serverID := issue(t, dir, "server", x509.ExtKeyUsageServerAuth, ca)
	client := issue(t, dir, "client", x509.ExtKeyUsageClientAuth, ca)
	stranger := issue(t, dir, "stranger", x509.ExtKeyUsageClientAuth, issue(t, dir, "other-ca", 0, nil))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()

	d := daemon.Start(t, "-H", "tcp://"+address, "--tlsverify", "--tlscacert", ca.path+".pem", "--tlscert", serverID.path+".pem", "--tlskey", serverID.path+"-key.pem")
	d.ImportBusybox(t)
	over := func(id *identity, args ...string) (string, error) {
		flags := []string{"--host", "tcp://" + address, "--tlsverify", "--tlscacert", ca.path + ".pem"}
		if id != nil {
			flags = append(flags, "--tlscert", id.path+".pem", "--tlskey", id.path+"-key.pem")
		}
		return docker(t, d, "to the container\n", append(flags, args...)...)
	}
	if out, err := over(client, "run", "--rm", "-i", "busybox", "cat"); err != nil || out != "to the container" {
		t.Errorf("run: %v %s", err, out)
	}
	if out, err := over(client, "info", "--format", "{{.Warnings}}"); err != nil || strings.Contains(out, "API is accessible") {
		t.Errorf("info: %v %s", err, out)
	}
	for what, id := range map[string]*identity{"of another CA": stranger, "none": nil} {
		if out, err := over(id, "version"); err == nil || !strings.Contains(out, "tls:") {
			t.Errorf("a client with a certificate of %s: %v %s", what, err, out)
		}
	}
	if out, err := docker(t, d, "", "--host", "tcp://"+address, "version"); err == nil || !strings.Contains(out, "Client sent an HTTP request to an HTTPS server") {
		t.Errorf("without TLS: %v %s", err, out)
	}
}

// TestDropIn listens where dockerd does, and at several places, one of which
// somebody else has opened: Docker's client finds it without being told.
func TestDropIn(t *testing.T) {
	testutil.RequireRoot(t)
	d := daemon.New(t, "-H", "fd://")
	place := filepath.Join(d.Dir, "docker.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: place, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	passed, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer passed.Close()
	second := filepath.Join(d.Dir, "second", "docker.sock")
	d.Add("-H", "unix://"+second, "-H", "tcp://127.0.0.1:0", "--tls=false")
	d.Activate(passed)
	d.Up(t)
	d.ImportBusybox(t)
	for _, at := range []string{place, second} {
		if out, err := docker(t, d, "", "--host", "unix://"+at, "run", "--rm", "busybox", "echo", "here"); err != nil || out != "here" {
			t.Errorf("at %s: %v %s", at, err, out)
		}
	}
	// What there is none of is answered as Docker does.
	for _, step := range []struct {
		args string
		want string
	}{
		{"system prune --all --force --volumes", "Total reclaimed space: "},
		{"network prune --force", ""}, {"volume prune --force", "Total reclaimed space: 0B"}, {"plugin ls -q", ""}, {"volume ls -q", ""},
		{"node ls", "This node is not a swarm manager."}, {"service ls", "This node is not a swarm manager."}, {"secret ls", "This node is not a swarm manager."},
		{"swarm leave", "This node is not part of a swarm"}, {"plugin inspect none", "none"},
		{"events --since 1 --until 2", ""}, {"events --filter colour=red", "invalid filter 'colour'"}, {"ps --filter colour=red", "invalid filter 'colour'"},
		{"ps --filter status=here", "invalid filter 'status=here'"}, {"ps --filter is-task=x", "invalid filter 'is-task=[x]'"},
	} {
		out, err := docker(t, d, "", append([]string{"--host", "unix://" + place}, strings.Fields(step.args)...)...)
		if step.want == "" && (err != nil || out != "") || !strings.Contains(out, step.want) {
			t.Errorf("%s: %v %s, want %q", step.args, err, out, step.want)
		}
	}
	info, err := os.Stat(second)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	if g, err := user.LookupGroup("docker"); err == nil {
		if want, err = strconv.Atoi(g.Gid); err != nil {
			t.Fatal(err)
		}
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Gid) != want || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket is of group %d, mode %v; want %d", st.Gid, info.Mode(), want)
	}
	if log := d.Log(); !strings.Contains(log, "Binding to IP address without --tlsverify is insecure and gives root access on this machine to everyone who has access to your network.") {
		t.Errorf("nobody is warned:\n%s", log)
	}
	if out, err := docker(t, d, "", "--host", "unix://"+place, "info"); err != nil || !strings.Contains(out, "WARNING: API is accessible on http://127.0.0.1:0 without encryption.") {
		t.Errorf("%v %s", err, out)
	}
}
