package build

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

// source has the files of a source here.
func (j *Job) source(ctx context.Context, v *vertex, s *pb.SourceOp) (*output, bool, error) {
	o, err := j.fetch(ctx, v, s)
	if err == nil {
		j.noteSource(v, s, o)
	}
	return o, false, err
}

func (j *Job) fetch(ctx context.Context, v *vertex, s *pb.SourceOp) (*output, error) {
	scheme, rest, _ := strings.Cut(s.Identifier, "://")
	switch scheme {
	case "docker-image":
		return j.image(ctx, v, rest, s.Attrs)
	case "oci-layout":
		return j.layout(ctx, v, rest, s.Attrs)
	case "local":
		return j.local(ctx, v, rest, s.Attrs)
	case "http", "https":
		return j.http(ctx, s.Identifier, s.Attrs)
	case "git":
		return j.git(ctx, rest, s.Attrs)
	}
	return nil, fault.New(fault.NotImplemented, "the source %s is not supported yet", s.Identifier)
}

// Platform is the one that a vertex is for.
func (v *vertex) platform() ocispec.Platform {
	p := v.op.GetPlatform()
	return ocispec.Platform{OS: p.GetOS(), Architecture: p.GetArchitecture(), Variant: p.GetVariant(), OSVersion: p.GetOSVersion(), OSFeatures: p.GetOSFeatures()}
}

// transfer tells of a blob that comes or goes.
func (j *Job) transfer(vertex digest.Digest, t Transfer) {
	if vertex == "" || t.ID == "" {
		return
	}
	j.progress.Status(TaskStatus{ID: t.ID, Vertex: vertex, Name: t.Action, Current: t.Current, Total: t.Total})
}

// movingEvery is how often it is told how many bytes have moved.
const movingEvery = 100 * time.Millisecond

// Moving tells of a part of a vertex's work by how many bytes of it have moved.
func Moving(p Progress, vertex digest.Digest, name string) func(bytes int, last bool) {
	began, told := time.Now(), time.Time{}
	var mu sync.Mutex
	return func(bytes int, last bool) {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		if !last && now.Sub(told) < movingEvery {
			return
		}
		told = now
		s := TaskStatus{ID: name, Vertex: vertex, Current: int64(bytes), Started: &began, At: now}
		if last {
			s.Completed = &now
		}
		p.Status(s)
	}
}

// kept is a directory that a job has.
type kept struct {
	mu    sync.Mutex // held while it is brought up to date
	dir   string
	facts map[string]string
}

// keptDir gives the job a directory of its own for the files that a key names,
// until it ends: one that an earlier build left, if no other has it. bring brings
// it up to date, once in a job. What is not to be kept goes with the job.
func (j *Job) keptDir(ctx context.Context, title, key string, keep bool, bring func(dir string, a *about) error) (*output, error) {
	id := digest.FromString(title + "\x00" + key).Encoded()
	j.mu.Lock()
	k := j.dirs[id]
	if k == nil {
		k = &kept{}
		j.dirs[id] = k
	}
	j.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dir != "" {
		return &output{dir: k.dir, facts: k.facts}, nil
	}
	shelf := &j.solver.sources
	name, release, err := shelf.hold(ctx, id, pb.CacheSharingOpt_PRIVATE)
	if err != nil {
		return nil, err
	}
	j.atEnd(func() {
		release()
		if !keep {
			_, _ = shelf.drop(name) // or else a prune
		}
	})
	dir := filepath.Join(shelf.dir, name, "tree")
	// A step that mounts it may have a user of its own; nobody gets past the shelf.
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(dir, 0o755)); err != nil {
		return nil, err
	}
	a := shelf.about(name)
	err = bring(dir, &a)
	a.used(title)
	if err := errors.Join(err, shelf.tell(name, a)); err != nil {
		return nil, err
	}
	k.dir, k.facts = dir, a.Facts
	return &output{dir: dir, facts: a.Facts}, nil
}

// local has the client's files here.
func (j *Job) local(ctx context.Context, v *vertex, name string, attrs map[string]string) (*output, error) {
	r := LocalRequest{Name: name, SharedKey: attrs[pb.AttrSharedKeyHint], Differ: attrs[pb.AttrLocalDiffer],
		MetadataOnly: attrs[pb.AttrMetadataTransfer] == "true"}
	for attr, list := range map[string]*[]string{pb.AttrIncludePatterns: &r.Include, pb.AttrExcludePatterns: &r.Exclude,
		pb.AttrFollowPaths: &r.Follow, pb.AttrMetadataTransferExclude: &r.MetadataOnlyExceptions} {
		if text := attrs[attr]; text != "" {
			if err := json.Unmarshal([]byte(text), list); err != nil {
				return nil, fault.New(fault.Invalid, "the source local://%s has a damaged %s: %w", name, attr, err)
			}
		}
	}
	if h, ok := j.session.(Holder); ok {
		dir, err := h.Directory(ctx, r)
		return &output{dir: dir}, err
	}
	from := j.session
	if c, ok := from.(Companion); ok && attrs[pb.AttrLocalSessionID] != "" {
		var err error
		if from, err = c.Of(ctx, attrs[pb.AttrLocalSessionID]); err != nil {
			return nil, err
		}
	}
	key, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	client := from.Client()
	o, err := j.keptDir(ctx, "local source for "+name, client+string(key), client != "", func(dir string, _ *about) error {
		return from.Local(ctx, r, dir, Moving(j.progress, v.digest, "transferring "+name+":"))
	})
	if err == nil {
		o.shelved = true
	}
	return o, err
}
