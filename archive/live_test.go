package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/internal/testutil"
)

// restless changes what is in root until stop is closed, without regard for
// those who read: it exchanges directories with links to outside, and lets
// files come, go, grow, shrink and change their type.
func restless(root, outside string, seed uint64, stop <-chan struct{}) {
	chance := rand.New(rand.NewPCG(seed, 1))
	name := func() string { return root + "/d" + strconv.Itoa(chance.IntN(4)) }
	big := bytes.Repeat([]byte("x"), 300<<10)
	for {
		select {
		case <-stop:
			return
		default:
		}
		dir := name()
		file := dir + "/f" + strconv.Itoa(chance.IntN(6))
		switch chance.IntN(12) {
		case 0:
			os.Symlink(outside, dir+".link")
			unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, dir+".link", unix.RENAME_EXCHANGE)
		case 1:
			os.RemoveAll(dir)
		case 2:
			os.Rename(dir, name())
		case 3:
			os.Mkdir(dir, 0o755)
		case 4:
			os.Symlink(outside+"/f0", file)
		case 5:
			unix.Mkfifo(file, 0o644)
		case 6:
			unix.Mknod(file, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
		case 7:
			os.Link(file, dir+"/f"+strconv.Itoa(chance.IntN(6)))
		case 8:
			unix.Truncate(file, int64(chance.IntN(400<<10)))
		case 9:
			os.RemoveAll(file)
		case 10:
			unix.Lsetxattr(file, "user.x", big[:chance.IntN(1000)], 0)
		default:
			// What was a file a moment ago may be a pipe, for whose reader nobody is to wait.
			fd, err := unix.Open(file, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0o644)
			if err == nil {
				unix.Write(fd, big[:chance.IntN(len(big))])
				unix.Close(fd)
			}
		}
	}
}

// wellFormed reads an archive to its end and looks for what is outside.
func wellFormed(t *testing.T, data []byte) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(data))
	for {
		hdr, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatalf("the archive is broken: %v", err)
		}
		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatalf("%s is broken: %v", hdr.Name, err)
		}
		if bytes.Contains(body, []byte("secret")) || strings.Contains(hdr.Name, "canary") {
			t.Fatalf("%s is from outside of the tree", hdr.Name)
		}
	}
}

// A container's files are read while it does what it likes with them: nothing
// from outside gets into the archive, and it is one.
func TestRestlessTree(t *testing.T) {
	testutil.RequireRoot(t)
	const rounds = 40
	lower, outside := t.TempDir(), t.TempDir()
	for i := range 4 {
		for j := range 6 {
			write(t, lower+"/d"+strconv.Itoa(i)+"/f"+strconv.Itoa(j), strings.Repeat("below", 1000*j))
		}
	}
	write(t, outside+"/f0", "secret")
	write(t, outside+"/canary", "secret")
	o := mounted(t, lower)
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for seed := range uint64(3) {
		writers.Go(func() { restless(o.merged, outside, seed, stop) })
	}
	defer writers.Wait()
	defer close(stop)
	ctx := context.Background()
	for range rounds {
		diff := o.diff(t, lower)
		var whole, layer bytes.Buffer
		must(t, Write(ctx, &whole, diff.Tree(), WriteOptions{}))
		wellFormed(t, whole.Bytes())
		_, err := diff.WriteLayer(ctx, &layer, WriteOptions{})
		must(t, err)
		wellFormed(t, layer.Bytes())
		must(t, extract(t, t.TempDir(), &layer))
		must(t, diff.Changes(ctx, func(Change) error { return nil }))
		must(t, Diff{Below: opened(t, lower), Whole: diff.Tree()}.Changes(ctx, func(Change) error { return nil }))
	}
}

// A program that has a lease of a file, as file servers do, is asked for it.
func TestLeasedFile(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/f", "data")
	f, err := os.OpenFile(dir+"/f", os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGIO)
	defer signal.Stop(asked)
	_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	must(t, err)
	returned := make(chan error, 1)
	go func() {
		<-asked
		_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		returned <- err
	}()
	data := written(t, opened(t, dir), WriteOptions{})
	must(t, <-returned)
	if !bytes.Contains(data, []byte("data")) {
		t.Error("the file has not its data")
	}
}
