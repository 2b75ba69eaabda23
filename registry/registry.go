// Package registry is the server of images: the API of the OCI distribution
// specification 1.1, with what Docker's clients expect of it, over a Storage.
package registry

import (
	"log/slog"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/registry/storage"
)

// Config is what a registry is made of.
type Config struct {
	Storage storage.Storage
	// Authorizer is asked before anything is read or changed; nil lets everybody
	// do everything.
	Authorizer Authorizer
	// Rules bind what may be pushed; nil binds nothing.
	Rules Rules
	// Observe is told of what was acknowledged. It must not wait.
	Observe func(Event)
	// Redirect sends clients that want a blob to the storage itself where it has
	// addresses (storage.Blob.Location).
	Redirect bool
	// Names gives the repository that a name means for a client that takes the
	// registry for another one and says which: containerd sends its mirrors
	// ?ns=docker.io. It is false for one that this registry is no copy of. nil
	// leaves ns aside.
	Names func(repo, ns string) (string, bool)
	// MaxBlob and MaxManifest are how many bytes one may have. 0 is no limit for a
	// blob, and manifest.MaxSize, which is also the most, for a manifest.
	MaxBlob, MaxManifest int64
	Log                  *slog.Logger
	// State is that of the handler in whose place this one comes; nil begins anew.
	State *State
}

// Action is what somebody wants to do with a repository. The words are those of
// Docker's token protocol.
type Action string

// The actions. Listing the catalog asks for Pull of each repository it shows.
const (
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
)

// Access is an action on a repository; both are "" for GET /v2/ itself.
type Access struct {
	Repository string
	Action     Action
}

// Authorizer decides who may do what.
type Authorizer interface {
	// Authorize returns the name of who asks ("" for nobody in particular) when
	// all of it is allowed. Otherwise the error is a *Challenge where credentials
	// are missing or wrong, or fault.Forbidden where they do not suffice. To mount
	// from a repository that may not be pulled is no error of the request: the
	// caller asks for that apart.
	Authorize(r *http.Request, want ...Access) (user string, err error)
}

// Challenge asks for credentials. It is fault.Unauthorized.
type Challenge struct {
	Header string // of WWW-Authenticate
	Err    error  // the sentence for the user
}

// Rules are what the owner of a registry has set for repositories.
type Rules interface {
	// Immutable tells whether the tag, once set, stays as it is.
	Immutable(repo, tag string) bool
	// Quota is how many bytes the repository may have; 0 is no limit.
	Quota(repo string) int64
}

// Event is something that happened to a repository.
type Event struct {
	Time       time.Time
	Action     Action // Pull, Push or Delete
	Repository string
	Digest     digest.Digest
	Tag        string // if the request named one
	MediaType  string // "application/octet-stream" for a blob
	Size       int64
	From       string // the repository that a blob was mounted from
	User       string
	Method     string
	Host       string // as the client calls the registry
	TLS        bool   // the client speaks TLS, to it or to a proxy before it
	RemoteAddr string
	UserAgent  string
	RequestID  string
}

// Outcome is what a request came to.
type Outcome struct {
	User          string // "" for nobody in particular
	Code, Message string // as the client was told; "" if nothing was wrong
}

// Reporter is a ResponseWriter that is told what its request came to, as that
// of an access log.
type Reporter interface{ Report(Outcome) }

func (c *Challenge) Error() string { return c.Err.Error() }
func (c *Challenge) Unwrap() error { return c.Err }
