package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// What is copied: files in directories, of a size in bytes.
const (
	copiedDirs  = 100
	copiedFiles = 100 // in each
	copiedSize  = 4000
)

// benchCopies measures cp of a tree into a container that runs, and out of it.
func benchCopies(t *table, dir string, ready []*engine, runs int) error {
	tree := filepath.Join(dir, "copied")
	for d := range copiedDirs {
		below := filepath.Join(tree, fmt.Sprintf("dir-%d", d))
		if err := os.MkdirAll(below, 0o755); err != nil {
			return err
		}
		for f := range copiedFiles {
			if err := os.WriteFile(filepath.Join(below, fmt.Sprintf("file-%d", f)), bytes.Repeat([]byte{byte(d), byte(f)}, copiedSize/2), 0o644); err != nil {
				return err
			}
		}
	}
	var into, out []subject
	for _, e := range ready {
		if _, err := try(e.command("run", "-d", "--name", "steady", "--network", "none", "busybox", "sleep", "100000")); err != nil {
			t.note("%s: %v", e.name, err)
			continue
		}
		if _, err := try(e.command("cp", tree, "steady:/source")); err != nil {
			t.note("cp, %s: %v", e.name, err)
			continue
		}
		into = append(into, subject{e.name, func() (float64, error) {
			took, err := try(e.command("cp", tree, "steady:/target"))
			if err == nil {
				_, err = try(e.command("exec", "steady", "rm", "-r", "/target"))
			}
			return took, err
		}})
		out = append(out, subject{e.name, func() (float64, error) {
			target := filepath.Join(dir, "target")
			took, err := try(e.command("cp", "steady:/source", target))
			if err == nil {
				err = os.RemoveAll(target)
			}
			return took, err
		}})
	}
	t.compare("cp of 10,000 files to a container", runs, 0, into)
	t.compare("cp of 10,000 files from a container", runs, 0, out)
	return nil
}
