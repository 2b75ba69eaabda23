package front

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/tarehq/tare/archive"
	"github.com/tarehq/tare/archive/compression"
	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/fault"
)

// classic is POST /build: a context as a tar, everything else in the query, and
// the progress as a stream of JSON.
func (h *handler) classic(w http.ResponseWriter, r *http.Request) {
	out := &stream{w: w, enc: json.NewEncoder(w)}
	if err := h.buildClassic(r, out); err != nil {
		out.fail(err)
	}
}

func (h *handler) buildClassic(r *http.Request, out *stream) error {
	q := r.URL.Query()
	o, err := classicOptions(q)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(h.contexts, "context")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := receive(r.Context(), dir, r.Body); err != nil {
		return err
	}
	if err := h.checkDockerfile(dir, o); err != nil {
		return err
	}
	auths, err := registryAuth(r.Header.Get("X-Registry-Config"))
	if err != nil {
		return err
	}
	caller, end, err := h.own(r.Context(), dir, auths)
	if err != nil {
		return err
	}
	defer end()
	progress := newClassicProgress(out, o.quiet)
	job := h.solver.Job(&lent{caller, "classic" + dir}, progress, build.JobOptions{Epoch: o.epoch, Network: true, ExtraHosts: o.hosts})
	defer job.Close()
	b := &bridge{job: job, opts: o.front, worker: h.worker}
	results, err := h.solveFront(r.Context(), b, "dockerfile.v0")
	if err != nil {
		return err
	}
	id, err := h.publish(r.Context(), results, o.tags, o.epoch)
	if err != nil {
		return err
	}
	out.aux(id)
	if o.quiet {
		out.say(id + "\n")
		return nil
	}
	out.say("Successfully built " + strings.TrimPrefix(id, "sha256:")[:12] + "\n")
	for _, tag := range o.tags {
		out.say("Successfully tagged " + familiar(tag) + "\n")
	}
	return nil
}

// checkDockerfile says in Docker's words that the Dockerfile is missing.
func (h *handler) checkDockerfile(dir string, o *classicBuild) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	name := o.front["filename"]
	f, err := root.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.Invalid, "Cannot locate specified Dockerfile: %s", name)
	}
	if err != nil {
		return fault.New(fault.Invalid, "cannot open the Dockerfile %s: %w", name, err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() == 0 {
		return fault.New(fault.Invalid, "The Dockerfile (%s) cannot be empty", name)
	}
	return nil
}

// receive unpacks a context, which may be a Dockerfile alone.
func receive(ctx context.Context, dir string, body io.Reader) error {
	plain, _, err := compression.Decompress(body)
	if err != nil {
		return fault.New(fault.Invalid, "the context cannot be read: %w", err)
	}
	defer plain.Close()
	root, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := archive.Extract(ctx, root, plain, archive.Options{}); err != nil {
		return fault.New(fault.Invalid, "the context cannot be unpacked: %w", err)
	}
	_, err = io.Copy(io.Discard, plain)
	return err
}

// classicBuild is what a request asks for.
type classicBuild struct {
	front map[string]string // options of the front end
	tags  []string
	hosts []string
	quiet bool
	epoch time.Time
}

func classicOptions(q url.Values) (*classicBuild, error) {
	o := &classicBuild{front: map[string]string{"filename": filepath.Clean(orElse(q.Get("dockerfile"), "Dockerfile"))}, quiet: truth(q, "q")}
	if q.Get("remote") != "" {
		return nil, fault.New(fault.NotImplemented, "building from a remote context is not supported yet")
	}
	for name, prefix := range map[string]string{"buildargs": "build-arg:", "labels": "label:"} {
		values := map[string]*string{}
		if text := q.Get(name); text != "" {
			if err := json.Unmarshal([]byte(text), &values); err != nil {
				return nil, fault.New(fault.Invalid, "error reading %s: %w", name, err)
			}
		}
		for k, v := range values {
			if v != nil {
				o.front[prefix+k] = *v
			}
		}
	}
	if v := o.front["build-arg:SOURCE_DATE_EPOCH"]; v != "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid SOURCE_DATE_EPOCH: %s", v)
		}
		o.epoch = time.Unix(n, 0).UTC()
	}
	for param, option := range map[string]string{"target": "target", "platform": "platform", "networkmode": "force-network-mode", "cgroupparent": "cgroup-parent"} {
		if v := q.Get(param); v != "" && v != "default" && v != "bridge" {
			o.front[option] = v
		}
	}
	if truth(q, "nocache") {
		o.front["no-cache"] = ""
	}
	if truth(q, "pull") {
		o.front["image-resolve-mode"] = "pull"
	}
	if size := q.Get("shmsize"); size != "" && size != "0" {
		o.front["shm-size"] = size
	}
	if hosts := strings.Join(q["extrahosts"], ","); hosts != "" {
		o.front["add-hosts"] = strings.ReplaceAll(hosts, ":", "=")
	}
	for _, t := range q["t"] {
		if t == "" {
			continue
		}
		name, err := normalized(t)
		if err != nil {
			return nil, err
		}
		o.tags = append(o.tags, name)
	}
	return o, nil
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

func truth(q url.Values, name string) bool {
	v := strings.ToLower(strings.TrimSpace(q.Get(name)))
	return v != "" && v != "0" && v != "no" && v != "false" && v != "none"
}

// registryAuth reads the credentials of a request, by registry.
func registryAuth(header string) (map[string]build.Credentials, error) {
	auths := map[string]build.Credentials{}
	if header == "" {
		return auths, nil
	}
	var list map[string]struct{ Username, Password, IdentityToken, RegistryToken string }
	if err := json.NewDecoder(base64.NewDecoder(base64.URLEncoding, strings.NewReader(header))).Decode(&list); err != nil {
		return nil, fault.New(fault.Invalid, "the header X-Registry-Config cannot be read: %w", err)
	}
	for host, a := range list {
		auths[host] = build.Credentials(a)
	}
	return auths, nil
}

// stream is the answer: JSON objects, one after the other.
type stream struct {
	w     http.ResponseWriter
	enc   *json.Encoder
	began bool
}

func (s *stream) send(v any) {
	if !s.began {
		s.began = true
		s.w.Header().Set("Content-Type", "application/json")
	}
	_ = s.enc.Encode(v) // who does not read has gone: the context ends
	_ = http.NewResponseController(s.w).Flush()
}

func (s *stream) say(text string) { s.send(map[string]string{"stream": text}) }

func (s *stream) aux(id string) { s.send(map[string]any{"aux": map[string]string{"ID": id}}) }

// fail ends the answer with an error: by its status, if nothing was said yet.
func (s *stream) fail(err error) {
	if !s.began {
		writeError(s.w, err)
		return
	}
	detail := map[string]any{"message": err.Error()}
	var exit *build.ExitError
	if errors.As(err, &exit) {
		detail["code"] = exit.Code
	}
	s.send(map[string]any{"errorDetail": detail, "error": err.Error()})
}

func writeError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	switch fault.KindOf(err) {
	case fault.Invalid:
		status = http.StatusBadRequest
	case fault.NotFound:
		status = http.StatusNotFound
	case fault.NotImplemented:
		status = http.StatusNotImplemented
	case fault.Forbidden:
		status = http.StatusForbidden
	case fault.Unavailable:
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": err.Error()})
}
