package caching

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/tarehq/tare/fault"
)

// azure is a container of Azure's blob storage, by its REST interface, with the
// account's key: https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
type azure struct {
	account, container string
	key                []byte
	base               *url.URL // of the container
}

// azureVersion is that of the interface.
const azureVersion = "2020-10-02"

// azureOf reads what names a container, by the options or the builder's environment.
func azureOf(attrs map[string]string) (*azure, error) {
	said := func(key string) string {
		return orElse(attrs[key], os.Getenv("BUILDKIT_AZURE_STORAGE_"+strings.ToUpper(key)))
	}
	address := said("account_url")
	if address == "" {
		return nil, fault.New(fault.Invalid, "either ${BUILDKIT_AZURE_STORAGE_ACCOUNT_URL} or account_url attribute is required for azblob cache")
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, fault.New(fault.Invalid, "account_url=%s is no address: say https://ACCOUNT.blob.core.windows.net", address)
	}
	host, _, _ := strings.Cut(u.Hostname(), ".")
	a := &azure{account: orElse(said("account_name"), host), container: orElse(said("container"), "buildkit-cache")}
	if a.key, err = base64.StdEncoding.DecodeString(attrs["secret_access_key"]); err != nil || len(a.key) == 0 {
		return nil, fault.New(fault.NotImplemented, "a cache of type=azblob needs the account's key here: say secret_access_key=KEY, in base64")
	}
	a.base = u.JoinPath(a.container)
	return a, nil
}

// ask sends a signed request. "" is the container itself.
func (a *azure) ask(ctx context.Context, method, name, query string, body io.Reader, size int64) (*http.Response, error) {
	u := a.base
	if name != "" {
		u = u.JoinPath(name)
	}
	where := *u
	where.RawQuery = query
	req, err := http.NewRequestWithContext(ctx, method, where.String(), body)
	if err != nil {
		return nil, err
	}
	length := ""
	if req.ContentLength = size; size > 0 {
		length = fmt.Sprint(size)
	}
	req.Header.Set("x-ms-date", time.Now().UTC().Format(http.TimeFormat))
	req.Header.Set("x-ms-version", azureVersion)
	if method == http.MethodPut && name != "" {
		req.Header.Set("x-ms-blob-type", "BlockBlob")
	}
	var own []string
	for header := range req.Header {
		own = append(own, strings.ToLower(header))
	}
	slices.Sort(own)
	text := method + "\n\n\n" + length + strings.Repeat("\n", 9)
	for _, header := range own {
		text += header + ":" + req.Header.Get(header) + "\n"
	}
	text += "/" + a.account + u.EscapedPath()
	for key, values := range where.Query() { // there is never more than one
		text += "\n" + key + ":" + values[0]
	}
	sign := hmac.New(sha256.New, a.key)
	io.WriteString(sign, text)
	req.Header.Set("Authorization", "SharedKey "+a.account+":"+base64.StdEncoding.EncodeToString(sign.Sum(nil)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "cannot reach the container %s: %w", a.container, err)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	resp.Body.Close()
	kind := fault.Unavailable
	if resp.StatusCode == http.StatusNotFound {
		kind = fault.NotFound
	}
	return nil, fault.New(kind, "cannot %s %s of the container %s: %s", strings.ToLower(method), name, a.container, orElse(resp.Header.Get("x-ms-error-code"), resp.Status))
}

func (a *azure) get(ctx context.Context, name string) (io.ReadCloser, error) {
	resp, err := a.ask(ctx, http.MethodGet, name, "", nil, 0)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (a *azure) has(ctx context.Context, name string) (time.Time, error) {
	resp, err := a.ask(ctx, http.MethodHead, name, "", nil, 0)
	if fault.KindOf(err) == fault.NotFound {
		return time.Time{}, a.create(ctx)
	}
	if err != nil {
		return time.Time{}, err
	}
	resp.Body.Close()
	return time.Now(), nil // nothing takes it away by its age
}

// create makes the container, which may be there.
func (a *azure) create(ctx context.Context) error {
	resp, err := a.ask(ctx, http.MethodGet, "", "restype=container", nil, 0)
	if fault.KindOf(err) == fault.NotFound {
		resp, err = a.ask(ctx, http.MethodPut, "", "restype=container", nil, 0)
	}
	if err == nil {
		resp.Body.Close()
	}
	return err
}

func (a *azure) put(ctx context.Context, name string, r io.Reader, size int64) error {
	resp, err := a.ask(ctx, http.MethodPut, name, "", r, size)
	if err == nil {
		resp.Body.Close()
	}
	return err
}

func (a *azure) touch(context.Context, string) error { return nil }
