package lend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/snapshot"
)

// Client is the borrower's side. It is a build.Store.
type Client struct{ http *http.Client }

var _ build.Store = (*Client)(nil)

// NewClient borrows from the daemon that listens at the unix socket path.
func NewClient(path string) *Client {
	return &Client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		MaxIdleConnsPerHost: 16,
	}}}
}

// gone is what a builder meets whose daemon has ended.
func gone(err error) error {
	return fault.New(fault.Unavailable, "the daemon does not answer the process that builds: %w", err)
}

// call asks for one thing.
func call[R any](ctx context.Context, c *Client, name string, arg any, progress func(build.Transfer)) (result R, err error) {
	body, err := json.Marshal(arg)
	if err != nil {
		return result, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://tared/"+name, bytes.NewReader(body))
	if err != nil {
		return result, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return result, gone(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return result, refused(resp)
	}
	for in := json.NewDecoder(resp.Body); ; {
		var r reply[R]
		if err := in.Decode(&r); err != nil {
			return result, gone(err)
		}
		switch {
		case r.Error != nil:
			return result, r.Error.unpack()
		case r.Result != nil:
			_, _ = io.Copy(io.Discard, resp.Body) // the connection can be used again
			return *r.Result, nil
		case r.Progress != nil && progress != nil:
			progress(*r.Progress)
		}
	}
}

func refused(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	kind := fault.Internal
	if resp.StatusCode == http.StatusNotFound {
		kind = fault.NotFound
	}
	return fault.New(kind, "%s", strings.TrimSpace(string(text)))
}

func (c *Client) Resolve(ctx context.Context, r build.ImageRequest, progress func(build.Transfer)) (build.Image, error) {
	return call[build.Image](ctx, c, "resolve", r, progress)
}

func (c *Client) Fetch(ctx context.Context, r build.ImageRequest, img build.Image, progress func(build.Transfer)) error {
	_, err := call[none](ctx, c, "fetch", fetchArg{r, img.Target, img.Manifest}, progress)
	return err
}

func (c *Client) Document(ctx context.Context, r build.ImageRequest) (ocispec.Descriptor, []byte, error) {
	d, err := call[document](ctx, c, "document", r, nil)
	return d.Descriptor, d.Data, err
}

func (c *Client) FetchBlob(ctx context.Context, r build.ImageRequest, d ocispec.Descriptor, progress func(build.Transfer)) error {
	_, err := call[none](ctx, c, "fetch-blob", contentArg{r, d}, progress)
	return err
}

func (c *Client) Unpack(ctx context.Context, layers []build.Layer) error {
	_, err := call[none](ctx, c, "unpack", layers, nil)
	return err
}

func (c *Client) Compress(ctx context.Context, l build.Layer, kind string, level int) (ocispec.Descriptor, error) {
	return call[ocispec.Descriptor](ctx, c, "compress", compressArg{l, kind, level}, nil)
}

func (c *Client) PushContent(ctx context.Context, r build.ImageRequest, target ocispec.Descriptor, progress func(build.Transfer)) error {
	_, err := call[none](ctx, c, "push-content", contentArg{r, target}, progress)
	return err
}

func (c *Client) Difference(ctx context.Context, lower, upper digest.Digest) (build.Layer, error) {
	return call[build.Layer](ctx, c, "difference", differenceArg{lower, upper}, nil)
}

func (c *Client) Has(ctx context.Context, chain digest.Digest) (bool, error) {
	return call[bool](ctx, c, "has", chain, nil)
}

// Prepare takes milliseconds, and is not left in the middle of it: the daemon would have a
// tree of which nobody knows.
func (c *Client) Prepare(ctx context.Context, id string, chain digest.Digest) (snapshot.Mount, error) {
	return call[snapshot.Mount](context.WithoutCancel(ctx), c, "prepare", prepareArg{id, chain}, nil)
}

func (c *Client) View(ctx context.Context, chain digest.Digest) (snapshot.Mount, error) {
	return call[snapshot.Mount](ctx, c, "view", chain, nil)
}

func (c *Client) Seal(ctx context.Context, id string, chain digest.Digest, epoch time.Time) (build.Layer, error) {
	return call[build.Layer](ctx, c, "seal", sealArg{id, chain, epoch}, nil)
}

func (c *Client) Discard(ctx context.Context, id string) error {
	_, err := call[none](ctx, c, "discard", id, nil)
	return err
}

func (c *Client) LayerBlob(ctx context.Context, below digest.Digest, l build.Layer, epoch time.Time) (ocispec.Descriptor, error) {
	return call[ocispec.Descriptor](ctx, c, "layer-blob", blobArg{below, l, epoch}, nil)
}

func (c *Client) LayerBlobs(ctx context.Context, layers []build.Placed, epoch time.Time) ([]ocispec.Descriptor, error) {
	return call[[]ocispec.Descriptor](ctx, c, "layer-blobs", blobsArg{layers, epoch}, nil)
}

func (c *Client) Holds(ctx context.Context, blob ocispec.Descriptor, diffID digest.Digest) (bool, error) {
	return call[bool](ctx, c, "holds", build.Layer{Blob: blob, DiffID: diffID}, nil)
}

func (c *Client) Pin(ctx context.Context, chains []digest.Digest) error {
	_, err := call[none](ctx, c, "pin", chains, nil)
	return err
}

func (c *Client) Size(ctx context.Context, chain digest.Digest) (int64, error) {
	return call[int64](ctx, c, "size", chain, nil)
}

func (c *Client) Needed(ctx context.Context) ([]digest.Digest, error) {
	return call[[]digest.Digest](ctx, c, "needed", none{}, nil)
}

func (c *Client) Publish(ctx context.Context, target ocispec.Descriptor, names []string, texts [][]byte) (string, error) {
	return call[string](ctx, c, "publish", publishArg{target, names, texts}, nil)
}

func (c *Client) Push(ctx context.Context, name string, auth build.Credentials, progress func(build.Transfer)) error {
	_, err := call[none](ctx, c, "push", pushArg{name, auth}, progress)
	return err
}

func (c *Client) Attach(ctx context.Context, id, network string) (build.Place, error) {
	return call[build.Place](ctx, c, "attach", attachArg{id, network}, nil)
}

func (c *Client) Detach(ctx context.Context, id string) error {
	_, err := call[none](ctx, c, "detach", id, nil)
	return err
}

func (c *Client) Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://tared/blob/"+d.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, gone(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, refused(resp)
	}
	return resp.Body, nil
}

func (c *Client) PutBlob(ctx context.Context, d ocispec.Descriptor, r io.Reader) error {
	head, err := json.Marshal(d)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://tared/blob", r)
	if err != nil {
		return err
	}
	req.Header.Set(headerDescriptor, string(head))
	resp, err := c.http.Do(req)
	if err != nil {
		return gone(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("store the blob %s: %w", d.Digest, refused(resp))
	}
	return nil
}
