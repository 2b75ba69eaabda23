package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/session/upload/uploadprovider"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"
)

// lend says where the context and the Dockerfile are. Until done they may lie in a
// temporary directory.
func (r *request) lend(in io.Reader, o *client.SolveOpt) (done func(), err error) {
	done = func() {}
	dockerfile := r.file
	switch {
	case r.place == "-" && r.file == "-":
		return done, errors.New("invalid argument: can't use stdin for both build context and dockerfile")
	case r.place == "-":
		buffered := bufio.NewReaderSize(in, 1024)
		if head, _ := buffered.Peek(512); isArchive(head) {
			up := uploadprovider.New()
			o.FrontendAttrs["context"] = up.Add(io.NopCloser(buffered))
			o.Session = append(o.Session, up)
			break
		}
		if done, err = r.fromPipe(buffered, o); err != nil {
			return done, err
		}
		empty, err := os.MkdirTemp("", "tare-build")
		if err != nil {
			return done, err
		}
		drop := done
		done = func() { drop(); os.Remove(empty) }
		return done, lendDir(o, "context", empty)
	case isRemote(r.place):
		o.FrontendAttrs["context"] = r.place
	default:
		if st, err := os.Stat(r.place); err != nil || !st.IsDir() {
			return done, fmt.Errorf("unable to prepare context: path %q not found", r.place)
		}
		if err := lendDir(o, "context", r.place); err != nil {
			return done, err
		}
		if dockerfile == "" {
			dockerfile = filepath.Join(r.place, "Dockerfile")
		}
	}
	switch {
	case dockerfile == "-":
		drop, err := r.fromPipe(in, o)
		return drop, err
	case o.LocalMounts["context"] == nil: // in the context, wherever that is
		if dockerfile != "" {
			o.FrontendAttrs["filename"] = dockerfile
		}
		return done, nil
	}
	o.FrontendAttrs["filename"] = filepath.Base(dockerfile)
	return done, lendDir(o, "dockerfile", filepath.Dir(dockerfile))
}

// fromPipe has a Dockerfile that comes from a pipe lie in a directory.
func (r *request) fromPipe(in io.Reader, o *client.SolveOpt) (done func(), err error) {
	dir, err := os.MkdirTemp("", "tare-build")
	if err != nil {
		return func() {}, err
	}
	done = func() { os.RemoveAll(dir) }
	text, err := io.ReadAll(in)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "Dockerfile"), text, 0o600)
	}
	o.FrontendAttrs["filename"] = "Dockerfile"
	return done, errors.Join(err, lendDir(o, "dockerfile", dir))
}

func lendDir(o *client.SolveOpt, name, dir string) error {
	tree, err := fsutil.NewFS(dir)
	if err != nil {
		return fmt.Errorf("unable to prepare context: %w", err)
	}
	o.LocalMounts[name] = tree
	return nil
}

// isArchive tells whether a file begins as a tar does, or one that is compressed.
func isArchive(head []byte) bool {
	for _, magic := range []string{"\x1f\x8b", "BZh", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return len(head) >= 263 && string(head[257:262]) == "ustar"
}

func isRemote(place string) bool {
	if _, ok, _ := dockerui.DetectGitContext(place, nil); ok {
		return true
	}
	return strings.HasPrefix(place, "http://") || strings.HasPrefix(place, "https://")
}

// named are the contexts beside the main one.
func (r *request) named(o *client.SolveOpt) error {
	for i, kv := range r.contexts {
		name, place, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return fmt.Errorf("invalid context value: %s, expected key=value", kv)
		}
		if strings.HasPrefix(place, "docker-image://") || strings.HasPrefix(place, "target:") || isRemote(place) {
			o.FrontendAttrs["context:"+name] = place
			continue
		}
		if dir, ok := strings.CutPrefix(place, layoutScheme); ok {
			lent, err := lendLayout(o, dir)
			if err != nil {
				return err
			}
			o.FrontendAttrs["context:"+name] = lent
			continue
		}
		if st, err := os.Stat(place); err != nil || !st.IsDir() {
			return fmt.Errorf("failed to get build context %s: %s is no directory", name, place)
		}
		local := fmt.Sprintf("context%d-%s", i, digest.FromString(name).Encoded()[:12])
		o.FrontendAttrs["context:"+name] = "local:" + local
		if err := lendDir(o, local, place); err != nil {
			return err
		}
	}
	return nil
}
