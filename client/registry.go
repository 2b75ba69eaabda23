package client

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"strings"
)

// Credentials are what a registry knows a user by: a name and a password, an
// identity token, or a token for the registry itself. They travel as the JSON
// of X-Registry-Auth and of POST /auth.
type Credentials struct {
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	ServerAddress string `json:"serveraddress,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// header renders the credentials as the header X-Registry-Auth: JSON in base64
// of the alphabet for addresses. None are an empty object.
func (c Credentials) header() [][2]string {
	text, _ := json.Marshal(c)
	return [][2]string{{"X-Registry-Auth", base64.URLEncoding.EncodeToString(text)}}
}

// AuthResponse tells how a log-in went. A token, if any, stands for the
// password from now on.
type AuthResponse struct {
	Status        string
	IdentityToken string `json:",omitempty"`
}

// RegistryLogin has the daemon try credentials on their registry.
func (c *Client) RegistryLogin(ctx context.Context, auth Credentials) (AuthResponse, error) {
	return fetch[AuthResponse](ctx, c, "POST", "/auth", nil, &auth)
}

// SearchResult is one repository that a registry has found.
type SearchResult struct {
	StarCount   int    `json:"star_count"`
	IsOfficial  bool   `json:"is_official"`
	Name        string `json:"name"`
	IsAutomated bool   `json:"is_automated"`
	Description string `json:"description"`
}

// ImageSearch searches a registry, the one that the term begins with or Docker
// Hub. Limit 0 is the daemon's.
func (c *Client) ImageSearch(ctx context.Context, term string, limit int, filters Filters, auth Credentials) ([]SearchResult, error) {
	query := url.Values{"term": {term}}
	if limit > 0 {
		query.Set("limit", itoa(limit))
	}
	filter(query, filters)
	resp, err := c.do(ctx, request{method: "GET", path: "/images/search", query: query, header: auth.header()})
	if err != nil {
		return nil, err
	}
	var out []SearchResult
	return out, c.decode(ctx, resp, "/images/search", &out)
}

// ImagePull has the daemon fetch an image: repo is its canonical name, tag its
// tag or digest, "" all tags.
func (c *Client) ImagePull(ctx context.Context, repo, tag, platform string, auth Credentials, each func(Progress) error) error {
	query := url.Values{"fromImage": {repo}}
	set(query, "tag", tag)
	set(query, "platform", strings.ToLower(platform))
	body, err := c.open(ctx, request{method: "POST", path: "/images/create", query: query, header: auth.header()})
	if err != nil {
		return err
	}
	return progress(body, each)
}

// Compression is how layers are packed for the way; the zero value leaves them
// as they are stored. Only tared knows these parameters.
type Compression struct {
	Algorithm string // "gzip", "zstd", "none" or ""
	Level     int    // 0: the algorithm's usual one
}

func (o Compression) add(query url.Values) {
	set(query, "compression", o.Algorithm)
	if o.Level != 0 {
		query.Set("compression-level", itoa(o.Level))
	}
}

// PushOptions say what of an image is pushed, and how.
type PushOptions struct {
	Tag      string // "": all tags
	Platform string // os[/arch[/variant]]; "": all that are here
	Compression
}

// ImagePush has the daemon send an image to its registry.
func (c *Client) ImagePush(ctx context.Context, repo string, o PushOptions, auth Credentials, each func(Progress) error) error {
	query := url.Values{}
	set(query, "tag", o.Tag)
	if o.Platform != "" {
		query.Set("platform", platformJSON(o.Platform))
	}
	o.Compression.add(query)
	body, err := c.open(ctx, request{method: "POST", path: "/images/" + imagePath(repo) + "/push", query: query, header: auth.header()})
	if err != nil {
		return err
	}
	return progress(body, each)
}
