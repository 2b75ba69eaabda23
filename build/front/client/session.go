// Package client is the client of a build, which lends its files, secrets and
// credentials to it by a session.
package client

import (
	"context"
	"io"
	"net"
	"net/url"
	"strings"

	containerd "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/session/sshforward"
	"github.com/moby/buildkit/session/upload"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
)

// Session is a client's session as the solver sees it.
type Session struct {
	Caller session.Caller
	ID     string
	Find   func(ctx context.Context, id string) (session.Caller, error)
}

var (
	_ build.Session   = (*Session)(nil)
	_ build.Uploader  = (*Session)(nil)
	_ build.Companion = (*Session)(nil)
)

// Of is the session with the ID, which only its client knows.
func (l *Session) Of(ctx context.Context, id string) (build.Session, error) {
	if id == l.ID {
		return l, nil
	}
	caller, err := l.Find(ctx, id)
	if err != nil {
		return nil, err
	}
	return &Session{caller, id, l.Find}, nil
}

// Client tells clients apart by the key that they say, which is the same for one
// directory of one user.
func (l *Session) Client() string { return l.Caller.SharedKey() }

func (l *Session) Local(ctx context.Context, r build.LocalRequest, dir string, moved func(int, bool)) error {
	differ := fsutil.DiffMetadata
	if r.Differ == "none" {
		differ = fsutil.DiffNone
	}
	times, keep := newDirTimes(dir), keepInodes(dir)
	err := filesync.FSSync(ctx, l.Caller, filesync.FSSendRequestOpt{
		Name: r.Name, IncludePatterns: r.Include, ExcludePatterns: r.Exclude, FollowPaths: r.Follow, DestDir: dir, Differ: differ,
		MetadataOnly: r.MetadataOnly, Filter: func(name string, st *types.Stat) bool {
			times.see(name, st)
			return keep(name, st)
		}, ProgressCb: moved,
	})
	if err != nil || r.MetadataOnly {
		return Gone(err)
	}
	return times.set()
}

// Upload takes what the client was given on its standard input.
func (l *Session) Upload(ctx context.Context, u *url.URL, to io.Writer) error {
	from, err := upload.New(ctx, l.Caller, u)
	if err == nil {
		_, err = from.WriteTo(to)
	}
	return Gone(err)
}

// Content reads a blob of one of the client's stores.
func (l *Session) Content(ctx context.Context, store string, d ocispec.Descriptor, to func(io.Reader) error) error {
	from := content.NewCallerStore(l.Caller, store)
	if d.Size == 0 {
		info, err := from.Info(ctx, d.Digest)
		if err != nil {
			return Gone(err)
		}
		d.Size = info.Size
	}
	r, err := from.ReaderAt(ctx, d)
	if err != nil {
		return Gone(err)
	}
	defer r.Close()
	return Gone(to(io.NewSectionReader(r, 0, d.Size)))
}

// Keep writes a blob to one of the client's stores, unless it has it.
func (l *Session) Keep(ctx context.Context, store string, d ocispec.Descriptor, r io.Reader) error {
	err := containerd.WriteBlob(ctx, content.NewCallerStore(l.Caller, store), "tare-"+d.Digest.Encoded(), r, d)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return Gone(err)
}

func (l *Session) Secret(ctx context.Context, id string) ([]byte, error) {
	data, err := secrets.GetSecret(ctx, l.Caller, id)
	if err != nil && strings.Contains(err.Error(), secrets.ErrNotFound.Error()) {
		return nil, fault.New(fault.NotFound, "secret %s: not found", id)
	}
	return data, Gone(err)
}

// SSH connects to an agent of the client's.
func (l *Session) SSH(ctx context.Context, id string) (net.Conn, error) {
	if id == "" {
		id = sshforward.DefaultID
	}
	agent := sshforward.NewSSHClient(l.Caller.Conn())
	switch _, err := agent.CheckAgent(ctx, &sshforward.CheckAgentRequest{ID: id}); status.Code(err) {
	case codes.OK:
	case codes.Unimplemented:
		return nil, fault.New(fault.NotFound, "no SSH key %q forwarded from the client", id)
	default:
		return nil, Gone(err)
	}
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(ctx, metadata.Pairs(sshforward.KeySSHID, id)))
	stream, err := agent.ForwardAgent(ctx)
	if err != nil {
		cancel()
		return nil, Gone(err)
	}
	near, far := net.Pipe()
	go func() { // until one end is closed
		defer cancel()
		_ = sshforward.Copy(ctx, far, stream, stream.CloseSend)
	}()
	return near, nil
}

func (l *Session) Credentials(ctx context.Context, host string) (build.Credentials, error) {
	if host == "docker.io" {
		host = "https://index.docker.io/v1/"
	}
	resp, err := auth.NewAuthClient(l.Caller.Conn()).Credentials(ctx, &auth.CredentialsRequest{Host: host})
	switch status.Code(err) {
	case codes.OK:
	case codes.Unimplemented, codes.NotFound:
		return build.Credentials{}, nil
	default:
		return build.Credentials{}, Gone(err)
	}
	if resp.Username == "" { // a token that stands for the user
		return build.Credentials{IdentityToken: resp.Secret}, nil
	}
	return build.Credentials{Username: resp.Username, Password: resp.Secret}, nil
}

// Gone says what went wrong at the client.
func Gone(err error) error {
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.Unavailable, codes.Canceled:
		return fault.New(fault.Unavailable, "the client of the build has gone: %w", err)
	}
	return err
}
