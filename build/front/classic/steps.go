package classic

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/reply"
	"github.com/tarehq/tare/fault"
)

// steps tells of a build as the builder of old did: the instructions
// in their order, each with what it prints. Steps that run beside each other
// are told one after the other, and stages that nothing needs are left out.
type steps struct {
	out   *reply.Stream
	quiet bool // only a build that fails tells

	target    string
	elsewhere bool // the context is not here

	mu       sync.Mutex
	unsaid   []byte
	steps    []*step
	at       int   // the step that is told now
	bound    *step // that is not told of yet; nil for none
	begun    bool
	declared map[string]bool // build arguments
	vertices map[digest.Digest]*vertex
	stages   map[string]string // IDs shown of the stages so far, by name
	id       string            // shown of the step before
}

// step is an instruction.
type step struct {
	text     string
	from     string // the base, of a FROM
	stage    string
	first    int // lines
	last     int
	said     bool // that it began
	over     bool // that it ended
	vertices []digest.Digest
}

// vertex is a vertex of the definition that is solved.
type vertex struct {
	args    []string // of a RUN
	base    string   // digest of an image
	step    *step
	waiting []byte // output that is not yet told
	running bool   // its beginning was told
	done    bool
	cached  bool
	failed  bool
}

func newSteps(out *reply.Stream, quiet bool, target string) *steps {
	return &steps{out: out, quiet: quiet, target: target, declared: map[string]bool{}, vertices: map[digest.Digest]*vertex{}, stages: map[string]string{}}
}

func (p *steps) say(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if p.quiet {
		p.unsaid = append(p.unsaid, text...)
		return
	}
	p.out.Say(text)
}

// read lists the steps of a Dockerfile.
func (p *steps) read(dockerfile []byte) error {
	ast, err := parser.Parse(bytes.NewReader(dockerfile))
	if err != nil {
		return fault.New(fault.Invalid, "failed to parse Dockerfile: %w", err)
	}
	stages, meta, err := instructions.Parse(ast.AST, nil)
	if err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	if p.target != "" {
		if _, found := instructions.HasStage(stages, p.target); !found {
			return fault.New(fault.Invalid, "target stage %q could not be found", p.target)
		}
	}
	for _, a := range meta {
		p.steps = append(p.steps, newStep(a.String(), "", a.Location()))
		p.declare(&a)
	}
	for _, i := range needed(stages, p.target) {
		s := stages[i]
		name := strings.ToLower(s.Name)
		if name == "" {
			name = fmt.Sprint(i)
		}
		from := newStep(s.SourceCode, name, s.Location)
		from.from = strings.ToLower(s.BaseName)
		p.steps = append(p.steps, from)
		for _, c := range s.Commands {
			text := c.Name()
			if full, ok := c.(fmt.Stringer); ok {
				text = full.String()
			}
			p.steps = append(p.steps, newStep(text, name, c.Location()))
			if a, ok := c.(*instructions.ArgCommand); ok {
				p.declare(a)
			}
		}
	}
	return nil
}

// begin tells of the first step, and of the arguments before it, ere its base is
// looked for: what fails from here on is told in the answer.
func (p *steps) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.at < len(p.steps) {
		s := p.steps[p.at]
		p.headLocked(s)
		if s.stage != "" {
			return
		}
		s.over = true
		p.at++
	}
}

func (p *steps) declare(a *instructions.ArgCommand) {
	for _, kv := range a.Args {
		p.declared[kv.Key] = true
	}
}

func newStep(text, stage string, where []parser.Range) *step {
	s := &step{text: text, stage: stage}
	for i, r := range where {
		if i == 0 {
			s.first = r.Start.Line
		}
		s.last = max(s.last, r.Start.Line, r.End.Line)
	}
	return s
}

// needed lists the stages that the target stands on, in their order.
func needed(stages []instructions.Stage, target string) (list []int) {
	last := len(stages) - 1
	if target != "" {
		for i, s := range stages {
			if strings.EqualFold(s.Name, target) || target == fmt.Sprint(i) {
				last = i
			}
		}
	}
	want := make([]bool, len(stages))
	want[last] = true
	for i := last; i >= 0; i-- {
		if !want[i] {
			continue
		}
		for _, name := range standsOn(stages[i]) {
			for k := i - 1; k >= 0; k-- {
				if strings.EqualFold(stages[k].Name, name) || name == fmt.Sprint(k) {
					want[k] = true
					break
				}
			}
		}
	}
	for i, w := range want {
		if w {
			list = append(list, i)
		}
	}
	return list
}

func standsOn(s instructions.Stage) []string {
	names := []string{s.BaseName}
	for _, c := range s.Commands {
		switch c := c.(type) {
		case *instructions.CopyCommand:
			names = append(names, c.From)
		case *instructions.RunCommand:
			for _, m := range instructions.GetMounts(c) {
				names = append(names, m.From)
			}
		}
	}
	return names
}

