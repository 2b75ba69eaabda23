package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/build/keep"
	"github.com/tarehq/tare/container/device"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/supervise"
)

// Config is what a Solver stands on.
type Config struct {
	Store        Store
	Launcher     *supervise.Launcher // of RUN steps
	Steps        string              // directory of their bundles
	Root         string              // directory of the cache and of clients' files
	CgroupParent string
	Users        *userns.Map // what the IDs of RUN steps are outside; nil for the host's
	Rules        []keep.Rule // the ceilings of the cache
	Devices      device.CDI  // those that steps may have
	Failed       func(error) // told of what fails beside builds
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
	sizes   sizes
	gc      collector
	jobs    atomic.Int32 // that go on

	mu      sync.Mutex
	flights map[digest.Digest]*flight // executions under way, by key
}

// flight is an execution that several jobs may wait for.
type flight struct {
	job    *Job // which began it
	done   chan struct{}
	result []*output
	err    error
	want   int // who waits
	cancel context.CancelFunc
	echo   echo // what the work prints, for all of them
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
	s.cache, err = openCache(ctx, c.Root, c.Store, c.Failed)
	s.gc = collector{rules: c.Rules, failed: c.Failed, busy: func() bool { return s.jobs.Load() > 0 }, prune: func(ctx context.Context, o PruneOptions) error {
		_, err := s.Prune(ctx, o, nil)
		return err
	}}
	return s, err
}

// Close ends what goes on beside builds. There are none any more.
func (s *Solver) Close() {
	s.gc.close()
	s.cache.close()
}

// scratchDir holds what steps write that nobody keeps.
func (s *Solver) scratchDir() string { return filepath.Join(s.Root, "scratch") }

// placesDir is where threads with mounts of their own mount trees.
func (s *Solver) placesDir() string { return filepath.Join(s.Root, "scratch", "places") }

// Solve solves a definition.
func (j *Job) Solve(ctx context.Context, def *pb.Definition) (*Result, error) {
	result, order, err := decode(def)
	if err != nil {
		return nil, err
	}
	if result.vertex == nil {
		return &Result{job: j, output: &output{key: emptyKey}}, nil
	}
	j.announce(order)
	outputs, err := j.solve(ctx, result.vertex)
	if err != nil {
		return nil, err
	}
	o, err := pick(outputs, result)
	return &Result{job: j, output: o}, err
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
	return VertexStatus{Digest: v.digest, Inputs: v.digests(), Name: v.name, Group: v.meta.GetProgressGroup()}
}

// solving is a vertex of this job on its way.
type solving struct {
	done    chan struct{}
	outputs []*output
	err     error
}

// solve solves a vertex once in a job.
func (j *Job) solve(ctx context.Context, v *vertex) ([]*output, error) {
	return j.onceIn(ctx, j.verticesOf(ctx), v.digest, func() ([]*output, error) { return j.carryOut(ctx, v) })
}

