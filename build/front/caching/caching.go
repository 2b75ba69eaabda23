// Package caching is what a client wants of caches elsewhere: those that its build
// may use (--cache-from), and those that are written of it (--cache-to).
package caching

import (
	"context"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	controlapi "github.com/moby/buildkit/api/services/control"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/progress"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// Importer has a job use caches, each once.
type Importer struct {
	Job   *build.Job
	Tells build.Progress // nil for nobody
	Here  bool           // no registry is asked

	mu   sync.Mutex
	done map[string]bool
}

// Import has the job use caches. One that cannot be read does not hinder the
// build: the client is told.
func (m *Importer) Import(ctx context.Context, list []gateway.CacheOptionsEntry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range list {
		id := e.Type
		for _, key := range slices.Sorted(maps.Keys(e.Attrs)) {
			id += "," + strconv.Quote(key) + "=" + strconv.Quote(e.Attrs[key])
		}
		if m.done[id] {
			continue
		}
		if m.done == nil {
			m.done = map[string]bool{}
		}
		m.done[id] = true
		end := func(error) {}
		if m.Tells != nil {
			_, end = progress.Task(m.Tells, "importing cache manifest from "+title(e))
		}
		source, err := sourceOf(ctx, e)
		if err == nil {
			source.Here = m.Here
			err = m.Job.Import(ctx, source)
		}
		end(err)
	}
}

// title names a cache as BuildKit does.
func title(e gateway.CacheOptionsEntry) string {
	switch e.Type {
	case "registry":
		return e.Attrs["ref"]
	case "s3", "azblob": // and none of its credentials
		if s, err := storeOf(e.Type, e.Attrs); err == nil {
			return s.title
		}
		return e.Type
	}
	return e.Type + ":" + e.Attrs["digest"]
}

func sourceOf(ctx context.Context, e gateway.CacheOptionsEntry) (s build.CacheSource, err error) {
	switch e.Type {
	case "registry":
		s.Ref, err = refOf(e.Attrs)
		return s, err
	case "local":
		src, d := e.Attrs["src"], digest.Digest(e.Attrs["digest"])
		if src == "" {
			return s, fault.New(fault.Invalid, "local cache importer requires src")
		}
		if err := d.Validate(); err != nil {
			return s, fault.New(fault.Invalid, "local cache importer requires explicit digest: %w", err)
		}
		return build.CacheSource{Store: "local:" + src, Digest: d}, nil
	case "s3", "azblob":
		from, err := storeOf(e.Type, e.Attrs)
		if err != nil {
			return s, err
		}
		s.Open = func(ctx context.Context, d digest.Digest) (io.ReadCloser, error) { return from.get(ctx, from.blob(d)) }
		s.Cache, err = from.read(ctx)
		return s, err
	}
	return s, fault.New(fault.NotImplemented, "the import of a cache of type=%s is not supported: say registry, local, s3 or azblob", e.Type)
}

func refOf(attrs map[string]string) (string, error) {
	if attrs["ref"] == "" {
		return "", fault.New(fault.Invalid, "missing ref")
	}
	if v := attrs["registry.insecure"]; v != "" && v != "false" {
		return "", fault.New(fault.NotImplemented, "registry.insecure=%s is not supported: list the registry in insecure-registries of the daemon", v)
	}
	r, err := reference.Parse(attrs["ref"])
	return r.String(), err
}

// Entries are what a request names, in all ways that there are: also by the
// options of its front end.
func Entries(o *controlapi.CacheOptions) (list []gateway.CacheOptionsEntry) {
	for _, ref := range o.GetImportRefsDeprecated() {
		list = append(list, gateway.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": ref}})
	}
	for _, e := range o.GetImports() {
		list = append(list, gateway.CacheOptionsEntry{Type: e.GetType(), Attrs: e.GetAttrs()})
	}
	return list
}

// Images are entries for images by name.
func Images(names []string) (list []gateway.CacheOptionsEntry) {
	for _, name := range names {
		if name = strings.TrimSpace(name); name != "" {
			list = append(list, gateway.CacheOptionsEntry{Type: "registry", Attrs: map[string]string{"ref": name}})
		}
	}
	return list
}
