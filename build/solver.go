package build

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/supervise"
)

// Config is what a Solver stands on.
type Config struct {
	Store        Store
	Launcher     *supervise.Launcher // of RUN steps
	Steps        string              // directory of their bundles
	Root         string              // directory of the cache and of clients' files
	CgroupParent string
}

// Solver solves definitions. Several Jobs may do so at the same time; what is
// the same in them is done once.
type Solver struct {
	Config
	cache   *cache
	sources shelf // clients' files, and others from outside
	sums    *sums
	caches  *caches
	places  *places
	running chan struct{} // places of RUN steps

	mu      sync.Mutex
	flights map[digest.Digest]*flight // executions under way, by key
}

// flight is an execution that several jobs may wait for.
type flight struct {
	done   chan struct{}
	result []*output
	err    error
	want   int // who waits
	cancel context.CancelFunc
}

// Open makes a solver, and takes up the cache that an earlier one left.
func Open(ctx context.Context, c Config) (*Solver, error) {
	s := &Solver{Config: c, running: make(chan struct{}, 2*runtime.NumCPU()), flights: map[digest.Digest]*flight{}, places: newPlaces(c.Store)}
	var err error
	s.sources, s.sums = newShelf(c.Root, "sources"), openSums(filepath.Join(c.Root, "sums"))
	if err = s.sources.open(); err != nil {
		return nil, err
	}
	if s.caches, err = openCaches(c.Root); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(s.scratchDir()); err != nil { // of an earlier process
		return nil, err
	}
	if err := os.MkdirAll(s.placesDir(), 0o700); err != nil {
		return nil, err
	}
	s.cache, err = openCache(ctx, c.Root, c.Store)
	return s, err
}

// scratchDir holds what steps write that nobody keeps.
func (s *Solver) scratchDir() string { return filepath.Join(s.Root, "scratch") }

// placesDir is where threads with mounts of their own mount trees.
func (s *Solver) placesDir() string { return filepath.Join(s.Root, "scratch", "places") }

// Job is one build: what its client lends and wants to be told.
type Job struct {
	solver   *Solver
	session  Session
	progress Progress
	options  JobOptions

	mu       sync.Mutex
	vertices map[digest.Digest]*solving
	told     map[digest.Digest]bool
	ends     []func()
	dirs     map[string]*kept // of files from outside
}

// Close ends a job, whose results are not to be read any more.
func (j *Job) Close() {
	j.mu.Lock()
	ends := j.ends
	j.ends = nil
	j.mu.Unlock()
	for _, f := range ends {
		f()
	}
	_ = j.solver.sums.save() // or else they are made again
}

// Warn passes a remark on a vertex on.
func (j *Job) Warn(vertex digest.Digest, w Warning) { j.progress.Warn(vertex, w) }

func (j *Job) atEnd(f func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.ends = append(j.ends, f)
}

// JobOptions are a build's own.
type JobOptions struct {
	Epoch time.Time // SOURCE_DATE_EPOCH; zero for none
	// Network allows RUN steps the host's network, Insecure all privileges.
	Network, Insecure bool
	ExtraHosts        []string
}

// Job begins a build.
func (s *Solver) Job(session Session, progress Progress, o JobOptions) *Job {
	return &Job{solver: s, session: session, progress: progress, options: o,
		vertices: map[digest.Digest]*solving{}, told: map[digest.Digest]bool{}, dirs: map[string]*kept{}}
}

// output is a result of a vertex: a chain of layers, or a directory of files
// that came from outside.
type output struct {
	layers []Layer // the lowest first; none for an empty tree
	dir    string  // if not "", the files are there
	key    digest.Digest
}

// chain names the topmost layer, "" for none.
func (o *output) chain() digest.Digest {
	if o == nil || len(o.layers) == 0 {
		return ""
	}
	return o.layers[len(o.layers)-1].Chain
}

// Result is what a definition came to.
type Result struct {
	solver *Solver
	output *output
}

// Open opens the result's files to read.
func (r *Result) Open(ctx context.Context) (Tree, error) {
	return r.solver.open(ctx, r.output)
}

// Layers are those of the result, the lowest first.
func (r *Result) Layers() []Layer {
	if r == nil || r.output == nil {
		return nil
	}
	return r.output.layers
}

// Solve solves a definition.
func (j *Job) Solve(ctx context.Context, def *pb.Definition) (*Result, error) {
	result, order, err := decode(def)
	if err != nil {
		return nil, err
	}
	if result.vertex == nil {
		return &Result{j.solver, &output{key: emptyKey}}, nil
	}
	j.announce(order)
	outputs, err := j.solve(ctx, result.vertex)
	if err != nil {
		return nil, err
	}
	o, err := pick(outputs, result)
	return &Result{j.solver, o}, err
}

func pick(outputs []*output, e edge) (*output, error) {
	if e.index >= len(outputs) {
		return nil, fault.New(fault.Invalid, "the operation %q has no result %d", e.name, e.index)
	}
	return outputs[e.index], nil
}

// announce tells of the vertices before they begin.
func (j *Job) announce(order []*vertex) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, v := range order {
		if !j.told[v.digest] {
			j.told[v.digest] = true
			j.progress.Vertex(v.status())
		}
	}
}

func (v *vertex) status() VertexStatus {
	return VertexStatus{Digest: v.digest, Inputs: v.digests(), Name: v.name, Group: v.meta.GetProgressGroup().GetId()}
}