// plan says which vertices belong to which step, by their place in the file.
func (p *steps) plan(def *pb.Definition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if infos := def.GetSource().GetInfos(); len(p.steps) == 0 && len(infos) > 0 { // of a context that is elsewhere
		p.elsewhere = true
		_ = p.read(infos[0].GetData()) // the front end has read it
	}
	planned := false
	for _, data := range def.GetDef() {
		d := digest.FromBytes(data)
		places := def.GetSource().GetLocations()[d.String()].GetLocations()
		var op pb.Op
		if p.vertices[d] != nil || len(places) == 0 || len(places[0].GetRanges()) == 0 || op.UnmarshalVT(data) != nil {
			continue
		}
		v := &vertex{args: op.GetExec().GetMeta().GetArgs()}
		if _, name, found := strings.Cut(op.GetSource().GetIdentifier(), "@sha256:"); found {
			v.base = name
		}
		p.vertices[d], planned = v, true
		line := int(places[0].Ranges[0].GetStart().GetLine())
		for _, s := range p.steps {
			if s.first <= line && line <= s.last {
				v.step = s
				s.vertices = append(s.vertices, d)
				break
			}
		}
	}
	p.begun = p.begun || planned
	p.tellLocked()
}

func (p *steps) Vertex(v build.VertexStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	mine := p.vertices[v.Digest]
	if mine == nil || v.Completed == nil {
		return
	}
	mine.done, mine.cached, mine.failed = true, v.Cached, v.Error != ""
	p.tellLocked()
}

// tellLocked tells of the steps as far as they got. The ID of the last one comes
// with the image.
func (p *steps) tellLocked() {
	for p.begun && p.at < len(p.steps) {
		s := p.steps[p.at]
		if s.over || s == p.bound { // the last one
			return
		}
		p.headLocked(s)
		cached := len(s.vertices) > 0 && s.from == ""
		for _, d := range s.vertices {
			v := p.vertices[d]
			p.outputLocked(d, v)
			if !v.done || v.failed {
				return
			}
			cached = cached && v.cached
		}
		if cached {
			p.say(" ---> Using cache\n")
		}
		for _, d := range s.vertices {
			if v := p.vertices[d]; v.running {
				p.say(" ---> Removed intermediate container %s\n", d.Encoded()[:12])
			}
		}
		s.over = true
		if p.at == len(p.steps)-1 {
			return
		}
		p.at++
		p.endLocked(s)
	}
}

// headLocked tells once that a step begins.
func (p *steps) headLocked(s *step) {
	if !s.said {
		s.said = true
		p.say("Step %d/%d : %s", slices.Index(p.steps, s)+1, len(p.steps), s.text)
		p.say("\n")
	}
}

// outputLocked tells what a vertex printed.
func (p *steps) outputLocked(d digest.Digest, v *vertex) {
	if len(v.args) > 0 && !v.running && (len(v.waiting) > 0 || v.done && !v.cached) {
		v.running = true
		p.say(" ---> Running in %s\n", d.Encoded()[:12])
	}
	if len(v.waiting) > 0 {
		p.say("%s", v.waiting)
		v.waiting = nil
	}
}

// endLocked tells of a step that there is something now that stands for it.
func (p *steps) endLocked(s *step) {
	switch {
	case s.stage == "": // an ARG before all stages
		return
	case s.from == "scratch":
		p.id = ""
	case s.from != "" && p.stages[s.from] != "":
		p.id = p.stages[s.from]
	case s.from != "":
		p.id = digest.FromString(s.text).Encoded()
		for _, d := range s.vertices {
			if base := p.vertices[d].base; base != "" {
				p.id = base
			}
		}
	default:
		p.id = digest.FromString(p.id + s.text).Encoded()
	}
	p.stages[s.stage] = p.id
	p.say(" ---> %.12s\n", p.id)
}

// finish tells of the last step.
func (p *steps) finish(id string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = true
	p.tellLocked()
	if len(p.steps) > 0 {
		p.say(" ---> %s\n", short(id))
	}
}

// unused says which build arguments no instruction asked for.
func (p *steps) unused(args []string) {
	var left []string
	for _, a := range args {
		if !p.declared[a] && !predefined[strings.ToLower(a)] && !strings.HasPrefix(a, "BUILDKIT_") && a != "SOURCE_DATE_EPOCH" {
			left = append(left, a)
		}
	}
	if len(left) > 0 && len(p.steps) > 0 {
		p.say("[Warning] One or more build-args %v were not consumed\n", left)
	}
}

// predefined build arguments need no ARG.
var predefined = map[string]bool{"http_proxy": true, "https_proxy": true, "ftp_proxy": true, "no_proxy": true, "all_proxy": true}

func (p *steps) Status(build.TaskStatus) {}

func (p *steps) Log(d digest.Digest, _ int, data []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	v := p.vertices[d]
	if v == nil {
		p.say("%s", data)
		return
	}
	v.waiting = append(v.waiting, data...)
	if v.step == nil || p.at < len(p.steps) && v.step == p.steps[p.at] {
		p.outputLocked(d, v)
	}
}

// Warn passes on nothing: the builder of old had no opinion on Dockerfiles.
func (p *steps) Warn(digest.Digest, build.Warning) {}
