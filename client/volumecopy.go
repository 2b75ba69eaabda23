package client

import (
	"context"
	"encoding/json"
	"io"
	"net/url"
)

// VolumeCopy says what a copy of a volume is to be.
type VolumeCopy struct {
	Name   string            // of a snapshot "" for one by the time
	Labels map[string]string `json:",omitempty"`
	Freeze bool              `json:",omitempty"` // who uses the volume stands still meanwhile
}

// VolumeClone makes a volume with the content of another.
func (c *Client) VolumeClone(ctx context.Context, name string, o VolumeCopy) (Volume, error) {
	return fetch[Volume](ctx, c, "POST", "/volumes/"+segment(name)+"/clone", nil, o)
}

// VolumeSnapshot is VolumeClone of which nobody writes to the copy.
func (c *Client) VolumeSnapshot(ctx context.Context, name string, o VolumeCopy) (Volume, error) {
	return fetch[Volume](ctx, c, "POST", "/volumes/"+segment(name)+"/snapshot", nil, o)
}

// VolumeRename gives a volume another name.
func (c *Client) VolumeRename(ctx context.Context, name, to string) (Volume, error) {
	return fetch[Volume](ctx, c, "POST", "/volumes/"+segment(name)+"/rename", url.Values{"name": {to}}, nil)
}

// VolumeExport opens a tar of a volume's content.
func (c *Client) VolumeExport(ctx context.Context, name string, freeze bool) (io.ReadCloser, error) {
	query := url.Values{}
	flag(query, "freeze", freeze)
	return c.open(ctx, request{method: "GET", path: "/volumes/" + segment(name) + "/export", query: query})
}

// VolumeImportOptions say what is known of a volume beside its content.
type VolumeImportOptions struct{ Labels, Options map[string]string }

func (o *VolumeImportOptions) query() (url.Values, error) {
	query := url.Values{}
	for key, value := range map[string]map[string]string{"labels": o.Labels, "options": o.Options} {
		if len(value) == 0 {
			continue
		}
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		query.Set(key, string(text))
	}
	return query, nil
}

// VolumeImport makes a volume of a tar.
func (c *Client) VolumeImport(ctx context.Context, name string, o VolumeImportOptions, in io.Reader) (Volume, error) {
	var v Volume
	query, err := o.query()
	if err != nil {
		return v, err
	}
	body, err := c.open(ctx, request{method: "POST", path: "/volumes/" + segment(name) + "/import", query: query, stream: in})
	if err != nil {
		return v, err
	}
	defer body.Close()
	return v, json.NewDecoder(body).Decode(&v)
}

// VolumePush sends a volume to a registry.
func (c *Client) VolumePush(ctx context.Context, name, ref string, freeze bool, auth Credentials, each func(Progress) error) error {
	query := url.Values{"ref": {ref}}
	flag(query, "freeze", freeze)
	body, err := c.open(ctx, request{method: "POST", path: "/volumes/" + segment(name) + "/push", query: query, header: auth.header()})
	if err != nil {
		return err
	}
	return progress(body, each)
}

// VolumePull makes a volume of what a registry has.
func (c *Client) VolumePull(ctx context.Context, name, ref string, o VolumeImportOptions, auth Credentials, each func(Progress) error) error {
	query, err := o.query()
	if err != nil {
		return err
	}
	query.Set("ref", ref)
	body, err := c.open(ctx, request{method: "POST", path: "/volumes/" + segment(name) + "/pull", query: query, header: auth.header()})
	if err != nil {
		return err
	}
	return progress(body, each)
}
