// Package image is the noun: what a user imports, loads, names, saves
// and removes, over the mechanisms content (blobs by digest), snapshot
// (unpacked layers) and archive (tar).
//
// An image's identity is the digest of the manifest or index that its name
// points to. All platforms, attestations and annotations of an index are kept
// as they came; which of them runs here is chosen when it is used.
//
// A Service imports, loads, commits, names and removes images, and saves them. What is here
// package catalog knows, and package inventory tells. Transfers pull and push (pull.go, push.go,
// over packages download and unpack); Making makes images of trees, for builds (make.go).
package image

import (
	"time"
)

// ImportOptions say how an imported tree becomes an image.
type ImportOptions struct {
	Reference string    // name to give, "" for none; a tag is added when it lacks
	Changes   []string  // Dockerfile instructions that set the config
	Message   string    // comment of the one history entry
	Platform  string    // "os/arch[/variant]"; "" for what the programs in the tree are for, or this machine's
	Epoch     time.Time // of the image, unless zero (SOURCE_DATE_EPOCH); the files are as they come
}

// RemoveOptions as in DELETE /images/{name}.
type RemoveOptions struct {
	Force   bool
	NoPrune bool // the images that it was made of stay, also those without a name
	// Platforms, unless empty, are all that goes: their content, while the image
	// keeps its names and the other platforms.
	Platforms []string
}

// Publisher is told what has happened to images. The action is Docker's word:
// import, load, save, tag, untag, delete. attrs belongs to the callee.
type Publisher interface {
	Publish(action, id string, attrs map[string]string)
}
