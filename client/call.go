package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strconv"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/plainjson"
)

// Filters are a list's conditions: the accepted values by name.
type Filters map[string][]string

// encode gives the query's form: values as keys of an object, by name.
func (f Filters) encode() string {
	out := make(map[string]map[string]bool, len(f))
	for name, values := range f {
		out[name] = make(map[string]bool, len(values))
		for _, v := range values {
			out[name][v] = true
		}
	}
	text, _ := json.Marshal(out)
	return string(text)
}

// set adds a query parameter that is not empty.
func set(query url.Values, name, value string) {
	if value != "" {
		query.Set(name, value)
	}
}

// flag adds a query parameter that is true.
func flag(query url.Values, name string, value bool) {
	if value {
		query.Set(name, "1")
	}
}

// filter adds the filters, if any.
func filter(query url.Values, f Filters) {
	if len(f) > 0 {
		query.Set("filters", f.encode())
	}
}

// call sends in as JSON (nil: no body) and decodes the answer into out (nil:
// it is read and dropped; *[]byte: as it is).
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	r := request{method: method, path: path, query: query}
	if in != nil {
		var err error
		if r.body, err = encode(in); err != nil {
			return err
		}
	}
	resp, err := c.do(ctx, r)
	if err != nil {
		return err
	}
	return c.decode(ctx, resp, path, out)
}

// fetch is call for an answer that is returned.
func fetch[T any](ctx context.Context, c *Client, method, path string, query url.Values, in any) (T, error) {
	var out T
	err := c.call(ctx, method, path, query, in, &out)
	return out, err
}

// fetchList is fetch for a list, which may be a megabyte.
func fetchList[T any](ctx context.Context, c *Client, path string, query url.Values) ([]T, error) {
	text, err := fetch[[]byte](ctx, c, "GET", path, query, nil)
	if err != nil {
		return nil, err
	}
	var list []T
	if err := plainjson.Unmarshal(text, &list); err != nil {
		return nil, fault.New(fault.Internal, "the answer to %s cannot be understood: %w", path, err)
	}
	return list, nil
}

// fetchEach is fetchList without the list: each is called for every element, all
// of which are read into the same place.
func fetchEach[T any](ctx context.Context, c *Client, path string, query url.Values, each func(*T)) error {
	text, err := fetch[[]byte](ctx, c, "GET", path, query, nil)
	if err != nil {
		return err
	}
	if err := plainjson.Each(text, each); err != nil {
		return fault.New(fault.Internal, "the answer to %s cannot be understood: %w", path, err)
	}
	return nil
}

func (c *Client) decode(ctx context.Context, resp *response, path string, out any) error {
	defer resp.body.Close()
	size, _ := strconv.Atoi(resp.header["content-length"])
	var text bytes.Buffer
	text.Grow(max(0, min(size, 1<<20)) + bytes.MinRead)
	if _, err := text.ReadFrom(resp.body); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, ErrBroken) {
			return err
		}
		return fault.New(fault.Unavailable, "the answer to %s broke off: %w", path, err)
	}
	switch out := out.(type) {
	case nil:
		return nil
	case *[]byte:
		*out = text.Bytes()
		return nil
	}
	if err := json.Unmarshal(text.Bytes(), out); err != nil {
		return fault.New(fault.Internal, "the answer to %s cannot be understood: %w", path, err)
	}
	return nil
}

// open sends a request whose answer's body the caller reads and closes.
func (c *Client) open(ctx context.Context, r request) (io.ReadCloser, error) {
	resp, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	return &contextBody{ctx, resp.body}, nil
}

// contextBody tells a cancelled reading from a broken one.
type contextBody struct {
	ctx context.Context
	io.ReadCloser
}

func (b *contextBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		err = b.ctx.Err()
	}
	return n, err
}
