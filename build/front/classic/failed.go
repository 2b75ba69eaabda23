package classic

import (
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/tarehq/tare/build"
)

// failed tells of the step that failed, and puts the error into Docker's words.
func (p *steps) failed(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	s, v := p.culpritLocked(err)
	if s != nil {
		p.headLocked(s)
	}
	err = worded(err, s, v)
	if len(p.unsaid) > 0 {
		p.out.Say(string(p.unsaid))
		p.unsaid = nil
	}
	return err
}

// before lists the stages ahead of a base that is the reason of an error, by how many
// lines of the Dockerfile end with them. Each is told of when it is its turn, and no further.
func (p *steps) before(err error) iter.Seq[int] {
	return func(yield func(int) bool) {
		p.mu.Lock()
		culprit, _ := p.culpritLocked(err)
		p.mu.Unlock()
		if culprit == nil || culprit.from == "" || p.elsewhere {
			return
		}
		begun := false
		for _, s := range p.steps {
			if s.from == "" {
				continue
			}
			if begun {
				p.mu.Lock()
				p.bound, p.begun = s, false
				p.mu.Unlock()
				if !yield(s.first - 1) {
					return
				}
				p.mu.Lock()
				p.begun = true
				p.tellLocked()
				p.mu.Unlock()
			}
			if begun = true; s == culprit {
				return
			}
		}
	}
}

// culpritLocked finds the step that an error comes from: by its vertex, which
// has then told all that it printed, or before there are any by the line.
func (p *steps) culpritLocked(err error) (*step, *vertex) {
	var at *build.VertexError
	if errors.As(err, &at) {
		v := p.vertices[at.Vertex]
		if v == nil {
			return nil, nil
		}
		if v.step != nil {
			p.headLocked(v.step)
		}
		p.outputLocked(at.Vertex, v)
		return v.step, v
	}
	var place *parser.LocationError
	if !errors.As(err, &place) || len(place.Locations) == 0 || len(place.Locations[0]) == 0 {
		return nil, nil
	}
	line := place.Locations[0][0].Start.Line
	for _, s := range p.steps {
		if s.first <= line && line <= s.last {
			return s, nil
		}
	}
	return nil, nil
}

// missing is what a copy says whose source is not there, in the context or in
// another stage; from names the other stage or image in an instruction.
var (
	missing = regexp.MustCompile(`(?:failed to calculate checksum of ref [^:]*: "/?(.*)": not found|failed to copy .*: lstat /?(.*): no such file or directory)$`)
	from    = regexp.MustCompile(` --from=(\S+)`)
)

// worded puts the error of a step, which may not be known, into Docker's words.
func worded(err error, s *step, v *vertex) error {
	text := err.Error()
	var exit *build.ExitError
	if v != nil && errors.As(err, &exit) {
		return &stepError{fmt.Sprintf("The command '%s' returned a non-zero code: %d", strings.Join(v.args, " "), exit.Code), err}
	}
	var instruction string
	var source []string
	if s != nil {
		instruction, _, _ = strings.Cut(s.text, " ")
		instruction, source = strings.ToUpper(instruction), from.FindStringSubmatch(s.text)
	}
	if m := missing.FindStringSubmatch(text); m != nil && (instruction == "COPY" || instruction == "ADD") {
		what := "stat " + m[1] + m[2] + ": file does not exist"
		if len(source) == 0 {
			what = "file not found in build context or excluded by .dockerignore: " + what
		}
		return &stepError{instruction + " failed: " + what, err}
	}
	// The front end says twice what it was looking for.
	if _, cause, found := strings.Cut(text, "failed to resolve source metadata for "); found {
		_, cause, _ = strings.Cut(cause, ": ")
		if instruction == "COPY" && len(source) > 0 {
			cause = "invalid from flag value " + source[1] + ": " + cause
		}
		return &stepError{cause, err}
	}
	return err
}

// stepError is the end of a step in Docker's words.
type stepError struct {
	text string
	err  error
}

func (e *stepError) Error() string { return e.text }
func (e *stepError) Unwrap() error { return e.err }
