// Package checkpoint is what CRIU has written of a container's processes: a directory with
// CRIU's images and a note of ours, and the archive in which that travels.
package checkpoint

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// FindCRIU is the path of the program, by which all of it is done.
func FindCRIU() (string, error) {
	path, err := exec.LookPath("criu")
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return "", fault.New(fault.Unavailable, "CRIU is needed to checkpoint and restore containers, and criu is not in the daemon's PATH: install criu")
	}
	return path, nil
}

// PlacesFile lies among the images and has the Places in JSON.
const PlacesFile = "tare-place.json"

// Place is one of the places on networks that the container had.
type Place struct {
	NetworkID         string
	Address, Address6 netip.Addr
	MAC               string
}

// Places reads those of a checkpoint; another engine's has none.
func Places(dir string) (list []Place, err error) {
	text, err := os.ReadFile(filepath.Join(dir, PlacesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	return list, nil
}

// Found is what there is to say of a checkpoint.
type Found struct {
	Name      string
	Created   time.Time
	Path      string // on the daemon's host
	Size      int64  // bytes
	Processes int
	Addresses []netip.Addr // on networks, which the container asks for again
}

// Look tells of the checkpoint in a directory, but for its name.
func Look(path string) (Found, error) {
	found := Found{Path: path}
	entries, err := os.ReadDir(path)
	if err != nil {
		return found, err
	}
	before, err := os.ReadDir(filepath.Join(path, supervise.MemoryDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return found, err
	}
	for _, e := range before {
		if st, err := e.Info(); err == nil {
			found.Size += st.Size()
		}
	}
	for _, e := range entries {
		st, err := e.Info()
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		found.Size += st.Size()
		if ok, _ := filepath.Match("mm-*.img", e.Name()); ok { // memory is a process's, threads share it
			found.Processes++
		}
		if e.Name() == "inventory.img" {
			found.Created = st.ModTime()
		}
	}
	places, _ := Places(path) // none is no reason to hide the rest
	for _, p := range places {
		for _, a := range []netip.Addr{p.Address, p.Address6} {
			if a.IsValid() {
				found.Addresses = append(found.Addresses, a)
			}
		}
	}
	return found, nil
}
