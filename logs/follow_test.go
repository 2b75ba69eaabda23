package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// More logs are followed at a time than a user may have inotify instances, and
// each follower hears of its own.
func TestFollowMany(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	const logs = 200
	begun, heard := make(chan struct{}, 2*logs), make(chan struct{}, 2*logs)
	for i := range logs {
		path := filepath.Join(dir, fmt.Sprint(i%150), "log.json") // some have two followers
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(record(0)), 0o600); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			n := 0
			err := Read(ctx, path, ReadOptions{Tail: -1, Follow: true}, func(Entry) error {
				if n++; n == 1 {
					begun <- struct{}{}
				} else {
					heard <- struct{}{}
				}
				return nil
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%d: %v", i, err)
				begun <- struct{}{}
			}
		})
	}
	for range logs {
		<-begun
	}
	for i := range 150 {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(i), "log.json"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(record(1))
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if !t.Failed() {
		for range logs {
			<-heard
		}
	}
	cancel()
	all.Wait()
	if shared.in != nil {
		t.Error("the inotify instance is still there")
	}
}
