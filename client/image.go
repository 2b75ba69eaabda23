package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strings"
)

// imagePath escapes an image's name, whose slashes and colons stay.
func imagePath(name string) string { return (&url.URL{Path: "/" + name}).EscapedPath()[1:] }

// ImageSummary is one image of a list.
type ImageSummary struct {
	Containers  int64 // -1: not counted
	ContentSize int64 `json:",omitempty"` // bytes as they travel; of a brief list
	Created     int64 // Unix seconds
	Id          string
	Labels      map[string]string
	Manifests   []ManifestSummary `json:",omitempty"`
	RepoDigests []string
	RepoTags    []string
	SharedSize  int64 // bytes; -1: not counted
	Size        int64 // bytes
}

// ManifestSummary is one image, or one statement about an image, of a name
// that has several.
type ManifestSummary struct {
	ID        string
	Available bool // all of its content is here
	Size      ManifestSize
	Kind      string             // "image", "attestation" or "unknown"
	ImageData *ManifestImageData `json:",omitempty"`
}

// ManifestSize counts the bytes that are here.
type ManifestSize struct {
	Content int64 // as they travel
	Total   int64 // with what is unpacked
}

// ManifestImageData is what only an image has.
type ManifestImageData struct {
	Platform   Platform
	Containers []string // IDs
}

// ImageListOptions choose the images of a list and what is told of them.
type ImageListOptions struct {
	All        bool
	SharedSize bool
	Manifests  bool
	Brief      bool // no more than a list of names shows; a daemon that does not know it tells all
	Filters    Filters
}

// ImageList lists images.
func (c *Client) ImageList(ctx context.Context, o ImageListOptions) ([]ImageSummary, error) {
	query := url.Values{}
	flag(query, "all", o.All)
	flag(query, "shared-size", o.SharedSize)
	flag(query, "manifests", o.Manifests)
	flag(query, "brief", o.Brief)
	filter(query, o.Filters)
	return fetchList[ImageSummary](ctx, c, "/images/json", query)
}

// ImageInspectRaw returns the daemon's JSON as it is; the platform is
// os[/arch[/variant]], or "" for the daemon's choice.
func (c *Client) ImageInspectRaw(ctx context.Context, name, platform string) ([]byte, error) {
	query := url.Values{}
	if platform != "" {
		query.Set("platform", platformJSON(platform))
	}
	return fetch[[]byte](ctx, c, "GET", "/images/"+imagePath(name)+"/json", query, nil)
}

// ImageHistoryItem is one step of an image's making.
type ImageHistoryItem struct {
	Comment   string
	Created   int64 // Unix seconds
	CreatedBy string
	Id        string
	Size      int64 // bytes
	Tags      []string
}

// ImageHistory lists the steps of an image's making, the newest first; the
// platform is os[/arch[/variant]] or "" for any.
func (c *Client) ImageHistory(ctx context.Context, name, platform string) ([]ImageHistoryItem, error) {
	query := url.Values{}
	if platform != "" {
		query.Set("platform", platformJSON(platform))
	}
	return fetch[[]ImageHistoryItem](ctx, c, "GET", "/images/"+imagePath(name)+"/history", query, nil)
}

// ImageTag gives the image source another name.
func (c *Client) ImageTag(ctx context.Context, source, repo, tag string) error {
	query := url.Values{}
	set(query, "repo", repo)
	set(query, "tag", tag)
	return c.call(ctx, "POST", "/images/"+imagePath(source)+"/tag", query, nil, nil)
}

// ImageDeleted is one thing that a removal has removed.
type ImageDeleted struct {
	Deleted  string `json:",omitempty"`
	Untagged string `json:",omitempty"`
}

// ImageRemove removes a name, or the image.
func (c *Client) ImageRemove(ctx context.Context, name string, force, noPrune bool, platforms []string) ([]ImageDeleted, error) {
	query := url.Values{}
	flag(query, "force", force)
	flag(query, "noprune", noPrune)
	for _, p := range platforms {
		query.Add("platforms", platformJSON(p))
	}
	return fetch[[]ImageDeleted](ctx, c, "DELETE", "/images/"+imagePath(name), query, nil)
}

// platformJSON renders os[/architecture[/variant]], or an architecture alone,
// as the API's object.
func platformJSON(p string) string {
	text, _ := json.Marshal(parsePlatform(p))
	return string(text)
}

func parsePlatform(s string) Platform {
	parts := strings.SplitN(strings.ToLower(s), "/", 3)
	var p Platform
	switch {
	case len(parts) > 1:
		p.OS, p.Architecture = parts[0], parts[1]
	case parts[0] == "linux", parts[0] == "windows", parts[0] == "darwin", parts[0] == "freebsd":
		p.OS = parts[0]
	default:
		p.OS, p.Architecture = "linux", parts[0]
	}
	if len(parts) > 2 {
		p.Variant = parts[2]
	}
	// What uname(2) calls them.
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "aarch64":
		p.Architecture = "arm64"
	}
	return p
}

// ImportOptions describe an image made from a plain root file system.
type ImportOptions struct {
	Source            string // "-": the stream; else a URL that the daemon fetches
	Repo, Tag         string
	Message, Platform string
	Changes           []string // Dockerfile instructions
	Epoch             string   // SOURCE_DATE_EPOCH; only tared knows it
}

// ImageImport makes an image. The last line's status is its ID.
func (c *Client) ImageImport(ctx context.Context, in io.Reader, o ImportOptions, each func(Progress) error) error {
	query := url.Values{"fromSrc": {o.Source}}
	set(query, "repo", o.Repo)
	set(query, "tag", o.Tag)
	set(query, "message", o.Message)
	set(query, "platform", strings.ToLower(o.Platform))
	set(query, "source-date-epoch", o.Epoch)
	for _, change := range o.Changes {
		query.Add("changes", change)
	}
	body, err := c.open(ctx, request{method: "POST", path: "/images/create", query: query, stream: in})
	if err != nil {
		return err
	}
	return progress(body, each)
}

// ImageLoad loads the images of a tar.
func (c *Client) ImageLoad(ctx context.Context, in io.Reader, quiet bool, platforms []string, each func(Progress) error) error {
	query := url.Values{}
	flag(query, "quiet", quiet)
	for _, p := range platforms {
		query.Add("platform", platformJSON(p))
	}
	body, err := c.open(ctx, request{method: "POST", path: "/images/load", query: query, stream: in})
	if err != nil {
		return err
	}
	return progress(body, each)
}

// SaveOptions choose what of images is saved, and how.
type SaveOptions struct {
	Platforms []string // os[/arch[/variant]]; none: all that are here
	Compression
}

// ImageSave opens a tar of the images.
func (c *Client) ImageSave(ctx context.Context, names []string, o SaveOptions) (io.ReadCloser, error) {
	query := url.Values{"names": names}
	for _, p := range o.Platforms {
		query.Add("platform", platformJSON(p))
	}
	o.Compression.add(query)
	return c.open(ctx, request{method: "GET", path: "/images/get", query: query})
}
