// Package foreign has the keys by which BuildKit knows operations, so that caches that
// it wrote can be used: a digest of what an operation does, and for each of its inputs
// a digest of which part of it counts and one of what is in that part. They are made of
// BuildKit's own structures, by the rules of its versions since 0.10.
package foreign

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Operation is how BuildKit knows one.
type Operation struct {
	Digest digest.Digest
	Inputs []Input
}

// Input is how it knows an input of an operation.
type Input struct {
	Selector  digest.Digest // which part of the input counts; "" for all
	ByContent bool          // what is in it can stand for the input
	Parts     []Part        // that count by their content; none for all
}

// Part is a part of a tree.
type Part struct {
	Path             string
	Wildcard, Follow bool
	Include, Exclude []string
	Required         []string
}

func (p Part) filtered() bool { return p.Wildcard || len(p.Include) > 0 || len(p.Exclude) > 0 }

// Root is the digest of a record, of which an operation's result i is one: -1 is content.
func Root(key digest.Digest, i int) digest.Digest {
	return digest.FromBytes(fmt.Appendf(nil, "%s@%d", key, i))
}

// Of tells how BuildKit knows an operation; ok is false for those that are not told apart.
func Of(op *pb.Op) (o Operation, ok bool) {
	n := len(op.Inputs)
	switch x := op.Op.(type) {
	case *pb.Op_Exec:
		return execution(x.Exec, op.Platform, n)
	case *pb.Op_File:
		return files(x.File, n)
	}
	return Operation{}, false
}

// Image is the key of an image's source.
func Image(manifest digest.Digest, p ocispec.Platform) digest.Digest {
	text, _ := json.Marshal(struct {
		Digest     digest.Digest
		OS         string
		Arch       string
		Variant    string   `json:",omitempty"`
		OSVersion  string   `json:",omitempty"`
		OSFeatures []string `json:",omitempty"`
	}{manifest, p.OS, p.Architecture, p.Variant, p.OSVersion, p.OSFeatures})
	return source(digest.FromBytes(text).String())
}

// Layers is the key that older versions give an image by its layers.
func Layers(chain digest.Digest) digest.Digest { return source(chain.String()) }

func source(key string) digest.Digest { return digest.FromString("buildkit.source.v0:" + key) }

func execution(x *pb.ExecOp, p *pb.Platform, inputs int) (o Operation, ok bool) {
	x = x.CloneVT()
	if x.Meta == nil {
		return o, false
	}
	o.Inputs = make([]Input, inputs)
	var chosen = make([][]string, inputs)
	for _, m := range x.Mounts {
		switch m.MountType {
		case pb.MountType_SECRET, pb.MountType_SSH, pb.MountType_TMPFS:
			continue
		}
		if m.Input < 0 {
			continue
		}
		if int(m.Input) >= inputs {
			return o, false
		}
		where := path.Join("/", m.Selector)
		chosen[m.Input] = append(chosen[m.Input], where)
		o.Inputs[m.Input].ByContent = countsByContent(m, where)
	}
	for i, list := range chosen {
		in := &o.Inputs[i]
		if len(list) == 0 {
			continue
		}
		in.Selector = digest.FromString(strings.Join(list, "\x00"))
		for _, where := range outermost(list) {
			if where == "/" {
				in.Parts = nil
				break
			}
			in.Parts = append(in.Parts, Part{Path: where, Follow: true})
		}
	}
	for _, h := range x.Meta.ExtraHosts {
		h.IP = ""
	}
	for _, m := range x.Mounts {
		m.Selector = ""
		if c := m.CacheOpt; c != nil && !isOwnCache(m) {
			c.ID, c.Sharing = "", 0
		}
	}
	x.Meta.ProxyEnv = nil
	if len(x.Mounts) == 1 && isPlainRoot(x.Mounts[0]) { // as versions had it that left mounts out
		x.Mounts = nil
	}
	text, err := json.Marshal(struct {
		Type       string
		Exec       *pb.ExecOp
		OS         string
		Arch       string
		Variant    string   `json:",omitempty"`
		OSVersion  string   `json:",omitempty"`
		OSFeatures []string `json:",omitempty"`
	}{"buildkit.exec.v0", x, p.GetOS(), p.GetArchitecture(), p.GetVariant(), p.GetOSVersion(), p.GetOSFeatures()})
	o.Digest = digest.FromBytes(text)
	return o, err == nil && p != nil
}

// countsByContent tells whether what is in a mount can stand for it.
func countsByContent(m *pb.Mount, where string) bool {
	switch m.ContentCache {
	case pb.MountContentCache_OFF:
		return false
	case pb.MountContentCache_DEFAULT:
		if m.Dest == pb.RootMount {
			return false
		}
	}
	return m.Output == int64(pb.SkipOutput) || m.Readonly || where == pb.RootMount
}

// isOwnCache tells whether a cache has the name that a Dockerfile gives it by itself.
func isOwnCache(m *pb.Mount) bool {
	if m.CacheOpt.Sharing != 0 {
		return false
	}
	_, rest, found := strings.Cut(m.CacheOpt.ID, "/")
	return m.CacheOpt.ID == m.Dest || found && rest == m.Dest
}

