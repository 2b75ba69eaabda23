// Package web shows a registry to people: its repositories, their tags, and what
// images are made of. It changes nothing, and shows nobody what they may not pull.
//
//	/                      repositories; ?q= searches, ?last= goes on
//	/images/REPO           tags
//	/images/REPO:TAG       an image, or what else a manifest is
//	/images/REPO@DIGEST
//	/login                 has a browser ask for name and password
//
// Whatever comes from an image is hostile: it is escaped, what would hide or
// reorder text is made visible, and the pages' policy lets nothing run but their
// own script, known by its hash. Pages are whole by themselves: they load nothing.
package web

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/registry"
	"github.com/tarehq/tare/registry/storage"
)

// Config is what the pages show, and to whom.
type Config struct {
	Storage    storage.Storage
	Authorizer registry.Authorizer // nil: everybody may see everything
	// Realm is what a browser is told when it has to ask for a password; "" if
	// there are none.
	Realm string
	Host  string // what clients call the registry; "" is as their requests say
	Log   *slog.Logger
}

// handler answers for pages.
type handler struct {
	Config
	places chan struct{} // how many pages are made at a time
}

// maxPages bounds the memory of pages: manifests of some megabytes are read.
const maxPages = 4

const (
	imagesPath = "/images/"
	loginPath  = "/login"
	iconPath   = "/favicon.svg"
)

// New returns the handler of the paths that Handles tells.
func New(c Config) http.Handler {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &handler{c, make(chan struct{}, maxPages)}
}

// Handles tells whether a path is a page's.
func Handles(path string) bool {
	return path == "/" || path == loginPath || path == iconPath || strings.HasPrefix(path, imagesPath)
}

// visit is a request for a page.
type visit struct {
	*http.Request
	h    *handler
	user string
	host string
}

// frame is what all pages have.
type frame struct {
	Title string
	Host  string
	User  string
	Login bool // can be asked for
	Query string
}

func (v *visit) frame(title string) frame {
	return frame{Title: title, Host: v.host, User: v.user, Login: v.h.Realm != "" && v.h.Authorizer != nil && v.user == ""}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	for name, value := range map[string]string{
		"Content-Security-Policy": policy(), "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin",
		"Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
	} {
		header.Set(name, value)
	}
	if r.URL.Path == iconPath {
		header.Set("Content-Type", "image/svg+xml")
		header.Set("Cache-Control", "max-age=86400")
		_, _ = w.Write(icon)
		return
	}
	v := &visit{Request: r, h: h}
	name, data, err := v.page()
	if reporter, ok := w.(registry.Reporter); ok {
		o := registry.Outcome{User: v.user}
		if err != nil {
			o.Message = err.Error()
		}
		reporter.Report(o)
	}
	if err != nil {
		h.fail(w, v, err)
		return
	}
	h.show(w, r, http.StatusOK, name, data)
}

var errElsewhere = errors.New("the page is elsewhere")

// page finds the template and its data.
func (v *visit) page() (name string, data any, err error) {
	if v.Method != http.MethodGet && v.Method != http.MethodHead {
		return "", nil, fault.New(fault.NotImplemented, "pages can only be looked at")
	}
	if v.host, err = v.h.hostOf(v.Request); err != nil {
		return "", nil, err
	}
	if err := v.identify(); err != nil {
		return "", nil, err
	}
	select {
	case v.h.places <- struct{}{}:
		defer func() { <-v.h.places }()
	case <-v.Context().Done():
		return "", nil, v.Context().Err()
	}
	switch path := v.URL.Path; path {
	case "/":
		data, err := v.repositories()
		return "repositories", data, err
	case loginPath:
		if v.user == "" && v.h.Realm != "" && v.h.Authorizer != nil {
			return "", nil, errLogin
		}
		return "", nil, errElsewhere
	default:
		repo, tag, d, ok := parse(strings.TrimPrefix(path, imagesPath))
		if !ok {
			return "", nil, errNothing
		}
		if err := v.mayPull(repo); err != nil {
			return "", nil, err
		}
		if tag == "" && d == "" {
			data, err := v.repository(repo)
			return "repository", data, err
		}
		data, err := v.image(repo, tag, d)
		return "image", data, err
	}
}

var errNothing = fault.New(fault.NotFound, "there is nothing here, or nothing that you may see")

// errLogin is that of somebody who has to say who they are.
var errLogin = fault.New(fault.Unauthorized, "log in to see this")

