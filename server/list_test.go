package server

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	wire "github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/image/inventory"
	"github.com/tarehq/tare/server/version"
)

// A list is the same JSON whether it was encoded in one piece or in many.
func TestWriteList(t *testing.T) {
	for _, n := range []int{0, 1, listPart, listPart + 1, 3*listPart - 1, 10 * listPart} {
		list := make([]string, n)
		for i := range list {
			list[i] = fmt.Sprintf("<%d>]", i)
		}
		want, got := httptest.NewRecorder(), httptest.NewRecorder()
		writeJSON(want, 200, list)
		if err := writeList(got, list); err != nil || got.Body.String() != want.Body.String() || got.Header().Get("Content-Type") != "application/json" ||
			n > listPart && got.Header().Get("Content-Length") != strconv.Itoa(want.Body.Len()) {
			t.Errorf("%d elements: %q, %v", n, got.Body, err)
		}
		var back []string
		if err := json.Unmarshal(got.Body.Bytes(), &back); err != nil || len(back) != n {
			t.Errorf("%d elements: %v", n, err)
		}
	}
}

// A long list of images is what encoding/json makes of it, in every version.
func TestLongListOfImages(t *testing.T) {
	r := newRig(t)
	for i := range 3 * listPart {
		id := digest.FromString(strconv.Itoa(i))
		r.images.list = append(r.images.list, image.Summary{
			ID: id.String(), Labels: map[string]string{"b": "<&>", "a": "\u2028\xff"}, RepoTags: []string{fmt.Sprintf("i%d:1", i)},
			Descriptor: &ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: id, Size: int64(i), Annotations: map[string]string{"x": "\"y\""}},
			Manifests:  []image.ManifestSummary{{ID: "m", Kind: image.ManifestKindImage, ImageData: &image.ImageProperties{Containers: []string{"c"}}}},
		})
	}
	for _, v := range []version.Version{version.Max, {Major: 1, Minor: 50}, {Major: 1, Minor: 47}, {Major: 1, Minor: 43}, {Major: 1, Minor: 24}} {
		want := httptest.NewRecorder()
		writeJSON(want, 200, v.Listed(slices.Clone(r.images.list)))
		if status, _, text := r.do("GET", "/v"+v.String()+"/images/json?manifests=1", ""); status != 200 || text != strings.TrimSpace(want.Body.String()) {
			t.Errorf("%s: %d %.200s\nwant %.200s", v, status, text, want.Body)
		}
	}
}

// The brief list is of no version.
func TestBriefListOfImages(t *testing.T) {
	r := newRig(t)
	r.images.briefs = []inventory.Brief{{ID: "i", Containers: 2, RepoTags: []string{"a:1"}, RepoDigests: []string{}, SharedSize: -1}}
	const want = `[{"Containers":2,"ContentSize":0,"Created":0,"Id":"i","RepoDigests":[],"RepoTags":["a:1"],"SharedSize":-1,"Size":0}]`
	for _, path := range []string{"/v1.24/images/json", "/images/json"} {
		r.images.filters = nil
		status, _, text := r.do("GET", path+"?manifests=1&brief=1&filters=%7B%22label%22:%5B%22x%22%5D%7D", "")
		if status != 200 || text != want || !r.images.filters["label"]["x"] {
			t.Errorf("%s: %d %s, filtered by %v", path, status, text, r.images.filters)
		}
	}
}

// A brief list of containers has what tare ps shows, in any version, and is kept
// apart from the whole one.
func TestBriefListOfContainers(t *testing.T) {
	r := newRig(t)
	whole := wire.Summary{ID: "i", Names: []string{"/n"}, Image: "m", ImageID: "d", Command: "c", Created: 1, Ports: []wire.PortSummary{{PrivatePort: 2, Type: "tcp"}},
		Status: "Up", State: "running", Labels: map[string]string{"a": "b"}, Mounts: []wire.MountPoint{{Source: "/"}}}
	const want = `{"Id":"i","Names":["/n"],"Image":"m","ImageID":"d","Command":"c","Created":1,"Ports":[{"IP":"","PrivatePort":2,"Type":"tcp"}],` +
		`"Labels":null,"State":"","Status":"Up","HostConfig":{},"NetworkSettings":null,"Mounts":null}`
	for _, path := range []string{"/v1.24/containers/json", "/containers/json"} {
		if status, _, _ := r.do("GET", path+"?brief=1&all=1", ""); status != 200 || !r.containers.list.All {
			t.Errorf("%s: %d", path, status)
		}
		item := whole
		r.containers.shape(&item)
		if text, _ := json.Marshal(item); string(text) != want {
			t.Errorf("%s: %s", path, text)
		}
		brief := r.containers.form
		if r.do("GET", path, ""); r.containers.form == brief {
			t.Errorf("%s: the whole list has the form of the brief one", path)
		}
	}
}

func TestListFiltersOfOldVersions(t *testing.T) {
	r := newRig(t)
	r.want(400, "invalid filter 'annotation'", "GET", `/v1.55/containers/json?filters={"annotation":["a"]}`, "")
	r.want(200, "*", "GET", `/v1.56/containers/json?filters={"annotation":["a"]}`, "")
}
