// Command scanner is a generator of SBOMs by BuildKit's scanner protocol: it lists
// the files of what it is shown.
package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

func main() {
	destination := os.Getenv("BUILDKIT_SCAN_DESTINATION")
	source := os.Getenv("BUILDKIT_SCAN_SOURCE")
	err := scan(source, filepath.Join(destination, filepath.Base(source)+".spdx.json"))
	if extras := os.Getenv("BUILDKIT_SCAN_SOURCE_EXTRAS"); err == nil && extras != "" {
		list, _ := os.ReadDir(extras)
		for _, e := range list {
			if err == nil {
				err = scan(filepath.Join(extras, e.Name()), filepath.Join(destination, e.Name()+".spdx.json"))
			}
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "scanner:", err)
		os.Exit(1)
	}
}

func scan(source, to string) error {
	var files []map[string]string
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			name, _ := filepath.Rel(source, path)
			files = append(files, map[string]string{"fileName": name})
		}
		return err
	})
	if err != nil {
		return err
	}
	text, err := json.Marshal(map[string]any{
		"_type": "https://in-toto.io/Statement/v0.1", "predicateType": os.Getenv("BUILDKIT_SCAN_predicate"),
		"predicate": map[string]any{"spdxVersion": "SPDX-2.3", "name": os.Getenv("BUILDKIT_SCAN_name"), "files": files, "scanned": filepath.Base(source)},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, 0o644)
}
