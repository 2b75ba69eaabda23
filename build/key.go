package build

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	"github.com/tarehq/tare/fault"
)

// keyVersion is part of every key, and raised when an operation comes to
// something else than before.
const keyVersion = "4"

// keys are what makes a vertex equal to another: what it does, by its definition
// without what does not change the result, and what it does it to. By the exact one,
// files that it only reads count by their content, and trees that it works on by
// their chain. The quick one has the chain of all that is made of layers, so that no
// file need be here; it is "" where it would be the exact one.
type keys struct {
	quick digest.Digest
	exact digest.Digest // "" if not known
}

// keys makes the quick key and, unless files must be read for it that may have to
// be fetched, the exact one. With read the files are here.
func (j *Job) keys(ctx context.Context, v *vertex, inputs []*output, reads map[int][]selector, read bool) (k keys, err error) {
	op := proto.CloneOf(v.op)
	for _, in := range op.Inputs {
		in.Digest = "" // by what they came to
	}
	op.Constraints = nil
	if x := op.GetExec(); x != nil && x.Meta != nil {
		x.Meta.ProxyEnv = nil // how the network is reached
	}
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(op)
	if err != nil {
		return k, err
	}
	quick, exact, same := sha256.New(), sha256.New(), true
	all := io.MultiWriter(quick, exact)
	fmt.Fprintf(all, "%s %d %d\n", keyVersion, j.options.Epoch.Unix(), len(data))
	all.Write(data)
	for i, o := range inputs {
		selectors, byContent := reads[i]
		if !byContent && o.dir == "" {
			fmt.Fprintf(all, "chain %d %s\n", i, o.chain())
			continue
		}
		to := all
		if o.dir == "" {
			fmt.Fprintf(quick, "chain %d %s\n", i, o.chain())
			same, to = false, exact
		}
		if o.dir == "" && !read {
			continue
		}
		sum, err := j.solver.content(ctx, o, selectors)
		if err != nil {
			return k, err
		}
		fmt.Fprintf(to, "content %d %s\n", i, sum)
	}
	if !same {
		k.quick = digest.NewDigest(digest.SHA256, quick)
	}
	if same || read {
		k.exact = digest.NewDigest(digest.SHA256, exact)
	}
	return k, nil
}

// selector is a part of a tree.
type selector struct {
	path             string
	wildcards        bool // the path may have some
	include, exclude []string
	follow           bool // of a link, what it leads to
}

// contentInputs finds the inputs of which an operation only reads files: they
// count by their content.
func contentInputs(op *pb.Op) map[int][]selector {
	found := map[int][]selector{}
	if x := op.GetExec(); x != nil {
		written := map[int64]bool{}
		for _, m := range x.Mounts {
			if m.Output >= 0 || m.Dest == pb.RootMount || !m.Readonly {
				written[m.Input] = true
			}
		}
		for _, m := range x.Mounts {
			if m.MountType == pb.MountType_BIND && m.Input >= 0 && !written[m.Input] {
				found[int(m.Input)] = append(found[int(m.Input)], selector{path: m.Selector, follow: true})
			}
		}
	}
	if f := op.GetFile(); f != nil {
		used := map[int64]bool{} // as the tree that is worked on, or for its users
		for _, a := range f.Actions {
			used[a.Input] = true
			if c := a.GetCopy(); c != nil {
				for _, u := range []*pb.UserOpt{c.Owner.GetUser(), c.Owner.GetGroup()} {
					if n := u.GetByName(); n != nil {
						used[n.Input] = true
					}
				}
			}
		}
		for _, a := range f.Actions {
			if c := a.GetCopy(); c != nil && a.SecondaryInput >= 0 && a.SecondaryInput < int64(len(op.Inputs)) && !used[a.SecondaryInput] {
				i := int(a.SecondaryInput)
				found[i] = append(found[i], selector{c.Src, c.AllowWildcard, c.IncludePatterns, c.ExcludePatterns, c.FollowSymlink})
			}
		}
	}
	return found
}

// content hashes what is selected of a tree: names, modes, owners, links and
// bytes, and no times.
func (s *Solver) content(ctx context.Context, o *output, selectors []selector) (digest.Digest, error) {
	t, err := s.open(ctx, o)
	if err != nil {
		return "", err
	}
	defer t.Close()
	h := &hasher{Hash: sha256.New()}
	if strings.HasPrefix(o.dir, s.sources.dir+"/") {
		h.sums = s.sums
	}
	for _, sel := range selectors {
		// Patterns are part of the definition; what they leave out makes the key
		// narrower than need be, and not wrong.
		names := []string{sel.path}
		if sel.wildcards {
			var err error
			if names, err = t.glob(sel.path); err != nil {
				return "", err
			}
		}
		fmt.Fprintf(h, "select %q\n", sel.path)
		for _, name := range names {
			err := hashTree(ctx, h, t, name, sel.follow)
			if errors.Is(err, fs.ErrNotExist) { // in BuildKit's words
				err = fault.New(fault.NotFound, "failed to compute cache key: failed to calculate checksum of ref %s: %q: not found", o.title(), name)
			}
			if err != nil {
				return "", err
			}
		}
	}
	if len(selectors) == 0 {
		if err := hashTree(ctx, h, t, "/", true); err != nil {
			return "", err
		}
	}
	return digest.NewDigest(digest.SHA256, h), nil
}

// title names an output in an error.
func (o *output) title() string {
	if o.dir != "" {
		return filepath.Base(filepath.Dir(o.dir))
	}
	return o.chain().String()
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

func joinWords(words []string) string { return strings.Join(words, " ") }
