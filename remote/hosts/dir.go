package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/filestate"
)

// maxFile bounds each of the files, in bytes.
const maxFile = 1 << 20

// Watched are the files that something was read from, there or not, and their
// states just before.
type Watched []struct{ path, state string }

// Note adds a file.
func (w *Watched) Note(path string) {
	*w = append(*w, struct{ path, state string }{path, filestate.Of(path)})
}

// Unchanged tells whether all are as they were.
func (w Watched) Unchanged() bool {
	for _, f := range w {
		if filestate.Of(f.path) != f.state {
			return false
		}
	}
	return true
}

// Dirs are the directories that may describe a domain, best first.
func Dirs(root, domain string) []string {
	if root == "" || !plainName(domain) {
		return nil
	}
	var dirs []string
	if name, port, ok := cutPort(domain); ok {
		dirs = append(dirs, filepath.Join(root, name+"_"+port+"_"))
	}
	return append(dirs, filepath.Join(root, domain), filepath.Join(root, "_default"))
}

// plainName tells whether a host can be the name of a directory.
func plainName(host string) bool {
	return host != "" && host != "." && host != ".." && !strings.ContainsAny(host, "/\x00")
}

func cutPort(host string) (name, port string, ok bool) {
	i := strings.LastIndexByte(host, ':')
	if i < 0 || strings.HasSuffix(host, "]") {
		return host, "", false
	}
	return host[:i], host[i+1:], true
}

// ReadFile reads a hosts.toml; one that is missing says nothing.
func ReadFile(path string) (*File, error) {
	data, err := readBounded(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return &File{}, nil
	}
	if err != nil {
		return nil, err
	}
	f, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func readBounded(path string, limit int64) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > limit {
		return nil, fault.New(fault.Invalid, "%s is no file of at most %d bytes", path, limit)
	}
	return os.ReadFile(path)
}

// Same compares hosts with their ports, of which 443 need not be said.
func Same(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, ":443"), strings.TrimSuffix(b, ":443"))
}
