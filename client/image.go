package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
	"strings"

	"github.com/tarehq/tare/fault"
)

// imagePath escapes an image's name, whose slashes and colons stay.
func imagePath(name string) string { return (&url.URL{Path: "/" + name}).EscapedPath()[1:] }

// ImageSummary is one image of a list.
type ImageSummary struct {
	Containers  int64 // -1: not counted
	Created     int64 // Unix seconds
	Id          string
	Labels      map[string]string
	RepoDigests []string
	RepoTags    []string
	SharedSize  int64 // bytes; -1: not counted
	Size        int64 // bytes
}

// ImageListOptions choose the images of a list.
type ImageListOptions struct {
	All     bool
	Filters Filters
}

// ImageList lists images.
func (c *Client) ImageList(ctx context.Context, o ImageListOptions) ([]ImageSummary, error) {
	query := url.Values{}
	flag(query, "all", o.All)
	filter(query, o.Filters)
	return fetch[[]ImageSummary](ctx, c, "GET", "/images/json", query, nil)
}

// ImageInspectRaw returns the daemon's JSON as it is.
func (c *Client) ImageInspectRaw(ctx context.Context, name string) ([]byte, error) {
	return fetch[[]byte](ctx, c, "GET", "/images/"+imagePath(name)+"/json", nil, nil)
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

// platformJSON renders os/architecture/variant as the API's object.
func platformJSON(p string) string {
	parts := strings.SplitN(p, "/", 3)
	o := struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
		Variant      string `json:"variant,omitempty"`
	}{OS: parts[0]}
	if len(parts) > 1 {
		o.Architecture = parts[1]
	}
	if len(parts) > 2 {
		o.Variant = parts[2]
	}
	text, _ := json.Marshal(o)
	return string(text)
}

// Progress is one line of a long operation's answer.
type Progress struct {
	Stream string          `json:"stream,omitempty"`
	Status string          `json:"status,omitempty"`
	ID     string          `json:"id,omitempty"`
	Error  *ProgressError  `json:"errorDetail,omitempty"`
	Aux    json.RawMessage `json:"aux,omitempty"`
}

// ProgressError ends a long operation.
type ProgressError struct {
	Code    int    `json:"code,omitempty"`
	Message string `json:"message,omitempty"`
}

// progress reads the lines; an error line ends it as a fault.
func progress(r io.ReadCloser, each func(Progress) error) error {
	defer r.Close()
	return decodeStream(r, func(p Progress) error {
		if p.Error == nil {
			return each(p)
		}
		if p.Error.Code >= 400 {
			return statusFault(p.Error.Code, p.Error.Message)
		}
		return fault.New(fault.Internal, "%s", p.Error.Message)
	})
}

// ImportOptions describe an image made from a plain root file system.
type ImportOptions struct {
	Source            string // "-": the stream; else a URL that the daemon fetches
	Repo, Tag         string
	Message, Platform string
	Changes           []string // Dockerfile instructions
}

// ImageImport makes an image. The last line's status is its ID.
func (c *Client) ImageImport(ctx context.Context, in io.Reader, o ImportOptions, each func(Progress) error) error {
	query := url.Values{"fromSrc": {o.Source}}
	set(query, "repo", o.Repo)
	set(query, "tag", o.Tag)
	set(query, "message", o.Message)
	set(query, "platform", strings.ToLower(o.Platform))
	for _, change := range o.Changes {
		query.Add("changes", change)
	}
	body, err := c.open(ctx, request{method: "POST", path: "/images/create", query: query, stream: in})
	if err != nil {
		return err
	}
	return progress(body, each)
}

// ImagePull has the daemon fetch an image. auth is the encoded X-Registry-Auth.
func (c *Client) ImagePull(ctx context.Context, repo, tag, platform, auth string, each func(Progress) error) error {
	query := url.Values{"fromImage": {repo}}
	set(query, "tag", tag)
	set(query, "platform", strings.ToLower(platform))
	r := request{method: "POST", path: "/images/create", query: query}
	if auth != "" {
		r.header = [][2]string{{"X-Registry-Auth", auth}}
	}
	body, err := c.open(ctx, r)
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

// ImageSave opens a tar of the images.
func (c *Client) ImageSave(ctx context.Context, names, platforms []string) (io.ReadCloser, error) {
	query := url.Values{"names": names}
	for _, p := range platforms {
		query.Add("platform", platformJSON(p))
	}
	return c.open(ctx, request{method: "GET", path: "/images/get", query: query})
}
