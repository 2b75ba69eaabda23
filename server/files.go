package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
)

// Files is what the handlers need of containers' root file systems;
// container.Files is it.
type Files interface {
	Changes(ctx context.Context, nameOrID string, visit func(wire.FilesystemChange) error) error
	Export(ctx context.Context, nameOrID string, w io.Writer) error
	Commit(ctx context.Context, nameOrID string, o container.CommitOptions) (id string, err error)
	Stat(ctx context.Context, nameOrID, path string) (wire.PathStat, error)
	Archive(ctx context.Context, nameOrID, path string, begin func(wire.PathStat) (io.Writer, error)) error
	Extract(ctx context.Context, nameOrID, path string, o container.ExtractOptions, r io.Reader) error
}

type fileHandlers struct{ files Files }

func (h *fileHandlers) routes() []route {
	return []route{
		{method: "GET", pattern: "/containers/{id}/changes", handle: h.changes},
		{method: "GET", pattern: "/containers/{id}/export", handle: h.export},
		{method: "POST", pattern: "/commit", handle: h.commit, decodes: true},
		{method: "GET", pattern: "/containers/{id}/archive", handle: h.getArchive},
		{method: "HEAD", pattern: "/containers/{id}/archive", handle: h.headArchive},
		{method: "PUT", pattern: "/containers/{id}/archive", handle: h.putArchive},
	}
}

// changes sends the list as it comes: a container may have changed millions of
// files. An error of the beginning has its status, a later one cuts the answer.
func (h *fileHandlers) changes(w http.ResponseWriter, r *request) error {
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(w, 64<<10)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	before := "["
	err := h.files.Changes(r.Context(), r.params["id"], func(c wire.FilesystemChange) error {
		if _, err := out.WriteString(before); err != nil {
			return err
		}
		before = ","
		return enc.Encode(c)
	})
	if err != nil {
		return err
	}
	if before == "[" {
		out.WriteString("null\n") // as in Docker
		return out.Flush()
	}
	out.WriteString("]\n")
	return out.Flush()
}

func (h *fileHandlers) export(w http.ResponseWriter, r *request) error {
	w.Header().Set("Content-Type", "application/octet-stream")
	return h.files.Export(r.Context(), r.params["id"], w)
}

// commit takes Docker's parameters, and two of our own: squash, and
// source-date-epoch, which the daemon's environment stands in for.
func (h *fileHandlers) commit(w http.ResponseWriter, r *request) error {
	r.query()
	var config *wire.Config
	if err := r.json(&config); err != nil && !errors.Is(err, errNoBody) {
		return err
	}
	reference, err := repoTag(r)
	if err != nil {
		return err
	}
	epoch, err := r.epoch()
	if err != nil {
		return err
	}
	id, err := h.files.Commit(r.Context(), r.Form.Get("container"), container.CommitOptions{
		Reference: reference, Comment: r.Form.Get("comment"), Author: r.Form.Get("author"), Changes: r.Form["changes"], Config: config,
		Pause: r.Form.Get("pause") == "" || r.flag("pause"), Squash: r.flag("squash"), Epoch: epoch,
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, wire.CommitResponse{ID: id})
}

// epoch is the moment that an image is to be made at, in whole seconds since
// 1970 (https://reproducible-builds.org/specs/source-date-epoch/): the
// parameter source-date-epoch, or the daemon's own SOURCE_DATE_EPOCH, so that
// clients that know nothing of it can have it too. The zero time is none.
func (r *request) epoch() (time.Time, error) {
	value := r.Form.Get("source-date-epoch")
	if value == "" {
		value = os.Getenv("SOURCE_DATE_EPOCH")
	}
	if value == "" {
		return time.Time{}, nil
	}
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil || seconds < 0 || seconds > 1<<33 {
		return time.Time{}, fault.New(fault.Invalid, "invalid SOURCE_DATE_EPOCH %q: want seconds since 1970", value)
	}
	return time.Unix(seconds, 0).UTC(), nil
}

// recompress is our own parameter compression of saving: gzip, zstd or none,
// with a compression-level. nil leaves layers as they are.
func (r *request) recompress() (*image.Recompressing, error) {
	name := r.Form.Get("compression")
	level, err := r.integer("compression-level")
	if err != nil {
		return nil, err
	}
	if name == "" {
		if level != nil {
			return nil, fault.New(fault.Invalid, "a compression-level needs a compression")
		}
		return nil, nil
	}
	if level == nil {
		level = new(int)
	}
	return image.ParseRecompressing(name, *level)
}
