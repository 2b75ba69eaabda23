package dockerfiles

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
)

// saved is an image as docker save tells it, without what differs from build to
// build.
type saved struct {
	Config  map[string]any // all of it but times, diff IDs and history
	History []step
	Layers  []layer
	ids     []string // diff IDs of the layers
}

type step struct {
	CreatedBy  string `json:"created_by,omitempty"`
	Author     string `json:"author,omitempty"`
	Comment    string `json:"comment,omitempty"`
	EmptyLayer bool   `json:"empty_layer,omitempty"`
}

// layer tells per path what it is.
type layer map[string]entry

type entry struct {
	Is      string // type, mode, owner, attributes, where a link leads, device
	Content string `json:",omitempty"` // its digest
	time    int64
}

// readSaved reads an archive of docker save with one image, leaving out the
// layers with these diff IDs.
func readSaved(archive io.Reader, known ...string) (*saved, error) {
	files := map[string][]byte{}
	links := map[string]string{}
	tr := tar.NewReader(archive)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeSymlink {
			links[path.Clean(h.Name)] = path.Join(path.Dir(h.Name), h.Linkname)
			continue
		}
		if files[path.Clean(h.Name)], err = io.ReadAll(tr); err != nil {
			return nil, err
		}
	}
	get := func(name string) []byte {
		if to, ok := links[name]; ok {
			name = to
		}
		return files[name]
	}
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(get("manifest.json"), &manifest); err != nil || len(manifest) != 1 {
		return nil, fmt.Errorf("manifest.json: %v", err)
	}
	s := &saved{}
	if err := s.configure(get(manifest[0].Config)); err != nil {
		return nil, fmt.Errorf("%s: %w", manifest[0].Config, err)
	}
	if len(s.ids) != len(manifest[0].Layers) {
		return nil, fmt.Errorf("%d diff IDs for %d layers", len(s.ids), len(manifest[0].Layers))
	}
	for i, name := range manifest[0].Layers {
		var l layer
		if !slices.Contains(known, s.ids[i]) {
			var err error
			if l, err = readLayer(get(name)); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		s.Layers = append(s.Layers, l)
	}
	return s, nil
}

func (s *saved) configure(text []byte) error {
	var history struct {
		History []step
		RootFS  struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := json.Unmarshal(text, &history); err != nil {
		return err
	}
	s.History, s.ids = history.History, history.RootFS.DiffIDs
	if err := json.Unmarshal(text, &s.Config); err != nil {
		return err
	}
	for _, name := range []string{"created", "history", "rootfs"} {
		delete(s.Config, name)
	}
	return nil
}

func readLayer(blob []byte) (layer, error) {
	var r io.Reader = bytes.NewReader(blob)
	if bytes.HasPrefix(blob, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = z
	}
	l := layer{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return l, nil
		}
		if err != nil {
			return nil, err
		}
		e := entry{Is: fmt.Sprintf("%c %o %d:%d", kind(h.Typeflag), h.Mode&0o7777, h.Uid, h.Gid), time: h.ModTime.Unix()}
		for _, name := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			// Of the others BuildKit has none in a layer; here users' own are kept.
			if name == "SCHILY.xattr.security.capability" {
				e.Is += fmt.Sprintf(" capability=%x", h.PAXRecords[name])
			}
		}
		switch h.Typeflag {
		case tar.TypeSymlink:
			e.Is += " " + h.Linkname
		case tar.TypeLink:
			e.Is = "hard link " + path.Join("/", h.Linkname)
		case tar.TypeChar, tar.TypeBlock:
			e.Is += fmt.Sprintf(" %d,%d", h.Devmajor, h.Devminor)
		case tar.TypeReg:
			sum := sha256.New()
			if _, err := io.Copy(sum, tr); err != nil {
				return nil, err
			}
			e.Content = fmt.Sprintf("%x", sum.Sum(nil)[:8])
		}
		l[path.Join("/", h.Name)] = e
	}
}

// kind is the letter by which ls names the type.
func kind(flag byte) byte {
	switch flag {
	case tar.TypeDir:
		return 'd'
	case tar.TypeSymlink:
		return 'l'
	case tar.TypeChar:
		return 'c'
	case tar.TypeBlock:
		return 'b'
	case tar.TypeFifo:
		return 'p'
	}
	return '-'
}
