package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What a container writes: lines, and the bytes of each.
const (
	lines    = 5_000_000
	lineSize = 40
)

// benchLines measures how long a container takes that writes much to its log,
// which is kept whole and looked at afterwards. It writes what is in a file, so
// that what makes the lines is not what is measured.
func benchLines(t *table, dir string, ready []*engine) error {
	file := filepath.Join(dir, "lines")
	if err := os.WriteFile(file, bytes.Repeat([]byte(strings.Repeat("x", lineSize-1)+"\n"), lines), 0o644); err != nil {
		return err
	}
	defer os.Remove(file)
	var list []subject
	for _, e := range ready {
		list = append(list, subject{e.name, func() (float64, error) { return e.writeLines(file) }})
	}
	t.compare(fmt.Sprintf("%d million lines of %d bytes to the log", lines/1_000_000, lineSize), blocks, 0, list)
	return nil
}

// writeLines times from the start to the end of the container.
func (e *engine) writeLines(file string) (took float64, err error) {
	if _, err := try(e.command("create", "--name", "lines", "--network", "none",
		"--log-driver", "json-file", "--log-opt", "max-size=4g", "-v", file+":/lines:ro", "busybox", "cat", "/lines")); err != nil {
		return 0, err
	}
	defer func() { _ = e.command("rm", "-f", "lines").Run() }()
	begin := time.Now()
	for _, args := range [][]string{{"start", "lines"}, {"wait", "lines"}} {
		if _, err := try(e.command(args...)); err != nil {
			return 0, err
		}
	}
	took = ms(time.Since(begin))
	out, err := e.command("inspect", "--format", e.logPath, "lines").Output()
	if err != nil {
		return 0, err
	}
	found, err := countLines(strings.TrimSpace(string(out)))
	if err == nil && found < lines { // podman divides some
		err = fmt.Errorf("%d lines are in the log, not %d", found, lines)
	}
	return took, err
}

func countLines(path string) (n int, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		chunk, err := r.ReadSlice('\n')
		n += bytes.Count(chunk, []byte{'\n'})
		switch err {
		case nil, bufio.ErrBufferFull:
		case io.EOF:
			return n, nil
		default:
			return n, err
		}
	}
}
