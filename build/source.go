package build

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
)

// source has the files of a source here.
func (j *Job) source(ctx context.Context, v *vertex, s *pb.SourceOp) (*output, bool, error) {
	scheme, rest, _ := strings.Cut(s.Identifier, "://")
	switch scheme {
	case "docker-image":
		o, err := j.image(ctx, v, rest, s.Attrs)
		return o, false, err
	case "local":
		o, err := j.local(ctx, rest, s.Attrs)
		return o, false, err
	}
	return nil, false, fault.New(fault.NotImplemented, "the source %s is not supported yet", s.Identifier)
}

// Platform is the one that a vertex is for.
func (v *vertex) platform() ocispec.Platform {
	p := v.op.GetPlatform()
	return ocispec.Platform{OS: p.GetOS(), Architecture: p.GetArchitecture(), Variant: p.GetVariant(), OSVersion: p.GetOSVersion(), OSFeatures: p.GetOSFeatures()}
}

func (j *Job) image(ctx context.Context, v *vertex, ref string, attrs map[string]string) (*output, error) {
	r := ImageRequest{Ref: ref, Platform: v.platform()}
	switch attrs[pb.AttrImageResolveMode] {
	case pb.AttrImageResolveModeForcePull:
		r.Pull = !j.resolvedHere(ref)
	}
	img, err := j.Resolve(ctx, v.digest, r)
	if err != nil {
		return nil, err
	}
	layers, err := j.solver.Store.Fetch(ctx, img)
	if err != nil {
		return nil, err
	}
	return &output{layers: layers, key: img.Manifest.Digest}, nil
}

// resolvedHere tells whether the name was asked for at its registry in this
// build: the front end does so before it names the digest.
func (j *Job) resolvedHere(ref string) bool {
	_, name, found := strings.Cut(ref, "@")
	return found && digest.Digest(name).Validate() == nil
}

// Resolve finds what an image's name means, for a vertex or for the front end
// alone.
func (j *Job) Resolve(ctx context.Context, vertex digest.Digest, r ImageRequest) (Image, error) {
	host, _, _ := strings.Cut(r.Ref, "/")
	auth, err := j.session.Credentials(ctx, host)
	if err != nil {
		return Image{}, err
	}
	r.Auth = auth
	return j.solver.Store.Resolve(ctx, r, func(t Transfer) { j.transfer(vertex, t) })
}

// transfer tells of a blob that comes or goes.
func (j *Job) transfer(vertex digest.Digest, t Transfer) {
	if vertex == "" || t.ID == "" {
		return
	}
	j.progress.Status(TaskStatus{ID: t.ID, Vertex: vertex, Name: t.Action, Current: t.Current, Total: t.Total})
}

// locals are the copies of clients' directories, below <root>/local: one for
// each directory of each client, brought up to date by each build that wants it.
type locals struct {
	dir string

	mu   sync.Mutex
	busy map[string]*sync.RWMutex
}

func openLocals(root string) (*locals, error) {
	l := &locals{dir: filepath.Join(root, "local"), busy: map[string]*sync.RWMutex{}}
	return l, os.MkdirAll(l.dir, 0o700)
}

// update brings a copy up to date. It stays as it is until release is called.
func (l *locals) update(ctx context.Context, key string, bring func(dir string) error) (dir string, release func(), err error) {
	l.mu.Lock()
	lock := l.busy[key]
	if lock == nil {
		lock = new(sync.RWMutex)
		l.busy[key] = lock
	}
	l.mu.Unlock()
	dir = filepath.Join(l.dir, digest.FromString(key).Encoded())
	lock.Lock()
	// A step that mounts it may have a user of its own; nobody gets past its parent.
	if err = os.MkdirAll(dir, 0o755); err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err == nil {
		err = bring(dir)
	}
	lock.Unlock()
	if err != nil {
		return "", nil, err
	}
	lock.RLock()
	return dir, lock.RUnlock, nil
}

// local has the client's files here.
func (j *Job) local(ctx context.Context, name string, attrs map[string]string) (*output, error) {
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
	key, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	dir, release, err := j.solver.sources.update(ctx, j.session.Client()+string(key), func(dir string) error { return j.session.Local(ctx, r, dir) })
	if err != nil {
		return nil, err
	}
	j.atEnd(release)
	return &output{dir: dir}, nil
}
