package server

import (
	"compress/flate"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"

	wire "github.com/moby/moby/api/types/container"

	"github.com/tarehq/tare/container"
	"github.com/tarehq/tare/fault"
)

// archived is the parameter path of the three requests about a container's files.
func (r *request) archived() (path string, err error) {
	r.query()
	if path = r.Form.Get("path"); path == "" {
		return "", fault.New(fault.Invalid, "bad parameter: 'path' cannot be empty")
	}
	return path, nil
}

// setPathStat tells in the head of an answer what a path leads to.
func setPathStat(h http.Header, stat wire.PathStat) error {
	text, err := json.Marshal(stat)
	if err != nil {
		return err
	}
	h.Set("X-Docker-Container-Path-Stat", base64.StdEncoding.EncodeToString(text))
	return nil
}

func (h *fileHandlers) headArchive(w http.ResponseWriter, r *request) error {
	path, err := r.archived()
	if err != nil {
		return err
	}
	stat, err := h.files.Stat(r.Context(), r.params["id"], path)
	if err != nil {
		return err
	}
	return setPathStat(w.Header(), stat)
}

// getArchive sends a tar. An error of the beginning has its status, a later one cuts
// the answer.
func (h *fileHandlers) getArchive(w http.ResponseWriter, r *request) error {
	path, err := r.archived()
	if err != nil {
		return err
	}
	var packed io.Closer
	err = h.files.Archive(r.Context(), r.params["id"], path, func(stat wire.PathStat) (out io.Writer, err error) {
		w.Header().Set("Content-Type", "application/x-tar")
		if err := setPathStat(w.Header(), stat); err != nil {
			return nil, err
		}
		coding := codingFor(r.Header.Get("Accept-Encoding"))
		if coding == "" {
			return w, nil
		}
		w.Header().Set("Content-Encoding", coding)
		out, packed = encoder(w, coding)
		return out, nil
	})
	if err != nil || packed == nil {
		return err
	}
	return packed.Close()
}

func encoder(w io.Writer, coding string) (io.Writer, io.Closer) {
	if coding == "gzip" {
		z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
		return z, z
	}
	z, _ := flate.NewWriter(w, flate.BestSpeed)
	return z, z
}

// codingFor chooses gzip or deflate where a client asks for one of them by name, as
// Docker does for these archives alone; "" for none.
func codingFor(accept string) string {
	best, chosen := 0.0, ""
	for item := range strings.SplitSeq(accept, ",") {
		name, parameters, _ := strings.Cut(item, ";")
		name = strings.ToLower(strings.TrimSpace(name))
		quality := 1.0
		if q, ok := strings.CutPrefix(strings.ReplaceAll(parameters, " ", ""), "q="); ok {
			quality, _ = strconv.ParseFloat(q, 64)
		}
		if (name == "gzip" || name == "deflate") && (quality > best || quality == best && name == "gzip" && best > 0) {
			best, chosen = quality, name
		}
	}
	return chosen
}

func (h *fileHandlers) putArchive(_ http.ResponseWriter, r *request) error {
	path, err := r.archived()
	if err != nil {
		return err
	}
	return h.files.Extract(r.Context(), r.params["id"], path,
		container.ExtractOptions{KeepKinds: r.flag("noOverwriteDirNonDir"), ToUser: r.flag("copyUIDGID")}, r.Body)
}