// identify finds who asks. Nobody in particular is fine; a wrong password is not.
func (v *visit) identify() error {
	if v.h.Authorizer == nil {
		return nil
	}
	user, err := v.h.Authorizer.Authorize(v.Request, registry.Access{})
	if err == nil {
		v.user = user
		return nil
	}
	if v.Header.Get("Authorization") != "" {
		return errLogin
	}
	return nil
}

// sees tells whether the repository may be pulled.
func (v *visit) sees(repo string) bool { return v.mayPull(repo) == nil }

// mayPull does not tell what is there from what is not, to those who may not know.
func (v *visit) mayPull(repo string) error {
	if v.h.Authorizer == nil {
		return nil
	}
	_, err := v.h.Authorizer.Authorize(v.Request, registry.Access{Repository: repo, Action: registry.Pull})
	switch {
	case err == nil:
		return nil
	case v.user == "" && v.h.Realm != "" && errors.Is(err, fault.Unauthorized):
		return errLogin
	}
	return errNothing
}

// parse takes REPO, REPO:TAG or REPO@DIGEST apart.
func parse(s string) (repo, tag string, d digest.Digest, ok bool) {
	repo, after, byDigest := strings.Cut(s, "@")
	if byDigest {
		d = digest.Digest(after)
		return repo, "", d, storage.ValidRepository(repo) && storage.ValidDigest(d)
	}
	repo, tag, tagged := strings.Cut(s, ":")
	return repo, tag, "", storage.ValidRepository(repo) && (!tagged || storage.ValidTag(tag))
}

var hostForm = sync.OnceValue(func() *regexp.Regexp { // compiling it takes longer than all else at the start
	return regexp.MustCompile(`^(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?)(:[0-9]{1,5})?$`)
})

// hostOf is what the client calls the registry, as the name of an image begins.
// It goes into commands that people copy.
func (h *handler) hostOf(r *http.Request) (string, error) {
	host := h.Host
	if host == "" {
		host = r.Host
	}
	if !hostForm().MatchString(host) {
		return "", fault.New(fault.Invalid, "the name that this registry is called by is none")
	}
	// A first component without dot or colon is no host to Docker.
	if !strings.ContainsAny(host, ".:") && host != "localhost" {
		if r.TLS != nil {
			return host + ":443", nil
		}
		return host + ":80", nil
	}
	return host, nil
}

var statuses = map[fault.Kind]int{
	fault.NotFound: http.StatusNotFound, fault.Invalid: http.StatusBadRequest, fault.Unauthorized: http.StatusUnauthorized,
	fault.NotImplemented: http.StatusMethodNotAllowed, fault.Unavailable: http.StatusServiceUnavailable,
}

func (h *handler) fail(w http.ResponseWriter, v *visit, err error) {
	if err == errElsewhere {
		http.Redirect(w, v.Request, "/", http.StatusSeeOther)
		return
	}
	status, ok := statuses[fault.KindOf(err)]
	sentence := err.Error()
	switch {
	case !ok || status == http.StatusServiceUnavailable:
		if !ok {
			status = http.StatusInternalServerError
		}
		sentence = "the registry failed: whoever runs it finds the reason in its log"
		if v.Context().Err() == nil {
			h.Log.Error("a page failed", slog.String("path", v.URL.Path), slog.Any("error", err))
		}
	case status == http.StatusNotFound:
		sentence = errNothing.Error()
	case status == http.StatusUnauthorized && h.Realm != "":
		w.Header().Set("WWW-Authenticate", `Basic realm="`+strings.NewReplacer(`"`, "", `\`, "").Replace(h.Realm)+`", charset="UTF-8"`)
	case status == http.StatusMethodNotAllowed:
		w.Header().Set("Allow", "GET, HEAD")
	}
	h.show(w, v.Request, status, "problem", struct {
		frame
		Sentence string
	}{v.frame("Nothing to show"), strings.ToUpper(sentence[:1]) + sentence[1:] + "."})
}

// show makes the page before it sends anything.
func (h *handler) show(w http.ResponseWriter, r *http.Request, status int, name string, data any) {
	var page bytes.Buffer
	if err := templates().ExecuteTemplate(&page, name, data); err != nil {
		h.Log.Error("a page failed", slog.String("path", r.URL.Path), slog.Any("error", err))
		status = http.StatusInternalServerError
		page.Reset()
		page.WriteString("the registry failed: whoever runs it finds the reason in its log\n")
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(page.Bytes())
	}
}
