package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// lastBytes is what the last step writes.
const lastBytes = 100_000_000

// lastStep is a Dockerfile whose only step writes so much. The last thing that it does is
// to touch a file, whose time is the end of the step: it is looked at before, so that
// from Linux 6.13 on that time is exact, and else it is up to a tick (4 ms) too early.
var lastStep = fmt.Sprintf("FROM busybox\nRUN head -c %d /dev/urandom > /new; touch /end; stat /end > /new2; touch /end\n", lastBytes)

// lastRuns is how often each is measured.
const lastRuns = 2 * blocks

// measureLast measures from the end of the last step until its image is there, for a
// client that waits for the event of its name, and until the build's own client has
// ended; beside one read and hash of as many bytes that a program has just written.
func measureLast(t *table, builders []*builder) {
	const title = "from the last step, of 100 MB, until its image is there"
	ended := map[string][]float64{}
	var list []subject
	for _, b := range builders {
		list = append(list, subject{b.name, func() (float64, error) {
			there, end, err := b.last()
			if err == nil {
				ended[b.name] = append(ended[b.name], end)
			}
			return there, err
		}})
	}
	list = append(list, subject{"one read and hash", func() (float64, error) { return readAndHash(builders[0].dir) }})
	t.compare(title, lastRuns, 0, list)
	for _, b := range builders {
		if len(ended[b.name]) == lastRuns {
			t.add("the same, until the build's client has ended", "ms", b.name, median(ended[b.name]))
		}
	}
}

// last tells how long after the end of its last step an image is there, and its build's
// client has ended.
func (b *builder) last() (there, ended float64, err error) {
	syscall.Sync() // the build before is not this one's
	c := b.engine.api()
	defer c.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	tagged, err := awaitTag(ctx, c)
	if err != nil {
		return 0, 0, err
	}
	if _, err := try(b.build("--no-cache", "-t", "end", filepath.Join(b.dir, "end"))); err != nil {
		return 0, 0, err
	}
	end := time.Now()
	seen := <-tagged
	if seen.err != nil {
		return 0, 0, seen.err
	}
	out, err := b.engine.command("run", "--rm", "--network", "none", seen.id, "stat", "-c", "%y", "/end").Output()
	if err != nil {
		return 0, 0, err
	}
	touched, err := time.Parse("2006-01-02 15:04:05.999999999 -0700", strings.TrimSpace(string(out)))
	return ms(seen.at.Sub(touched)), ms(end.Sub(touched)), err
}

// api is a client of the engine's API.
func (e *engine) api() *http.Client {
	socket := strings.TrimPrefix(e.client[2], "unix://")
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
}

// tag is when the image's name was told of, and which image it was that had it then.
type tag struct {
	at  time.Time
	id  string
	err error
}

// awaitTag waits for the name of an image. When it is told the image is asked for by it.
func awaitTag(ctx context.Context, c *http.Client) (<-chan tag, error) {
	filters := url.Values{"filters": {`{"type":["image"],"event":["tag"]}`}}
	events, err := get(ctx, c, "/events?"+filters.Encode())
	if err != nil {
		return nil, err
	}
	told := make(chan tag, 1)
	go func() {
		defer events.Close()
		var event struct{ Action string }
		err := json.NewDecoder(events).Decode(&event)
		t := tag{at: time.Now(), err: err}
		if err == nil {
			t.id, t.err = imageID(ctx, c, "end")
		}
		told <- t
	}()
	return told, nil
}

func imageID(ctx context.Context, c *http.Client, name string) (string, error) {
	body, err := get(ctx, c, "/images/"+name+"/json")
	if err != nil {
		return "", err
	}
	defer body.Close()
	var image struct{ ID string }
	err = json.NewDecoder(body).Decode(&image)
	return image.ID, err
}

func get(ctx context.Context, c *http.Client, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("%s: %s", path, resp.Status)
	}
	return resp.Body, nil
}

// readAndHash reads and hashes a file as the step writes one: by the same program, just
// before.
func readAndHash(dir string) (float64, error) {
	syscall.Sync()
	path := filepath.Join(dir, "hashed")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return 0, err
	}
	defer os.Remove(path)
	defer f.Close()
	write := exec.Command("busybox", "head", "-c", fmt.Sprint(lastBytes), "/dev/urandom")
	write.Stdout = f
	if err := write.Run(); err != nil {
		return 0, err
	}
	buf := make([]byte, 256<<10)
	clear(buf) // the pages are there
	begin := time.Now()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	h := sha256.New()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{f}, buf)
	took := ms(time.Since(begin))
	if h.Sum(nil); err == nil && n != lastBytes {
		err = fmt.Errorf("%d of %d bytes were read", n, lastBytes)
	}
	return took, err
}
