package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/tarehq/tare/fault"
)

// http has a file of a web server here, which is asked whether it has changed.
func (j *Job) http(ctx context.Context, address string, attrs map[string]string) (*output, error) {
	for name := range attrs {
		if strings.HasPrefix(name, "http.sig.") {
			return nil, fault.New(fault.NotImplemented, "ADD with a signature to verify is not supported yet")
		}
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, fault.New(fault.Invalid, "cannot read the address of a file: %w", err)
	}
	if u.Host == uploadHost {
		return j.upload(ctx, u, attrs)
	}
	key, err := json.Marshal(attrs)
	if err != nil {
		return nil, err
	}
	return j.keptDir(ctx, "http source "+u.Redacted(), address+string(key), true, func(dir string, a *about) error {
		return j.download(ctx, u, attrs, dir, a)
	})
}

// Facts of a downloaded file.
const (
	factETag     = "etag"
	factModified = "modified"
	factDigest   = "digest"
	factName     = "name"
)

func (j *Job) download(ctx context.Context, u *url.URL, attrs map[string]string, dir string, a *about) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fault.New(fault.Invalid, "cannot ask for %s: %w", u.Redacted(), err)
	}
	if err := j.headers(ctx, req, attrs); err != nil {
		return err
	}
	if name := a.Facts[factName]; name != "" {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			for header, fact := range map[string]string{"If-None-Match": factETag, "If-Modified-Since": factModified} {
				if v := a.Facts[fact]; v != "" {
					req.Header.Set(header, v)
				}
			}
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fault.New(fault.Unavailable, "cannot fetch %s: %w", u.Redacted(), withoutURL(err))
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && a.Facts[factName] != "":
		return checked(digest.Digest(a.Facts[factDigest]), attrs)
	case resp.StatusCode < 200 || resp.StatusCode >= 300:
		return fault.New(fault.NotFound, "cannot fetch %s: invalid response status %d", u.Redacted(), resp.StatusCode)
	}
	return save(resp, u, attrs, dir, a)
}

// withoutURL is what went wrong, without an address that may hold a password.
func withoutURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// headers are those that the build asks for; the secret ones come from the client.
func (j *Job) headers(ctx context.Context, req *http.Request, attrs map[string]string) error {
	for name, v := range attrs {
		if header, ok := strings.CutPrefix(name, pb.AttrHTTPHeaderPrefix); ok {
			req.Header.Set(header, v)
		}
	}
	if id := attrs[pb.AttrHTTPAuthHeaderSecret]; id != "" {
		data, err := j.session.Secret(ctx, id)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", string(data))
	}
	return nil
}

func checked(got digest.Digest, attrs map[string]string) error {
	if want := attrs[pb.AttrHTTPChecksum]; want != "" && want != got.String() {
		return fault.New(fault.Invalid, "digest mismatch %s: %s", got, want)
	}
	return nil
}

// save writes what the server sent in place of what is there.
func save(resp *http.Response, u *url.URL, attrs map[string]string, dir string, a *about) error {
	algorithm := digest.SHA256
	if want := attrs[pb.AttrHTTPChecksum]; want != "" {
		d, err := digest.Parse(want)
		if err != nil {
			return fault.New(fault.Invalid, "invalid checksum %s: %w", want, err)
		}
		algorithm = d.Algorithm()
	}
	name := fileNameOf(resp, u, attrs)
	a.Facts = nil
	if err := empty(dir); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	h := algorithm.Digester()
	if _, err := io.Copy(io.MultiWriter(f, h.Hash()), resp.Body); err != nil {
		return fault.New(fault.Unavailable, "cannot fetch %s: %w", u.Redacted(), err)
	}
	if err := checked(h.Digest(), attrs); err != nil {
		return err
	}
	if err := dress(f, attrs, resp.Header.Get("Last-Modified")); err != nil {
		return err
	}
	a.Facts = map[string]string{factName: name, factDigest: h.Digest().String(), factETag: resp.Header.Get("ETag"), factModified: resp.Header.Get("Last-Modified")}
	return f.Close()
}

// dress gives the file the mode, owner and time that it has in the build.
func dress(f *os.File, attrs map[string]string, modified string) error {
	mode, ids := uint64(0o600), [2]int{}
	var err error
	if text := attrs[pb.AttrHTTPPerm]; text != "" {
		if mode, err = strconv.ParseUint(text, 0, 12); err != nil {
			return fault.New(fault.Invalid, "invalid mode %s of a file", text)
		}
	}
	for i, text := range []string{attrs[pb.AttrHTTPUID], attrs[pb.AttrHTTPGID]} {
		if text == "" {
			continue
		}
		if ids[i], err = strconv.Atoi(text); err != nil {
			return fault.New(fault.Invalid, "invalid owner %s of a file", text)
		}
	}
	when, err := http.ParseTime(modified)
	if err != nil {
		when = time.Unix(0, 0)
	}
	ts := unix.NsecToTimeval(when.UnixNano())
	return errors.Join(f.Chown(ids[0], ids[1]), unix.Fchmod(int(f.Fd()), uint32(mode)), unix.Futimes(int(f.Fd()), []unix.Timeval{ts, ts}))
}

// fileNameOf is the name that is asked for, or that the server says, or the last
// part of the address: one name, that leads nowhere else.
func fileNameOf(resp *http.Response, u *url.URL, attrs map[string]string) string {
	names := []string{attrs[pb.AttrHTTPFilename]}
	if _, params, err := mime.ParseMediaType(resp.Header.Get("Content-Disposition")); err == nil {
		names = append(names, params["filename"])
	}
	for _, name := range append(names, u.Path) {
		if base := path.Base(path.Clean("/" + name)); base != "/" && base != "." && base != ".." && !strings.ContainsRune(base, 0) {
			return base
		}
	}
	return "download"
}

// empty removes what is in a directory of ours.
func empty(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	f, err := root.Open(".")
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for _, name := range names {
		err = errors.Join(err, root.RemoveAll(name))
	}
	if err != nil {
		return fmt.Errorf("cannot clear a directory of the build: %w", err)
	}
	return nil
}
