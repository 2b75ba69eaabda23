package build

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

var errNothing = errors.New("nothing is lent here")

// poor lends nothing, but knows one image without layers.
type poor struct{ Store }

func (poor) Resolve(context.Context, ImageRequest, func(Transfer)) (Image, error) {
	return Image{Manifest: ocispec.Descriptor{Digest: emptyKey}, Config: []byte(`{}`)}, nil
}
func (poor) Fetch(context.Context, ImageRequest, Image, func(Transfer)) error { return nil }
func (poor) Needed(context.Context) ([]digest.Digest, error)                  { return nil, nil }
func (poor) Has(context.Context, digest.Digest) (bool, error)                 { return false, nil }
func (poor) Prepare(context.Context, string, digest.Digest) (snapshot.Mount, error) {
	return snapshot.Mount{}, errNothing
}
func (poor) View(context.Context, digest.Digest) (snapshot.Mount, error) {
	return snapshot.Mount{}, errNothing
}
func (poor) Discard(context.Context, string) error                 { return nil }
func (poor) Pin(context.Context, []digest.Digest) error            { return nil }
func (poor) Size(context.Context, digest.Digest) (int64, error)    { return 0, nil }
func (poor) Attach(context.Context, string, string) (Place, error) { return Place{}, errNothing }
func (poor) Detach(context.Context, string) error                  { return nil }

// mute is a client that has nothing and hears nothing.
type mute struct{ Session }

func (mute) Client() string                                                     { return "" }
func (mute) Local(context.Context, LocalRequest, string, func(int, bool)) error { return errNothing }
func (mute) Secret(context.Context, string) ([]byte, error) {
	return nil, fault.New(fault.NotFound, "no secret")
}
func (mute) SSH(context.Context, string) (net.Conn, error)            { return nil, errNothing }
func (mute) Credentials(context.Context, string) (Credentials, error) { return Credentials{}, nil }
func (mute) Vertex(VertexStatus)                                      {}
func (mute) Status(TaskStatus)                                        {}
func (mute) Log(digest.Digest, int, []byte)                           {}
func (mute) Warn(digest.Digest, Warning)                              {}

// definition makes a definition of operations, each of which stands on the one
// before it.
func definition(ops ...*pb.Op) *pb.Definition {
	def := &pb.Definition{}
	var last digest.Digest
	for i, op := range append(ops, &pb.Op{}) {
		if i > 0 && len(op.Inputs) == 0 {
			op.Inputs = []*pb.Input{{Digest: last.String()}}
		}
		data, err := op.MarshalVT()
		if err != nil {
			panic(err)
		}
		last = digest.FromBytes(data)
		def.Def = append(def.Def, data)
	}
	return def
}

func busybox() *pb.Op {
	return &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: "docker-image://docker.io/library/busybox:latest"}}}
}

func running(x *pb.ExecOp) *pb.Op { return &pb.Op{Op: &pb.Op_Exec{Exec: x}} }

func filed(actions ...*pb.FileAction) *pb.Op {
	return &pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: actions}}}
}

