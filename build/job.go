package build

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Job is one build: what its client lends and wants to be told.
type Job struct {
	solver   *Solver
	session  Session
	progress Progress
	options  JobOptions

	mu       sync.Mutex
	vertices map[digest.Digest]*solving
	remade   map[digest.Digest]*solving // of which what was found could not be had
	told     map[digest.Digest]bool
	ends     []func()
	dirs     map[string]*kept // of files from outside
	resolved map[string]Image // by name with the digest, and platform

	imports  []imported
	origins  map[digest.Digest]origin // of layers, by chain
	here     map[digest.Digest]bool   // chains
	awaited  []awaited
	kins     map[kinship]map[int]bool
	doubts   map[claim]bool // what only a cache from elsewhere says; false when it is so
	solvedAs []solvedAs

	closed bool
	stays  int // executions that others may wait for, and go on with what the job has

	sandboxes int                        // that are there
	materials map[digest.Digest]Material // by vertex
}

// Close ends a job, whose results are not to be read any more. What it has of files from
// outside stays its own until nothing that it began works on them: see once.
func (j *Job) Close() {
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.end()
}

// stay has the job keep what it has until leave is called.
func (j *Job) stay() (leave func()) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.stays++
	return func() {
		j.mu.Lock()
		j.stays--
		j.mu.Unlock()
		j.end()
	}
}

// end gives back what the job has, when nobody needs it any more.
func (j *Job) end() {
	j.mu.Lock()
	over := j.closed && j.stays == 0
	ends := j.ends
	if over {
		j.ends = nil
	}
	j.mu.Unlock()
	if !over {
		return
	}
	for _, f := range ends {
		f()
	}
	_ = j.solver.sums.save() // or else they are made again
	j.solver.jobs.Add(-1)
	j.solver.gc.want()
}

// Log passes output on as a vertex's.
func (j *Job) Log(vertex digest.Digest, stream int, data []byte) {
	j.progress.Log(vertex, stream, data)
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
	Limits            Limits
	Devices           DeviceGrants
}

// Job begins a build.
func (s *Solver) Job(session Session, progress Progress, o JobOptions) *Job {
	s.jobs.Add(1)
	return &Job{solver: s, session: session, progress: progress, options: o,
		vertices: map[digest.Digest]*solving{}, remade: map[digest.Digest]*solving{}, told: map[digest.Digest]bool{}, dirs: map[string]*kept{},
		resolved: map[string]Image{}, origins: map[digest.Digest]origin{}, here: map[digest.Digest]bool{}, kins: map[kinship]map[int]bool{}, doubts: map[claim]bool{}}
}
