package config

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/tarehq/tare/fault"
)

// An exported context is a tar of meta.json and tls/<endpoint>/<file>.

// maxContext bounds what an exported context may hold, in bytes.
const maxContext = 10 << 20

// Export writes a context and its TLS files.
func (s Contexts) Export(out io.Writer, c *Context) error {
	material, err := s.TLS(c.Name)
	if err != nil {
		return err
	}
	text, err := marshal(c, "")
	if err != nil {
		return err
	}
	w := tar.NewWriter(out)
	file := func(name string, mode int64, text []byte) {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(text))}))
		_, werr := w.Write(text)
		err = errors.Join(err, werr)
	}
	directory := func(name string) {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o700}))
	}
	file("meta.json", 0o644, text)
	directory("tls")
	for _, endpoint := range slices.Sorted(maps.Keys(material)) {
		directory(path.Join("tls", endpoint))
		for _, name := range slices.Sorted(maps.Keys(material[endpoint])) {
			file(path.Join("tls", endpoint, name), 0o600, material[endpoint][name])
		}
	}
	return errors.Join(err, w.Close())
}

// Import stores a context that Export, or Docker's own client, has written, under
// a name of its own. A zip, which Docker's client reads too, is refused: what
// reads it would be paid for at each start of the program.
func (s Contexts) Import(name string, in io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(in, maxContext+1))
	if err != nil {
		return err
	}
	if len(text) > maxContext {
		return fault.New(fault.Invalid, "invalid context: it is larger than %d bytes", maxContext)
	}
	if bytes.HasPrefix(text, []byte("PK\x03\x04")) {
		return fault.New(fault.NotImplemented, "invalid context: a zip is not supported: unpack it and import it as a tar")
	}
	var c *Context
	material := Material{}
	err = eachInTar(text, func(name string, text []byte) (err error) {
		parts := strings.Split(path.Clean(name), "/")
		switch {
		case len(parts) == 1 && parts[0] == "meta.json":
			c, err = parse(text)
		case len(parts) == 3 && parts[0] == "tls" && parts[1] != "..":
			if material[parts[1]] == nil {
				material[parts[1]] = map[string][]byte{}
			}
			material[parts[1]][parts[2]] = text
		default:
			err = fault.New(fault.Invalid, "invalid context: unexpected file %q", name)
		}
		return err
	})
	if err != nil {
		return err
	}
	if c == nil {
		return fault.New(fault.Invalid, "invalid context: no metadata found")
	}
	c.Name = name
	return s.Put(c, material)
}

func eachInTar(text []byte, each func(name string, text []byte) error) error {
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fault.New(fault.Invalid, "invalid context: %w", err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if h.Size > maxContext { // a sparse file holds more than the archive
			return fault.New(fault.Invalid, "invalid context: %q is larger than %d bytes", h.Name, maxContext)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return fault.New(fault.Invalid, "invalid context: %w", err)
		}
		if err := each(h.Name, content); err != nil {
			return err
		}
	}
}
