package client

import (
	"os"
	"slices"
	"time"

	"github.com/tonistiigi/fsutil/types"
)

// dirTimes gives directories of a client's the times that they have there. What is
// received takes the place of what was there, which changes the time of the directory
// where the client's own stays: layers would differ for that alone.
type dirTimes struct {
	dir   string
	times map[string]int64 // ns since 1970, by path from dir
	names []string         // in dir itself, whose time the client does not tell
	root  time.Time
}

func newDirTimes(dir string) *dirTimes {
	d := &dirTimes{dir: dir, times: map[string]int64{}}
	if fi, err := os.Stat(dir); err == nil {
		d.root, d.names = fi.ModTime(), namesIn(dir)
	}
	return d
}

func namesIn(dir string) (names []string) {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ = f.Readdirnames(-1) // or else the time stays as it is
	slices.Sort(names)
	return names
}

// see is told of all that the client has.
func (d *dirTimes) see(name string, st *types.Stat) {
	if os.FileMode(st.Mode).IsDir() {
		d.times[name] = st.ModTime
	}
}

// set has the times be those of the client. The directory itself keeps its own as long
// as the names in it are the same.
func (d *dirTimes) set() error {
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for name, ns := range d.times {
		fi, err := root.Lstat(name)
		if err != nil || !fi.IsDir() || fi.ModTime().UnixNano() == ns {
			continue // a filter left it out
		}
		if err := root.Chtimes(name, time.Time{}, time.Unix(0, ns)); err != nil {
			return err
		}
	}
	if len(d.names) > 0 && slices.Equal(d.names, namesIn(d.dir)) {
		return root.Chtimes(".", time.Time{}, d.root)
	}
	return nil
}