// onceIn does something once in a job. What failed may be tried again.
func (j *Job) onceIn(ctx context.Context, list map[digest.Digest]*solving, name digest.Digest, do func() ([]*output, error)) ([]*output, error) {
	j.mu.Lock()
	s, begun := list[name]
	if !begun {
		s = &solving{done: make(chan struct{})}
		list[name] = s
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
	s.outputs, s.err = do()
	if s.err != nil { // another part of the build may try again
		j.mu.Lock()
		delete(list, name)
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
	outputs, err := j.report(ctx, v, func() ([]*output, bool, error) { return j.perform(ctx, v, inputs, true) })
	var failed *VertexError
	if errors.As(err, &failed) {
		for _, in := range inputs {
			failed.Inputs = append(failed.Inputs, &Result{job: j, output: in})
		}
	}
	return outputs, err
}

// report tells of a vertex while something does its work.
func (j *Job) report(ctx context.Context, v *vertex, do func() (outputs []*output, cached bool, err error)) ([]*output, error) {
	status := v.status()
	now := time.Now()
	status.Started = &now
	j.progress.Vertex(status)
	outputs, cached, err := do()
	end := time.Now()
	status.Completed, status.Cached = &end, cached
	if err != nil {
		status.Error = err.Error()
		if ctx.Err() != nil { // why, the vertex says that failed: clients know this word
			status.Error = context.Canceled.Error()
		}
		err = &VertexError{Vertex: v.digest, Name: v.name, Op: v.op, err: err}
	}
	j.progress.Vertex(status)
	return outputs, err
}

// VertexError says which vertex failed.
type VertexError struct {
	Vertex digest.Digest
	Name   string
	Op     *pb.Op
	Inputs []*Result // what it stands on
	err    error
}

func (e *VertexError) Error() string { return e.err.Error() }
func (e *VertexError) Unwrap() error { return e.err }

// perform does the work of a vertex whose inputs are known. When its results are
// in no cache the inputs are fetched, with what they turn out to be then: they may
// have been made anew. Only with elsewhere, caches from elsewhere are asked.
func (j *Job) perform(ctx context.Context, v *vertex, inputs []*output, elsewhere bool) (outputs []*output, cached bool, err error) {
	switch op := v.op.Op.(type) {
	case *pb.Op_Source:
		o, cached, err := j.source(ctx, v, op.Source)
		return []*output{o}, cached, err
	case *pb.Op_Merge, *pb.Op_Diff, *pb.Op_Passthrough:
		return j.combine(ctx, v, inputs)
	case *pb.Op_Build:
		o, err := j.nested(ctx, v, op.Build, inputs)
		return []*output{o}, false, err
	}
	k, outputs, err := j.look(ctx, v, inputs, elsewhere)
	if outputs != nil || err != nil {
		return outputs, true, err
	}
	inputs, changed, err := j.readyAll(ctx, inputs, all)
	if err != nil {
		return nil, false, err
	}
	if changed {
		if k, outputs, err = j.look(ctx, v, inputs, elsewhere); outputs != nil || err != nil {
			return outputs, true, err
		}
	}
	outputs, err = j.once(ctx, j.limits(v).flight(k.exact), j.printer(v), func(ctx context.Context, say printer) ([]*output, error) {
		outputs, err := j.execute(ctx, v, inputs, say)
		if err != nil {
			return nil, err
		}
		for i, o := range outputs {
			o.key = outputKey(k.exact, i)
		}
		j.solver.cache.add(k, v.name, v.recordType(), outputs, j.options.Epoch)
		return outputs, nil
	})
	if err == nil {
		j.note(v, k, outputs)
	}
	return outputs, false, err
}

// outputKey names one of the results that a key has.
func outputKey(key digest.Digest, i int) digest.Digest {
	return digest.FromString(key.String() + string(rune('0'+i)))
}

// note keeps in mind what the job found or made, for an export of its cache.
func (j *Job) note(v *vertex, k keys, outputs []*output) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.solvedAs = append(j.solvedAs, solvedAs{v, k, outputs})
}

// look finds a vertex in the caches: by what its inputs are, and then by what is
// in the files that it reads, for which they must be fetched. The keys are those
// that it was looked for by.
func (j *Job) look(ctx context.Context, v *vertex, inputs []*output, elsewhere bool) (k keys, outputs []*output, err error) {
	reads := contentInputs(v.op)
	if k, err = j.keys(ctx, v, inputs, reads, false); err != nil {
		return k, nil, err
	}
	ignored := v.meta.GetIgnoreCache()
	if !ignored {
		if outputs = j.recall(ctx, v, &k, elsewhere); outputs != nil {
			return k, outputs, nil
		}
	}
	if k.exact != "" {
		j.atEnd(j.solver.cache.hold(k.exact))
		return k, nil, nil
	}
	inputs, _, err = j.readyAll(ctx, inputs, func(i int) bool { return reads[i] != nil })
	if err != nil {
		return k, nil, err
	}
	if k, err = j.keys(ctx, v, inputs, reads, true); err != nil {
		return k, nil, err
	}
	j.atEnd(j.solver.cache.hold(k.exact))
	if !ignored {
		outputs = j.recall(ctx, v, &k, elsewhere)
	}
	return k, outputs, nil
}

// recall finds what is remembered under the keys, of which the exact one may
// be unknown until then.
func (j *Job) recall(ctx context.Context, v *vertex, k *keys, elsewhere bool) []*output {
	outputs := j.solver.cache.find(ctx, k)
	if outputs != nil {
		j.atEnd(j.solver.cache.hold(k.exact))
		j.note(v, *k, outputs)
		return outputs
	}
	if !elsewhere {
		return nil
	}
	key := k.exact
	if key == "" {
		key = k.quick
	}
	outputs, exact := j.recallImported(ctx, v, key, k.exact != "")
	if outputs == nil {
		return nil
	}
	// What another wrote is an answer to what was asked, and to nothing else: its word for
	// which other key is the same would have it found by builds that do not trust it.
	here := awaited{v, keys{quick: k.quick, exact: key}, outputs}
	if k.exact == "" { // it has not been made here
		k.exact = exact
	}
	j.note(v, *k, outputs)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.awaited = append(j.awaited, here)
	return outputs
}

func (j *Job) execute(ctx context.Context, v *vertex, inputs []*output, say printer) ([]*output, error) {
	switch op := v.op.Op.(type) {
	case *pb.Op_Exec:
		return j.run(ctx, v, op.Exec, inputs, say)
	case *pb.Op_File:
		return j.files(ctx, op.File, inputs)
	}
	return nil, fault.New(fault.NotImplemented, "the build has an operation that is not known here")
}

// once has one of those who want the same at the same time do it. It goes on
// while somebody waits, whoever began it, with what the job has that began it. When it
// failed, and that job's client has gone, it is done again. All of them hear what it
// prints.
func (j *Job) once(ctx context.Context, key digest.Digest, hear printer, do func(context.Context, printer) ([]*output, error)) ([]*output, error) {
	for {
		result, own, err := j.join(ctx, key, hear, do)
		if err == nil || own || ctx.Err() != nil {
			return result, err
		}
	}
}

// join is once; own tells that an error is the job's.
func (j *Job) join(ctx context.Context, key digest.Digest, hear printer, do func(context.Context, printer) ([]*output, error)) (result []*output, own bool, err error) {
	s := j.solver
	s.mu.Lock()
	f := s.flights[key]
	if f == nil {
		work, cancel := context.WithCancel(context.WithoutCancel(ctx))
		f = &flight{job: j, done: make(chan struct{}), cancel: cancel}
		s.flights[key] = f
		leave := j.stay()
		go func() {
			f.result, f.err = do(work, f.echo.print)
			cancel()
			s.mu.Lock()
			if s.flights[key] == f {
				delete(s.flights, key)
			}
			s.mu.Unlock()
			leave()
			close(f.done)
		}()
	}
	f.want++
	s.mu.Unlock()
	defer f.echo.follow(hear)()
	select {
	case <-f.done:
		return f.result, f.job == j || !f.job.gone(), f.err
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
	return nil, true, context.Cause(ctx)
}

// gone tells whether the job is closed.
func (j *Job) gone() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.closed
}

// emptyKey is that of a tree without anything.
var emptyKey = digest.FromString("empty")

// recordType is what BuildKit calls a record of the vertex.
func (v *vertex) recordType() string { return TypeRegular }
