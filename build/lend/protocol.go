// Package lend is how the daemon lends its store, images and network to the
// process that builds: HTTP on a unix socket, a call a path, JSON both ways.
//
// A call is POST /<name> with its arguments. The answer is a stream of JSON
// objects, replies: any number that tell progress, then one that holds the
// result or the error. The bytes of blobs go as the body.
//
// What a Lender has lent belongs to the one process that it serves, and is taken
// back by its Close.
package lend

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
)

// reply is one object of an answer.
type reply[T any] struct {
	Progress *build.Transfer `json:",omitempty"`
	Result   *T              `json:",omitempty"`
	Error    *wireError      `json:",omitempty"`
}

// wireError is an error on its way; its kind survives.
type wireError struct{ Kind, Text string }

func pack(err error) *wireError {
	if err == nil {
		return nil
	}
	return &wireError{fault.KindOf(err).Error(), err.Error()}
}

func (e *wireError) unpack() error {
	for k := fault.Internal; k <= fault.NotImplemented; k++ {
		if k.Error() == e.Kind {
			return fault.New(k, "%s", e.Text)
		}
	}
	return fault.New(fault.Internal, "%s", e.Text)
}

// The arguments and results that are no shapes of package build.
type (
	none       struct{}
	prepareArg struct {
		ID    string
		Chain digest.Digest
	}
	sealArg struct {
		ID    string
		Chain digest.Digest // that the tree was made on
		Epoch time.Time
	}
	blobArg struct {
		Below digest.Digest
		Layer build.Layer
		Epoch time.Time
	}
	blobsArg struct {
		Layers []build.Placed
		Epoch  time.Time
	}
	fetchArg struct {
		Request  build.ImageRequest
		Target   digest.Digest
		Manifest ocispec.Descriptor
	}
	document struct {
		Descriptor ocispec.Descriptor
		Data       []byte
	}
	contentArg struct {
		Request build.ImageRequest
		Content ocispec.Descriptor
	}
	compressArg struct {
		Layer build.Layer
		Kind  string
		Level int
	}
	differenceArg struct{ Lower, Upper digest.Digest }
	publishArg    struct {
		Target ocispec.Descriptor
		Names  []string
		Texts  [][]byte
	}
	attachArg struct{ ID, Network string }
	pushArg   struct {
		Name string
		Auth build.Credentials
	}
)

// headerDescriptor carries the descriptor, as JSON, of a blob that is the body.
const headerDescriptor = "Tare-Descriptor"
