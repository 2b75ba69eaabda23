package bridge

import (
	"maps"
	"sync"

	gateway "github.com/moby/buildkit/frontend/gateway/client"

	"github.com/tarehq/tare/build"
)

// Notes are what a build's provenance tells of its front ends: the request that
// the first was given, and the images that they asked for by name.
type Notes struct {
	mu        sync.Mutex
	frontend  string
	args      map[string]string
	materials []build.Material
}

// maxNotes bounds the images.
const maxNotes = 10_000

func (n *Notes) asked(req gateway.SolveRequest) {
	if n == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.frontend == "" {
		n.frontend, n.args = req.Frontend, maps.Clone(req.FrontendOpt)
	}
}

func (n *Notes) resolved(r build.ImageRequest, img build.Image) {
	if n == nil {
		return
	}
	m := build.Material{Kind: "docker-image", Ref: r.Ref, Digest: img.Target}
	if r.Platform.OS != "" {
		m.Platform = &r.Platform
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.materials) < maxNotes {
		n.materials = append(n.materials, m)
	}
}

// Read returns them.
func (n *Notes) Read() (frontend string, args map[string]string, materials []build.Material) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.frontend, n.args, n.materials
}
