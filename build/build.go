// Package build turns a graph of operations into layers: the solver, its
// operations and its cache. The language, Dockerfiles, is BuildKit's and above
// it (build/front); the store of layers and images is the daemon's and below
// (build/lend).
//
//	Solver.Solve   a definition (LLB) → a Result, a chain of layers
//	graph.go       the definition, decoded and checked
//	key.go         what makes two vertices equal
//	cache.go       keys → chains, on disk, with its ceilings
//	run.go         RUN; files.go COPY, ADD and the like; source.go where files come from
package build

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/internal/userns"
	"github.com/tarehq/tare/snapshot"
)

// Store is what the daemon lends to builds. Its methods may be called at the
// same time. What Prepare and Attach gave is the builder's until Discard and
// Detach, or until the builder ends.
type Store interface {
	// Resolve finds what a name means, here or else at its registry, of which no
	// layer is fetched. progress may be nil. fault.NotFound if nobody has it.
	Resolve(ctx context.Context, r ImageRequest, progress func(Transfer)) (Image, error)
	// Fetch has the image's layers here, as blobs and unpacked. One that comes from a
	// registry gets the request's name.
	Fetch(ctx context.Context, r ImageRequest, img Image, progress func(Transfer)) error
	// Document reads a manifest or index from its registry.
	Document(ctx context.Context, r ImageRequest) (ocispec.Descriptor, []byte, error)
	// FetchBlob has a blob of the repository that r names here.
	FetchBlob(ctx context.Context, r ImageRequest, d ocispec.Descriptor, progress func(Transfer)) error
	// Unpack makes the layers that are missing of a chain, the lowest first, out of
	// their blobs, which must be here.
	Unpack(ctx context.Context, layers []Layer) error
	// Compress gives a layer's blob, which is here, in another compression: gzip,
	// zstd or uncompressed.
	Compress(ctx context.Context, l Layer, kind string, level int) (ocispec.Descriptor, error)
	// PushContent sends a manifest or index whose blobs are here to a registry, as
	// what the request's name means there.
	PushContent(ctx context.Context, r ImageRequest, target ocispec.Descriptor, progress func(Transfer)) error
	// Difference makes a layer on nothing of what the tree of upper has beyond that of
	// lower.
	Difference(ctx context.Context, lower, upper digest.Digest) (Layer, error)
	// Has tells whether the chain is unpacked here.
	Has(ctx context.Context, chain digest.Digest) (bool, error)
	// Prepare makes a writable tree on a chain. Nothing is mounted by it.
	Prepare(ctx context.Context, id string, chain digest.Digest) (snapshot.Mount, error)
	// View says how the chain's tree is mounted to be read.
	View(ctx context.Context, chain digest.Digest) (snapshot.Mount, error)
	// Seal makes a layer of what the tree id has beyond the chain that it was
	// prepared on, an empty one if it is nothing; nothing may be mounted from it.
	// The tree is used up, unless an error is returned.
	Seal(ctx context.Context, id string, chain digest.Digest, epoch time.Time) (Layer, error)
	// Discard drops a tree. It is no error when it is gone.
	Discard(ctx context.Context, id string) error
	// LayerBlob finds the blob of a layer that was made on the chain below: the one
	// that l says, or the archive, also when Seal made it and only its files were
	// kept; epoch is what Seal was told. fault.NotFound if there is neither.
	LayerBlob(ctx context.Context, below digest.Digest, l Layer, epoch time.Time) (ocispec.Descriptor, error)
	// LayerBlobs does so with several at once, or fails if one cannot be had.
	LayerBlobs(ctx context.Context, layers []Placed, epoch time.Time) ([]ocispec.Descriptor, error)
	// Holds tells whether a blob that is here holds the layer, and is false of one that
	// is not here.
	Holds(ctx context.Context, blob ocispec.Descriptor, diffID digest.Digest) (bool, error)
	// Pin says which chains the cache needs, in place of those of the last call.
	// The daemon lets go of the others when no image and no container has them.
	Pin(ctx context.Context, chains []digest.Digest) error
	// Size is what the chain's topmost layer takes on disk, in bytes.
	Size(ctx context.Context, chain digest.Digest) (int64, error)
	// Needed lists the chains that images have, with those below them.
	Needed(ctx context.Context) ([]digest.Digest, error)
	// Blob opens a blob of the content store.
	Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, error)
	// PutBlob stores one; its bytes must have the digest.
	PutBlob(ctx context.Context, d ocispec.Descriptor, r io.Reader) error
	// Publish gives a manifest or index, whose blobs are here or among the texts, its
	// names, and returns the image's ID. Without names the image is there unnamed.
	Publish(ctx context.Context, target ocispec.Descriptor, names []string, texts [][]byte) (string, error)
	// Push pushes a name to its registry.
	Push(ctx context.Context, name string, auth Credentials, progress func(Transfer)) error
	// Attach gives a step a network namespace, as a path below /proc that holds until
	// Detach: one on a network, "" for the default bridge, or that of "container:" and
	// a container's name.
	Attach(ctx context.Context, id, network string) (Place, error)
	Detach(ctx context.Context, id string) error
}

