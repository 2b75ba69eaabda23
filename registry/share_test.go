package registry_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/storage/dir"
	"github.com/tarehq/tare/registry/storage/storagetest"
)

// TestParallelPushesAreWrittenOnce has eight clients push the same layer at the
// same time as docker does: a POST, a PATCH that streams, an empty PUT. On disk it
// is one file, before the ends and after.
func TestParallelPushesAreWrittenOnce(t *testing.T) {
	root := t.TempDir()
	s, err := dir.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.New(registry.Config{Storage: s}))
	t.Cleanup(func() {
		server.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	data := storagetest.Bytes(1, 3<<20+4567)
	const clients = 8
	var pushed sync.WaitGroup
	half := make(chan struct{})
	for n := range clients {
		pushed.Go(func() {
			location := answer(t, http.MethodPost, fmt.Sprintf("%s/v2/r%d/blobs/uploads/", server.URL, n), nil)
			r, w := io.Pipe()
			go func() {
				for at := 0; at < len(data); at += 32 << 10 {
					if at == 1<<20 {
						<-half
					}
					if _, err := w.Write(data[at:min(at+32<<10, len(data))]); err != nil {
						return // the request has failed, and says why
					}
				}
				w.Close()
			}()
			location = answer(t, http.MethodPatch, server.URL+location, r)
			answer(t, http.MethodPut, server.URL+location+"?digest="+digest.FromBytes(data).String(), nil)
		})
	}
	for deadline := time.Now().Add(time.Minute); ; {
		names, files := bodies(t, filepath.Join(root, "uploads"))
		if names == clients {
			if files != 1 {
				t.Errorf("%d uploads have %d files", names, files)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("only %d of %d uploads have begun", names, clients)
			break
		}
	}
	close(half)
	pushed.Wait()
	if names, _ := bodies(t, filepath.Join(root, "uploads")); names != 0 {
		t.Errorf("%d uploads were left", names)
	}
	if names, _ := bodies(t, filepath.Join(root, "blobs/sha256")); names != 1 {
		t.Errorf("there are %d blobs", names)
	}
	for n := range clients {
		b, err := s.Blob(t.Context(), fmt.Sprint("r", n), digest.FromBytes(data))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(b.Content)
		if b.Content.Close(); err != nil || !bytes.Equal(got, data) {
			t.Errorf("repository %d has %d other bytes: %v", n, len(got), err)
		}
	}
}

// answer makes a request and returns the location that it is told.
func answer(t *testing.T, method, url string, body io.Reader) string {
	q, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Error(err)
		return ""
	}
	response, err := http.DefaultClient.Do(q)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer response.Body.Close()
	if response.StatusCode >= 300 {
		text, _ := io.ReadAll(response.Body)
		t.Errorf("%s %s: %s: %s", method, url, response.Status, text)
	}
	return response.Header.Get("Location")
}

// bodies counts the names of uploads' bytes, or blobs, and the files that they are of.
func bodies(t *testing.T, dir string) (names, files int) {
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	inodes := map[uint64]bool{}
	for _, e := range list {
		if st, err := e.Info(); err == nil && !strings.HasSuffix(e.Name(), ".state") && !strings.HasSuffix(e.Name(), ".tmp") {
			names++
			inodes[st.Sys().(*syscall.Stat_t).Ino] = true
		}
	}
	return names, len(inodes)
}
