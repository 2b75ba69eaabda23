package attest

import (
	"fmt"
	"slices"
	"strings"

	provenance "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/fault"
)

// steps are the operations of a definition, each behind those that it stands on.
type steps struct {
	ops   map[digest.Digest]*pb.Op
	index map[digest.Digest]int
	order []digest.Digest
	steps []provenance.BuildStep
}

// readSteps reads a definition, and leaves out what is nobody's business.
func readSteps(def *pb.Definition) (*steps, error) {
	s := &steps{ops: map[digest.Digest]*pb.Op{}, index: map[digest.Digest]int{}}
	var last digest.Digest
	for _, data := range def.GetDef() {
		var op pb.Op
		if err := op.UnmarshalVT(data); err != nil {
			return nil, fault.New(fault.Invalid, "the build's definition is damaged: %w", err)
		}
		last = digest.FromBytes(data)
		s.ops[last] = &op
	}
	if last != "" {
		s.visit(last)
	}
	for i, d := range s.order {
		op := s.ops[d].CloneVT()
		step := provenance.BuildStep{ID: fmt.Sprintf("step%d", i), Inputs: []string{}, Op: op}
		for _, in := range op.Inputs {
			step.Inputs = append(step.Inputs, fmt.Sprintf("step%d:%d", s.index[digest.Digest(in.Digest)], in.Index))
		}
		op.Inputs = nil
		discreet(op)
		s.steps = append(s.steps, step)
	}
	return s, nil
}

func (s *steps) visit(d digest.Digest) {
	if _, done := s.index[d]; done || s.ops[d] == nil {
		return
	}
	for _, in := range s.ops[d].Inputs {
		s.visit(digest.Digest(in.Digest))
	}
	s.index[d] = len(s.order)
	s.order = append(s.order, d)
}

func (s *steps) mapping() map[digest.Digest]string {
	m := map[digest.Digest]string{}
	for d, i := range s.index {
		m[d] = fmt.Sprintf("step%d", i)
	}
	return m
}

// discreet takes sessions, proxies and the users of addresses out of an operation.
func discreet(op *pb.Op) {
	if src := op.GetSource(); src != nil {
		src.Identifier = Clean(src.Identifier)
		delete(src.Attrs, pb.AttrLocalSessionID)
		delete(src.Attrs, pb.AttrLocalUniqueID)
		for key, value := range src.Attrs {
			src.Attrs[key] = Clean(value)
			if name, ok := strings.CutPrefix(key, pb.AttrHTTPHeaderPrefix); ok && !strings.EqualFold(name, "accept") && !strings.EqualFold(name, "user-agent") {
				delete(src.Attrs, key) // it may be a token
			}
		}
	}
	if meta := op.GetExec().GetMeta(); meta != nil {
		meta.ProxyEnv = nil
		meta.Env = slices.DeleteFunc(meta.Env, func(kv string) bool {
			name, _, _ := strings.Cut(kv, "=")
			return isProxy(name)
		})
		for i, kv := range meta.Env {
			if name, value, ok := strings.Cut(kv, "="); ok {
				meta.Env[i] = name + "=" + Clean(value)
			}
		}
	}
}

// results is how many results an operation may have.
func results(op *pb.Op) int {
	n := 1
	for _, m := range op.GetExec().GetMounts() {
		n = max(n, int(m.Output)+1)
	}
	for _, a := range op.GetFile().GetActions() {
		n = max(n, int(a.Output)+1)
	}
	return n
}