func isPlainRoot(m *pb.Mount) bool {
	return m.Dest == pb.RootMount && !m.Readonly && m.MountType == pb.MountType_BIND && m.CacheOpt == nil && m.SSHOpt == nil && m.SecretOpt == nil && m.ResultID == ""
}

// outermost leaves out paths that lie in others.
func outermost(list []string) (kept []string) {
	for _, p := range list {
		if !slices.ContainsFunc(list, func(q string) bool { return q != p && strings.HasPrefix(p, strings.TrimSuffix(q, "/")+"/") }) {
			kept = append(kept, p)
		}
	}
	slices.Sort(kept)
	return slices.Compact(kept)
}

func files(f *pb.FileOp, inputs int) (o Operation, ok bool) {
	o.Inputs = make([]Input, inputs)
	parts, whole := map[int][]Part{}, map[int]bool{} // of inputs; those that are worked on
	var actions [][]byte
	var places [][]int
	for _, a := range f.Actions {
		text, ok := action(a, inputs, parts)
		if !ok {
			return o, false
		}
		whole[int(a.Input)] = true
		actions = append(actions, text)
		places = append(places, []int{int(a.Input), int(a.SecondaryInput), int(a.Output)})
	}
	if usual(places) {
		places = nil
	}
	text, err := json.Marshal(struct {
		Type    string
		Actions [][]byte
		Indexes [][]int `json:"indexes,omitempty"`
	}{"buildkit.file.v0", actions, places})
	if err != nil {
		return o, false
	}
	o.Digest = digest.FromBytes(text)
	for i, list := range parts {
		if i >= inputs {
			return o, false
		}
		if whole[i] {
			continue
		}
		var names [][]byte
		for _, p := range list {
			names = append(names, []byte(p.Path))
		}
		slices.SortFunc(names, func(a, b []byte) int { return bytes.Compare(b, a) })
		o.Inputs[i] = Input{Selector: digest.FromBytes(bytes.Join(names, []byte{0})), ByContent: true, Parts: joined(list)}
	}
	return o, true
}

// action is the text of one, and notes which parts of inputs it reads.
func action(a *pb.FileAction, inputs int, parts map[int][]Part) (text []byte, ok bool) {
	var err error
	owner := func(c *pb.ChownOpt) {
		for _, u := range []struct {
			opt  *pb.UserOpt
			file string
		}{{c.GetUser(), "/etc/passwd"}, {c.GetGroup(), "/etc/group"}} {
			if n := u.opt.GetByName(); n != nil {
				parts[int(n.Input)] = append(parts[int(n.Input)], Part{Path: u.file, Follow: true})
			}
		}
	}
	switch x := a.Action.(type) {
	case *pb.FileAction_Mkdir:
		owner(x.Mkdir.GetOwner())
		text, err = json.Marshal(x.Mkdir)
	case *pb.FileAction_Mkfile:
		owner(x.Mkfile.GetOwner())
		text, err = json.Marshal(x.Mkfile)
	case *pb.FileAction_Symlink:
		owner(x.Symlink.GetOwner())
		text, err = json.Marshal(x.Symlink)
	case *pb.FileAction_Rm:
		text, err = json.Marshal(x.Rm)
	case *pb.FileAction_Copy:
		c := x.Copy.CloneVT()
		owner(c.GetOwner())
		if i := int(a.SecondaryInput); i >= 0 && i < inputs {
			parts[i] = append(parts[i], Part{c.Src, c.AllowWildcard && strings.ContainsAny(c.Src, `*?[`), c.FollowSymlink, c.IncludePatterns, c.ExcludePatterns, c.RequiredPaths})
			c.Src = path.Base(c.Src)
		}
		text, err = json.Marshal(c)
	default:
		return nil, false
	}
	return text, err == nil
}

// usual tells whether each action works on what the one before it made, and reads of
// the second input if of any.
func usual(places [][]int) bool {
	for i, p := range places {
		in := 0
		if i > 0 {
			in = len(places) + i - 1
		}
		last := i == len(places)-1
		if p[0] != in || p[1] != -1 && p[1] != 1 || last && p[2] != 0 || !last && p[2] != -1 {
			return false
		}
	}
	return len(places) > 0
}

// joined leaves out what lies in other parts.
func joined(list []Part) (kept []Part) {
	var plain, followed []string
	for _, p := range list {
		switch {
		case p.filtered():
			kept = append(kept, p)
		case p.Follow:
			followed = append(followed, p.Path)
		default:
			plain = append(plain, p.Path)
		}
	}
	var all []Part
	for _, p := range outermost(plain) {
		all = append(all, Part{Path: p})
	}
	for _, p := range outermost(followed) {
		all = append(all, Part{Path: p, Follow: true})
	}
	all = append(all, kept...)
	slices.SortStableFunc(all, func(a, b Part) int { return cmp.Compare(a.Path, b.Path) })
	return all
}