// solving is a vertex of this job on its way.
type solving struct {
	done    chan struct{}
	outputs []*output
	err     error
}

// solve solves a vertex once in a job.
func (j *Job) solve(ctx context.Context, v *vertex) ([]*output, error) {
	j.mu.Lock()
	s, begun := j.vertices[v.digest]
	if !begun {
		s = &solving{done: make(chan struct{})}
		j.vertices[v.digest] = s
	}
	j.mu.Unlock()
	if begun {
		select {
		case <-s.done:
			return s.outputs, s.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	s.outputs, s.err = j.carryOut(ctx, v)
	if s.err != nil { // another part of the build may try again
		j.mu.Lock()
		delete(j.vertices, v.digest)
		j.mu.Unlock()
	}
	close(s.done)
	return s.outputs, s.err
}

// inputs solves what a vertex stands on, side by side.
func (j *Job) inputs(ctx context.Context, v *vertex) ([]*output, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	outputs, all := make([]*output, len(v.inputs)), sync.WaitGroup{}
	for i, in := range v.inputs {
		all.Go(func() {
			got, err := j.solve(ctx, in.vertex)
			if err == nil {
				outputs[i], err = pick(got, in)
			}
			if err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	return outputs, context.Cause(ctx)
}

// carryOut finds the results of a vertex in the cache, or makes them.
func (j *Job) carryOut(ctx context.Context, v *vertex) ([]*output, error) {
	inputs, err := j.inputs(ctx, v)
	if err != nil {
		return nil, err
	}
	status := v.status()
	now := time.Now()
	status.Started = &now
	j.progress.Vertex(status)
	outputs, cached, err := j.perform(ctx, v, inputs)
	end := time.Now()
	status.Completed, status.Cached = &end, cached
	if err != nil {
		status.Error = err.Error()
		err = &VertexError{v.digest, v.name, err}
	}
	j.progress.Vertex(status)
	return outputs, err
}

// VertexError says which vertex failed.
type VertexError struct {
	Vertex digest.Digest
	Name   string
	err    error
}

func (e *VertexError) Error() string { return e.err.Error() }
func (e *VertexError) Unwrap() error { return e.err }

// perform does the work of a vertex whose inputs are there.
func (j *Job) perform(ctx context.Context, v *vertex, inputs []*output) (outputs []*output, cached bool, err error) {
	if source := v.op.GetSource(); source != nil {
		o, cached, err := j.source(ctx, v, source)
		return []*output{o}, cached, err
	}
	key, err := j.key(ctx, v, inputs)
	if err != nil {
		return nil, false, err
	}
	j.atEnd(j.solver.cache.hold(key))
	if !v.meta.GetIgnoreCache() {
		if outputs, ok := j.solver.cache.find(ctx, key); ok {
			return outputs, true, nil
		}
	}
	outputs, err = j.solver.once(ctx, key, func(ctx context.Context) ([]*output, error) {
		outputs, err := j.execute(ctx, v, inputs)
		if err != nil {
			return nil, err
		}
		for i, o := range outputs {
			o.key = digest.FromString(key.String() + string(rune('0'+i)))
		}
		return outputs, j.solver.cache.add(ctx, key, v.name, v.recordType(), outputs, j.options.Epoch)
	})
	return outputs, false, err
}

func (j *Job) execute(ctx context.Context, v *vertex, inputs []*output) ([]*output, error) {
	switch op := v.op.Op.(type) {
	case *pb.Op_Exec:
		return j.run(ctx, v, op.Exec, inputs)
	case *pb.Op_File:
		return j.files(ctx, op.File, inputs)
	case *pb.Op_Passthrough:
		return nil, fault.New(fault.NotImplemented, "the operation passthrough is not supported")
	case *pb.Op_Merge:
		return nil, fault.New(fault.NotImplemented, "the operation merge is not supported yet")
	case *pb.Op_Diff:
		return nil, fault.New(fault.NotImplemented, "the operation diff is not supported yet")
	}
	return nil, fault.New(fault.NotImplemented, "the build has an operation that is not known here")
}

// once has one of those who want the same at the same time do it. It goes on
// while somebody waits, whoever began it.
func (s *Solver) once(ctx context.Context, key digest.Digest, do func(context.Context) ([]*output, error)) ([]*output, error) {
	s.mu.Lock()
	f := s.flights[key]
	if f == nil {
		work, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{done: make(chan struct{}), cancel: cancel}
		s.flights[key] = f
		go func() {
			f.result, f.err = do(work)
			cancel()
			s.mu.Lock()
			if s.flights[key] == f {
				delete(s.flights, key)
			}
			s.mu.Unlock()
			close(f.done)
		}()
	}
	f.want++
	s.mu.Unlock()
	select {
	case <-f.done:
		return f.result, f.err
	case <-ctx.Done():
	}
	s.mu.Lock()
	f.want--
	last := f.want == 0
	if last && s.flights[key] == f { // who comes now begins anew
		delete(s.flights, key)
	}
	s.mu.Unlock()
	if last {
		f.cancel()
		<-f.done // nothing of it is left then
	}
	return nil, context.Cause(ctx)
}

// emptyKey is that of a tree without anything.
var emptyKey = digest.FromString("empty")

// recordType is what BuildKit calls a record of the vertex.
func (v *vertex) recordType() string { return TypeRegular }