// odd are definitions that no front end makes.
func odd() map[string]*pb.Definition {
	root := &pb.Mount{Dest: "/", Input: 0}
	sh := &pb.Meta{Args: []string{"true"}, Cwd: "/"}
	copies := func(in, second int64) *pb.FileAction {
		return &pb.FileAction{Input: in, SecondaryInput: second, Output: 0, Action: &pb.FileAction_Copy{Copy: &pb.FileActionCopy{Src: "/", Dest: "/"}}}
	}
	return map[string]*pb.Definition{
		"nothing":                    definition(),
		"an operation of nothing":    definition(busybox(), &pb.Op{}, &pb.Op{}),
		"a step of nothing":          definition(busybox(), running(nil)),
		"a step without a process":   definition(busybox(), running(&pb.ExecOp{Mounts: []*pb.Mount{root}})),
		"a step without mounts":      definition(busybox(), running(&pb.ExecOp{Meta: sh})),
		"a mount of nothing":         definition(busybox(), running(&pb.ExecOp{Meta: sh, Mounts: []*pb.Mount{nil, root}})),
		"a mount of input 7":         definition(busybox(), running(&pb.ExecOp{Meta: sh, Mounts: []*pb.Mount{root, {Dest: "/m", Input: 7, Output: -1}}})),
		"a mount of input -7":        definition(busybox(), running(&pb.ExecOp{Meta: sh, Mounts: []*pb.Mount{{Dest: "/", Input: -7}, {Dest: "/m", Input: -7, Output: -9}}})),
		"a cache without options":    definition(busybox(), running(&pb.ExecOp{Meta: sh, Mounts: []*pb.Mount{root, {Dest: "/m", Input: -1, Output: -1, MountType: pb.MountType_CACHE}}})),
		"a secret without options":   definition(busybox(), running(&pb.ExecOp{Meta: sh, Mounts: []*pb.Mount{root, {Dest: "/m", Input: -1, Output: -1, MountType: pb.MountType_SECRET}}})),
		"an agent without options":   definition(busybox(), running(&pb.ExecOp{Meta: sh, Mounts: []*pb.Mount{root, {Dest: "/m", Input: -1, Output: -1, MountType: pb.MountType_SSH}}})),
		"a mount of another type":    definition(busybox(), running(&pb.ExecOp{Meta: sh, Mounts: []*pb.Mount{root, {Dest: "/m", Input: -1, Output: -1, MountType: 99}}})),
		"an ulimit of nothing":       definition(busybox(), running(&pb.ExecOp{Meta: &pb.Meta{Args: []string{"true"}, Ulimit: []*pb.Ulimit{nil}, ExtraHosts: []*pb.HostIP{nil}}, Mounts: []*pb.Mount{root}})),
		"a secret of nothing":        definition(busybox(), running(&pb.ExecOp{Meta: sh, Secretenv: []*pb.SecretEnv{nil}, Mounts: []*pb.Mount{root}})),
		"files of nothing":           definition(busybox(), &pb.Op{Op: &pb.Op_File{}}),
		"an action of nothing":       definition(busybox(), filed(nil)),
		"an action without an act":   definition(busybox(), filed(&pb.FileAction{})),
		"a copy of nothing":          definition(busybox(), filed(&pb.FileAction{Action: &pb.FileAction_Copy{}})),
		"a file of nothing":          definition(busybox(), filed(&pb.FileAction{Action: &pb.FileAction_Mkfile{}})),
		"a directory of nothing":     definition(busybox(), filed(&pb.FileAction{Action: &pb.FileAction_Mkdir{}})),
		"a removal of nothing":       definition(busybox(), filed(&pb.FileAction{Action: &pb.FileAction_Rm{}})),
		"a link of nothing":          definition(busybox(), filed(&pb.FileAction{Action: &pb.FileAction_Symlink{}})),
		"a copy to itself":           definition(busybox(), filed(copies(1, 1))),
		"a copy from input 9":        definition(busybox(), filed(copies(0, 9))),
		"a copy from input -9":       definition(busybox(), filed(copies(-9, -9))),
		"a copy that another begins": definition(busybox(), filed(copies(2, 0), copies(0, 0))),
		"an output of 1<<40":         definition(busybox(), filed(&pb.FileAction{Output: 1 << 40, Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/x"}}})),
		"an owner of input 9":        definition(busybox(), filed(&pb.FileAction{Action: &pb.FileAction_Mkdir{Mkdir: &pb.FileActionMkDir{Path: "/x", Owner: &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByName{}}}}}})),
		"an input of nothing":        {Def: append(definition(busybox()).Def[:1], []byte{0x0a, 0x00})},
		"a merge of nothing":         definition(busybox(), &pb.Op{Op: &pb.Op_Merge{}}),
		"a diff of nothing":          definition(busybox(), &pb.Op{Op: &pb.Op_Diff{}}),
		"a diff of halves":           definition(busybox(), &pb.Op{Op: &pb.Op_Diff{Diff: &pb.DiffOp{}}}),
		"a merge of input 9":         definition(busybox(), &pb.Op{Op: &pb.Op_Merge{Merge: &pb.MergeOp{Inputs: []*pb.MergeInput{{Input: 9}, nil}}}}),
		"a source of nothing":        definition(&pb.Op{Op: &pb.Op_Source{}}),
		"a build of nothing":         definition(busybox(), &pb.Op{Op: &pb.Op_Build{}}),
		"no bytes":                   {Def: [][]byte{nil, nil}},
	}
}

// solveOdd solves a definition with a store that lends nothing: what comes of it is
// an error, and no panic.
func solveOdd(t *testing.T, def *pb.Definition) error {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(t.Context(), Config{Store: poor{}, Steps: dir, Root: dir})
	if err != nil {
		t.Fatal(err)
	}
	j := s.Job(mute{}, mute{}, JobOptions{})
	defer j.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	_, err = j.Solve(ctx, def)
	return err
}

// What a client calls a build may be anything (CVE-2024-23650).
func TestOddDefinitions(t *testing.T) {
	for name, def := range odd() {
		t.Run(name, func(t *testing.T) {
			if err := solveOdd(t, def); err == nil && name != "no bytes" && name != "a diff of halves" { // these come to nothing at all
				t.Error("it was carried out")
			}
		})
	}
}

// A network that there is none of is neither the host's nor a step's.
func TestOddNetwork(t *testing.T) {
	for _, mode := range []pb.NetMode{-1, 3, 99} {
		def := definition(busybox(), running(&pb.ExecOp{Network: mode, Meta: &pb.Meta{Args: []string{"true"}, Cwd: "/"}, Mounts: []*pb.Mount{{Dest: "/", Input: 0}}}))
		if err := solveOdd(t, def); err == nil || !strings.Contains(err.Error(), "which is none") {
			t.Errorf("%d: %v", mode, err)
		}
	}
}

func FuzzDefinition(f *testing.F) {
	for _, def := range odd() {
		data, err := def.MarshalVT()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var def pb.Definition
		if def.UnmarshalVT(data) != nil {
			return
		}
		for _, op := range def.Def {
			var o pb.Op
			if o.UnmarshalVT(op) == nil && o.GetSource() != nil && !strings.HasPrefix(o.GetSource().Identifier, "docker-image://") {
				return // it would ask the network, or a program of this machine
			}
		}
		_ = solveOdd(t, &def)
	})
}
