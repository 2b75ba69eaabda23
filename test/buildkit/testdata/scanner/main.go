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
	if err := scan(os.Getenv("BUILDKIT_SCAN_SOURCE"), os.Getenv("BUILDKIT_SCAN_DESTINATION")); err != nil {
		fmt.Fprintln(os.Stderr, "scanner:", err)
		os.Exit(1)
	}
}

func scan(source, destination string) error {
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
		"predicate": map[string]any{"spdxVersion": "SPDX-2.3", "name": os.Getenv("BUILDKIT_SCAN_name"), "files": files},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(destination, "sbom.spdx.json"), text, 0o644)
}
