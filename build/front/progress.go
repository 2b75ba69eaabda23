package front

import (
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/build"
)

// classicProgress tells of a build as the builder of old did: steps by their
// number, and what they print.
type classicProgress struct {
	out   *stream
	quiet bool

	mu    sync.Mutex
	steps map[digest.Digest]bool
}

func newClassicProgress(out *stream, quiet bool) *classicProgress {
	return &classicProgress{out: out, quiet: quiet, steps: map[digest.Digest]bool{}}
}

func (p *classicProgress) say(text string) {
	if !p.quiet {
		p.out.say(text)
	}
}

func (p *classicProgress) Vertex(v build.VertexStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v.Started == nil {
		return
	}
	if !p.steps[v.Digest] {
		p.steps[v.Digest] = true
		p.say("Step " + v.Name + "\n")
	}
	if v.Completed != nil && v.Cached {
		p.say(" ---> Using cache\n")
	}
}

func (p *classicProgress) Status(build.TaskStatus) {}

func (p *classicProgress) Log(_ digest.Digest, _ int, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.say(string(data))
}

func (p *classicProgress) Warn(_ digest.Digest, w build.Warning) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.say("[Warning] " + string(w.Short) + "\n")
}
