package server

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// fakeAuthorizers notes what it is asked, and refuses what contains a word.
type fakeAuthorizers struct {
	mu               sync.Mutex
	names            []string
	asked            []question
	methods          []string
	refuse, refuseIn string // a word of the question's JSON, and the method
}

func (a *fakeAuthorizers) Names() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.names)
}

func (a *fakeAuthorizers) Ask(_ context.Context, _, method string, q, v any) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked, a.methods = append(a.asked, q.(question)), append(a.methods, method)
	said := q.(question)
	text, err := json.Marshal(map[string]any{"uri": said.RequestURI, "in": string(said.RequestBody), "out": string(said.ResponseBody)})
	*v.(*verdict) = verdict{Allow: a.refuse == "" || a.refuseIn != method || !strings.Contains(string(text), a.refuse), Msg: "no " + a.refuse}
	return err
}

func (a *fakeAuthorizers) take() (methods []string, asked []question) {
	a.mu.Lock()
	defer a.mu.Unlock()
	methods, asked = a.methods, a.asked
	a.methods, a.asked = nil, nil
	return methods, asked
}

// Plugins see what the handler sees, not what the bytes look like to others.
func TestAuthorizedBody(t *testing.T) {
	r := newRig(t)
	r.authorizers.names = []string{"p"}
	r.authorizers.refuse, r.authorizers.refuseIn = `\"Privileged\":true`, "AuthZPlugin.AuthZReq"
	for _, body := range []string{
		`{"Image":"x","HostConfig":{"Privileged":true}}`,
		`{"Image":"x","hostconfig":{"privileged":true}}`,
		`{"Image":"x","HostConfig":{"Privileged":false},"HOSTCONFIG":{"Privileged":true}}`,
		`{"Image":"x","pad":"` + strings.Repeat("a", 2<<20) + `","HostConfig":{"Privileged":true}}`,
	} {
		r.want(403, `authorization denied by plugin p: no \"Privileged\":true`, "POST", "/v1.44/containers/create?name=aa", body)
	}
	r.authorizers.take()
	if status, _, text := r.do("POST", "/v1.44/containers/create?name=aa", `{"Image":"x","HostConfig":{"Privileged":false}}`); status != 201 {
		t.Fatalf("%d %s", status, text)
	}
	methods, asked := r.authorizers.take()
	if want := []string{"AuthZPlugin.AuthZReq", "AuthZPlugin.AuthZRes"}; !slices.Equal(methods, want) {
		t.Fatalf("asked %v, want %v", methods, want)
	}
	if q := asked[1]; q.RequestMethod != "POST" || q.RequestURI != "/v1.44/containers/create?name=aa" || q.ResponseStatusCode != 201 ||
		!strings.Contains(string(q.ResponseBody), `"Id"`) || !strings.Contains(string(q.RequestBody), `"Image":"x"`) {
		t.Errorf("asked %+v", q)
	}
}

// An answer is kept back, short or long; passwords are not shown.
func TestAuthorizedAnswer(t *testing.T) {
	r := newRig(t)
	r.authorizers.names = []string{"p", "q"}
	r.authorizers.refuse, r.authorizers.refuseIn = "ApiVersion", "AuthZPlugin.AuthZRes"
	r.want(403, "authorization denied by plugin p: no ApiVersion", "GET", "/version", "")
	r.authorizers.take()
	r.do("POST", "/auth", `{"username":"u","password":"secret","serveraddress":"x.example"}`)
	if _, asked := r.authorizers.take(); len(asked) == 0 || asked[0].RequestBody != nil {
		t.Errorf("asked %+v", asked)
	}
	r.do("GET", "/_ping", "")
	if methods, _ := r.authorizers.take(); len(methods) != 4 {
		t.Errorf("two plugins were asked %v", methods)
	}
}

// TestEveryBodyIsAuthorized: rows say whether their handler decodes a body, and
// those that say so are all that do.
func TestEveryBodyIsAuthorized(t *testing.T) {
	r := newRig(t)
	r.authorizers.names = []string{"p"}
	said := 0
	for _, rows := range r.handler().routes {
		for _, row := range rows {
			if row.decodes {
				said++
			}
		}
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for _, f := range files {
		if strings.HasSuffix(f.Name(), ".go") && !strings.HasSuffix(f.Name(), "_test.go") {
			text, err := os.ReadFile(f.Name())
			if err != nil {
				t.Fatal(err)
			}
			calls += len(regexp.MustCompile(`\br\.json\(`).FindAll(text, -1))
		}
	}
	if said != calls {
		t.Errorf("%d rows say that they decode a body, %d handlers do", said, calls)
	}
	for _, path := range []string{"/containers/x/update", "/containers/x/exec", "/exec/x/start", "/networks/create", "/networks/x/connect",
		"/networks/x/disconnect", "/volumes/create", "/commit", "/containers/x/start", "/containers/x/kill"} {
		r.authorizers.take()
		r.authorizers.refuse, r.authorizers.refuseIn = path, "AuthZPlugin.AuthZReq"
		r.want(403, "authorization denied by plugin p: no "+path, "POST", path, `{}`)
	}
}
