package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	wire "github.com/moby/moby/api/types/network"

	"github.com/tarehq/tare/internal/atomicfile"
)

// store is the directory of the user-defined networks:
//
//	<id>.json  a record, replaced whole; what it names exists
//	<id>.next  where the network's addresses go on, one for each subnet: written
//	           now and then without a sync, it may be missing or old
type store struct{ dir string }

// recordVersion is the form of the records; a newer one is not read.
const recordVersion = 1

// record is a network as it is stored: Docker's description with every default
// resolved, and what only we know.
type record struct {
	Version int
	wire.Network
	// Static are the subnets that were asked for rather than chosen.
	Static []netip.Prefix `json:",omitempty"`
	// Bridge is the interface's name; Foreign tells that it was there before
	// the network and stays after it.
	Bridge  string `json:",omitempty"`
	Foreign bool   `json:",omitempty"`
	// Pools are what the driver of addresses calls the network's subnets, in
	// the order of IPAM.Config; empty for ours.
	Pools []string `json:",omitempty"`
}

func openStore(dir string) (store, error) {
	s := store{dir}
	if dir == "" {
		return s, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return s, fmt.Errorf("make the directory of the networks: %w", err)
	}
	return s, nil
}

func (s store) path(id, suffix string) string { return filepath.Join(s.dir, id+suffix) }

// put returns when the record survives power loss.
func (s store) put(r record) error {
	if s.dir == "" {
		return nil
	}
	r.Version = recordVersion
	data, err := json.Marshal(r)
	if err == nil {
		err = atomicfile.WriteSync(s.path(r.ID, ".json"), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("store the network %s: %w", r.Name, err)
	}
	return nil
}

// drop returns when the network is forgotten also after power loss.
func (s store) drop(id string) error {
	if s.dir == "" {
		return nil
	}
	if err := os.Remove(s.path(id, ".json")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(s.path(id, ".next")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return atomicfile.SyncDir(s.dir)
}

// load reads all records, and removes what writers left that did not come to
// their end. One that cannot be read is left alone and told of: its network is
// not there, and nobody else's is lost for it.
func (s store) load() ([]record, error) {
	if s.dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read the networks: %w", err)
	}
	var out []record
	for _, e := range entries {
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		switch {
		case strings.HasPrefix(e.Name(), "."):
			if err := os.Remove(filepath.Join(s.dir, e.Name())); err != nil {
				return nil, err
			}
			continue
		case !isRecord:
			continue
		}
		var r record
		data, err := os.ReadFile(filepath.Join(s.dir, e.Name()))
		if err == nil {
			err = json.Unmarshal(data, &r)
		}
		if err == nil && (r.Version > recordVersion || r.ID != id || r.Name == "") {
			err = fmt.Errorf("it is no record of the network %s in a form known here", id)
		}
		if err != nil {
			slog.Error("a stored network cannot be read and is left out", "file", filepath.Join(s.dir, e.Name()), "err", err)
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

// putCursors and cursors keep where the network's addresses go on.
func (s store) putCursors(id string, cursors []netip.Addr) {
	if s.dir == "" {
		return
	}
	text := make([]byte, 0, 64)
	for _, c := range cursors {
		if !c.IsValid() {
			continue
		}
		text = append(c.AppendTo(text), '\n')
	}
	// What fails costs no more than an address that is taken again soon.
	f, err := os.OpenFile(s.path(id, ".next"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	if _, err := f.WriteAt(text, 0); err == nil {
		_ = f.Truncate(int64(len(text)))
	}
}

func (s store) cursors(id string) (out []netip.Addr) {
	if s.dir == "" {
		return nil
	}
	data, _ := os.ReadFile(s.path(id, ".next"))
	for line := range strings.Lines(string(data)) {
		a, _ := netip.ParseAddr(strings.TrimSuffix(line, "\n"))
		out = append(out, a)
	}
	return out
}
