package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	controlapi "github.com/moby/buildkit/api/services/control"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"

	"github.com/tarehq/tare/internal/atomicfile"
)

// What is attached to records, as BuildKit calls it.
const (
	mediaTold      = "application/vnd.buildkit.status.v0"                 // what the build told
	mediaError     = "application/vnd.googleapis.google.rpc.status+proto" // why it failed, with its place in the file
	MediaPredicate = "application/vnd.in-toto+json"                       // how something was made
)

// Outcome is what is remembered of a build's end.
type Outcome struct {
	Said   map[string]string
	Failed error
	// Attested gives what is attested of each result, by platform; "" is that of a
	// build with one result.
	Attested func() map[string][]Predicate
	Results  []ocispec.Descriptor // images that were made

	predicates map[string][]Predicate
}

// Predicate is something attested.
type Predicate struct {
	Type string
	Text []byte // JSON
}

// attach puts what belongs to a record beside it.
func (h *History) attach(r *controlapi.BuildHistoryRecord, told []*controlapi.StatusResponse, o Outcome) (err error) {
	log, err := packTold(told)
	if err == nil {
		r.Logs, err = h.keep(mediaTold, log)
	}
	if r.Error != nil && err == nil {
		text, merr := proto.Marshal(r.Error)
		if err = merr; err == nil {
			r.ExternalError, err = h.keep(mediaError, text)
		}
	}
	for platform, list := range o.predicates {
		info := &controlapi.BuildResultInfo{}
		if platform == "" && r.Result != nil {
			info = r.Result
		}
		for _, p := range list {
			d, kerr := h.keep(MediaPredicate, p.Text)
			if kerr != nil {
				return errors.Join(err, kerr)
			}
			d.Annotations = map[string]string{"in-toto.io/predicate-type": p.Type}
			info.Attestations = append(info.Attestations, d)
		}
		if platform == "" {
			r.Result = info
			continue
		}
		if r.Results == nil {
			r.Results = map[string]*controlapi.BuildResultInfo{}
		}
		r.Results[platform] = info
	}
	return err
}

// addImages puts into a record which images were made.
func addImages(r *controlapi.BuildHistoryRecord, images []ocispec.Descriptor) {
	for i, d := range images {
		if r.Result == nil {
			r.Result = &controlapi.BuildResultInfo{}
		}
		if r.Result.Results == nil {
			r.Result.Results = map[int64]*controlapi.Descriptor{}
		}
		image := &controlapi.Descriptor{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations}
		if r.Result.Results[int64(i)] = image; i == 0 {
			r.Result.ResultDeprecated = image // where older clients look
		}
	}
}

func (h *History) blobPath(d digest.Digest) string { return filepath.Join(h.dir, "blobs", d.Encoded()) }

func (h *History) keep(mediaType string, data []byte) (*controlapi.Descriptor, error) {
	d := digest.FromBytes(data)
	return &controlapi.Descriptor{MediaType: mediaType, Digest: d.String(), Size: int64(len(data))}, atomicfile.Write(h.blobPath(d), data, 0o600)
}

// open opens what is attached to a record.
func (h *History) open(d digest.Digest) (*os.File, error) {
	h.settle()
	if err := d.Validate(); err != nil {
		return nil, fs.ErrNotExist
	}
	return os.Open(h.blobPath(d))
}

// collectLocked removes what no record has any more.
func (h *History) collectLocked() error {
	used := map[string]bool{}
	for _, r := range h.records {
		for _, d := range attached(r) {
			used[digest.Digest(d.Digest).Encoded()] = true
		}
	}
	entries, err := os.ReadDir(filepath.Join(h.dir, "blobs"))
	for _, e := range entries {
		if !used[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(h.dir, "blobs", e.Name())))
		}
	}
	return err
}

// attached lists what lies beside a record.
func attached(r *controlapi.BuildHistoryRecord) (list []*controlapi.Descriptor) {
	list = append(list, r.GetResult().GetAttestations()...)
	for _, info := range r.Results {
		list = append(list, info.GetAttestations()...)
	}
	for _, d := range []*controlapi.Descriptor{r.Logs, r.ExternalError} {
		if d != nil {
			list = append(list, d)
		}
	}
	return list
}

// packTold writes messages one after the other, each behind its size in four bytes,
// the lowest first.
func packTold(told []*controlapi.StatusResponse) ([]byte, error) {
	var all []byte
	for _, e := range told {
		start := len(all)
		all = append(all, 0, 0, 0, 0)
		var err error
		if all, err = (proto.MarshalOptions{}).MarshalAppend(all, e); err != nil {
			return nil, err
		}
		binary.LittleEndian.PutUint32(all[start:], uint32(len(all)-start-4))
	}
	return all, nil
}

// Retell tells once more what a build told that has ended. It finds nothing of others.
func (h *History) Retell(ref string, send func(*controlapi.StatusResponse) error) (found bool, err error) {
	h.settle()
	h.mu.Lock()
	r := h.records[ref]
	h.mu.Unlock()
	if r == nil {
		return false, nil
	}
	if r.Logs == nil { // the process was killed before that was written
		return true, nil
	}
	data, err := os.ReadFile(h.blobPath(digest.Digest(r.Logs.Digest)))
	if err != nil {
		return true, err
	}
	for in := bytes.NewReader(data); in.Len() > 0; {
		var size uint32
		var e controlapi.StatusResponse
		if err := binary.Read(in, binary.LittleEndian, &size); err != nil || int64(size) > int64(in.Len()) {
			return true, io.ErrUnexpectedEOF
		}
		message := make([]byte, size)
		_, _ = in.Read(message)
		if err := proto.Unmarshal(message, &e); err != nil {
			return true, err
		}
		if err := send(&e); err != nil {
			return true, err
		}
	}
	return true, nil
}