// ImageRequest asks for an image.
type ImageRequest struct {
	Ref      string // normalized, with a tag or digest
	Platform ocispec.Platform
	Pull     bool          // ask the registry even if it is here
	Local    bool          // never ask a registry
	Target   digest.Digest `json:",omitempty"` // unless "", what the name is known to mean
	Auth     Credentials
}

// Image is an image as it was resolved.
type Image struct {
	Ref      string
	Target   digest.Digest      // what the name points to: an index or manifest
	Manifest ocispec.Descriptor // of the platform
	Config   []byte             // as stored, JSON
	Layers   []Layer            // the lowest first; they need not be here
}

// Credentials are for a registry. The zero value asks nobody.
type Credentials struct {
	Username, Password, IdentityToken, RegistryToken string
}

// Transfer is a message of a pull or push, for one blob.
type Transfer struct {
	ID, Action     string
	Current, Total int64
}

// Layer is one layer of a chain.
type Layer struct {
	Chain   digest.Digest // with it on top
	DiffID  digest.Digest
	Blob    ocispec.Descriptor
	Created time.Time `json:",omitzero"` // of one that a build made

	// MadeOn is the chain below where the layer was made, if it was put on another
	// one since.
	MadeOn *digest.Digest `json:",omitempty"`
}

// Placed is a layer with the chain below it, where it was made.
type Placed struct {
	Below digest.Digest
	Layer Layer
}

// Place is a step's place on the network.
type Place struct {
	NetNS   string // a path, good while the place is lent
	Address netip.Addr
	Names   bool        // of other containers can be looked up there
	Users   *userns.Map // what the IDs are outside of whoever is in it; nil for the host's
}

// Session is what the client of a build lends to it. Its methods may be called
// at the same time, and fail when the client has gone.
type Session interface {
	// Client tells clients apart, as far as their files may be kept for the next
	// build; "" is one who does not come again.
	Client() string
	// Local brings a directory of the client's up to date in dir, which is the
	// same for equal requests: only what changed is sent. moved is told how many
	// bytes have come, and last when all have.
	Local(ctx context.Context, r LocalRequest, dir string, moved func(bytes int, last bool)) error
	// Secret returns a secret; fault.NotFound if the client has none of the ID.
	Secret(ctx context.Context, id string) ([]byte, error)
	// SSH connects to the client's agent.
	SSH(ctx context.Context, id string) (net.Conn, error)
	// Content has a blob of one of the client's stores brought to to.
	Content(ctx context.Context, store string, d ocispec.Descriptor, to func(io.Reader) error) error
	// Credentials returns what the client has for a registry's host.
	Credentials(ctx context.Context, host string) (Credentials, error)
}

// Holder is a Session whose files are on this machine: they are used in place.
type Holder interface {
	// Directory returns what Local would make. It stays until the job ends.
	Directory(ctx context.Context, r LocalRequest) (string, error)
}

// Companion is a Session whose client has others beside it: several builds at
// once share one for a directory that they share.
type Companion interface {
	// Of returns the session with the ID.
	Of(ctx context.Context, id string) (Session, error)
}

// LocalRequest names files of the client's.
type LocalRequest struct {
	Name                     string // "context", "dockerfile" or a named context
	SharedKey                string // the same for the same directory of one client
	Include, Exclude, Follow []string
	Differ                   string // "none", "metadata"
	MetadataOnly             bool
	MetadataOnlyExceptions   []string
}

// Progress is told what happens to the vertices of a build. Its methods may be
// called at the same time and do not block for long.
type Progress interface {
	Vertex(v VertexStatus)
	Status(s TaskStatus)
	Log(vertex digest.Digest, stream int, data []byte)
	Warn(vertex digest.Digest, w Warning)
}

// VertexStatus is a vertex as it stands.
type VertexStatus struct {
	Digest    digest.Digest
	Inputs    []digest.Digest
	Name      string
	Group     *pb.ProgressGroup // that it is shown in, if any
	Started   *time.Time
	Completed *time.Time
	Cached    bool
	Error     string
}

// TaskStatus is a part of a vertex's work, such as the transfer of one blob.
type TaskStatus struct {
	ID             string
	Vertex         digest.Digest
	Name           string
	Current, Total int64
	Started        *time.Time
	Completed      *time.Time
	At             time.Time
}

// Warning is a remark on a vertex.
type Warning struct {
	Level  int
	Short  []byte
	Detail [][]byte
	URL    string
}

// Tree is a result as a place to read files from, below a descriptor.
type Tree interface {
	Root() *os.File
	Close() error
}
