package manifest

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/atomicfile"
	"github.com/tarehq/tare/reference"
)

func (l *Lists) listDir(list reference.Ref) string {
	return filepath.Join(l.dir, "manifests", fileName(list))
}

// images reads the images of a local list, in the order of their files' names;
// none if there is no such list.
func (l *Lists) images(list reference.Ref) ([]*Image, error) {
	files, err := os.ReadDir(l.listDir(list))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []*Image
	for _, f := range files {
		if f.Name()[0] == '.' {
			continue // what a writer has not finished
		}
		image, err := readImage(filepath.Join(l.listDir(list), f.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, image)
	}
	return out, nil
}

// image reads one image of a local list, nil if it is not in it.
func (l *Lists) image(list, ref reference.Ref) (*Image, error) {
	image, err := readImage(filepath.Join(l.listDir(list), fileName(ref)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return image, err
}

func readImage(path string) (*Image, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	image := &Image{}
	if err := json.Unmarshal(text, image); err != nil {
		return nil, fault.New(fault.Invalid, "%s: %w", path, err)
	}
	return image, nil
}

func (l *Lists) keep(list, ref reference.Ref, image *Image) error {
	text, err := json.Marshal(image)
	if err != nil {
		return err
	}
	dir := l.listDir(list)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return atomicfile.WriteSync(filepath.Join(dir, fileName(ref)), text, 0o644)
}

// Remove forgets local lists. All are tried.
func (l *Lists) Remove(names []string) error {
	var errs []error
	for _, name := range names {
		errs = append(errs, l.remove(name))
	}
	return errors.Join(errs...)
}

func (l *Lists) remove(name string) error {
	list, err := reference.Parse(name)
	if err != nil {
		return err
	}
	if _, err := os.Stat(l.listDir(list)); errors.Is(err, fs.ErrNotExist) {
		return missing(list)
	}
	return os.RemoveAll(l.listDir(list))
}

func missing(list reference.Ref) error {
	return fault.New(fault.NotFound, "No such manifest: %s", list.Familiar())
}
