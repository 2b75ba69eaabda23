package logs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// A follower that was busy while the log was cleared and has grown again gets
// all that is new.
func TestFollowCleared(t *testing.T) {
	path := logFile(t, records(10))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var got []string
	err := Read(ctx, path, ReadOptions{Tail: -1, Follow: true}, func(e Entry) error {
		got = append(got, strings.TrimSuffix(string(e.Line), "\n"))
		switch len(got) {
		case 10:
			if err := Clear(path); err != nil {
				t.Error(err)
			}
			var text strings.Builder
			for i := range 20 {
				text.WriteString(record(100 + i))
			}
			if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
				t.Error(err)
			}
		case 30:
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || len(got) != 30 || got[10] != "line 100" || got[29] != "line 119" {
		t.Errorf("%v, %d lines: %q", err, len(got), got)
	}
}
