package server

import (
	"strings"
	"testing"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/image"
)

func TestTransferNames(t *testing.T) {
	r := newRig(t)
	sum := "sha256:" + strings.Repeat("a", 64)
	for path, want := range map[string]string{
		"/images/create?fromImage=busybox&tag=1":                                   "pull docker.io/library/busybox:1 false ",
		"/images/create?fromImage=busybox:1":                                       "pull docker.io/library/busybox:1 false ",
		"/images/create?fromImage=busybox:":                                        "pull docker.io/library/busybox true ",
		"/images/create?fromImage=busybox:1&tag=2":                                 "pull docker.io/library/busybox:2 false ",
		"/images/create?fromImage=busybox&tag=" + sum:                              "pull docker.io/library/busybox@" + sum + " false ",
		"/images/create?fromImage=host:1/a/b":                                      "pull host:1/a/b true ",
		"/images/create?fromImage=a&tag=1&platform=linux/x":                        "pull docker.io/library/a:1 false linux/x",
		"/images/host:1/a/push?tag=2":                                              "push host:1/a:2 false ",
		"/images/host:1/a/push":                                                    "push host:1/a true ",
		"/images/a/push?tag=2&platform=" + `{"os":"linux","architecture":"arm64"}`: "push docker.io/library/a:2 false linux/arm64",
	} {
		r.images.call = ""
		path = strings.NewReplacer(`{`, "%7B", `}`, "%7D", `"`, "%22").Replace(path)
		if status, _, text := r.do("POST", path, ""); status != 200 || r.images.call != want {
			t.Errorf("%s: %d %s, called %q, want %q", path, status, text, r.images.call, want)
		}
	}
	r.want(400, "*", "POST", "/images/create?fromImage=UPPER&tag=1", "")
}

func TestTransferProgress(t *testing.T) {
	r := newRig(t)
	r.images.progress = []image.Progress{
		{ID: "1", Status: "Pulling from library/a", Tag: true},
		{ID: "abc", Status: "Waiting"},
		{ID: "abc", Status: "Downloading", Current: 5, Total: 10},
		{Status: "Digest: sha256:1"},
		{Aux: image.Pushed{Tag: "1", Digest: "sha256:1", Size: 3}},
	}
	want := `{"status":"Pulling from library/a","id":"1"}
{"status":"Waiting","progressDetail":{},"id":"abc"}
{"status":"Downloading","progressDetail":{"current":5,"total":10},"id":"abc"}
{"status":"Digest: sha256:1"}
{"progressDetail":{},"aux":{"Tag":"1","Digest":"sha256:1","Size":3}}`
	status, h, text := r.do("POST", "/images/create?fromImage=a&tag=1", "")
	if status != 200 || h.Get("Content-Type") != "application/json" || text != want {
		t.Errorf("%d %s\n%s", status, h.Get("Content-Type"), text)
	}
	// What fails later is told in the stream, what fails at once as the answer.
	r.images.err = fault.New(fault.NotFound, "manifest for a:1 not found")
	if status, _, text = r.do("POST", "/images/a/push?tag=1", ""); status != 200 ||
		!strings.HasSuffix(text, `{"errorDetail":{"message":"manifest for a:1 not found"},"error":"manifest for a:1 not found"}`) {
		t.Errorf("%d %s", status, text)
	}
	r.images.progress = nil
	r.want(404, "manifest for a:1 not found", "POST", "/images/create?fromImage=a&tag=1", "")
}

func TestImagePruneAndAttestations(t *testing.T) {
	r := newRig(t)
	status, _, text := r.do("POST", "/images/prune?filters=%7B%22dangling%22:%7B%22false%22:true%7D%7D", "")
	if status != 200 || text != `{"ImagesDeleted":null,"SpaceReclaimed":42}` || !r.images.filters["dangling"]["false"] {
		t.Errorf("%d %s, filters %v", status, text, r.images.filters)
	}
	status, _, text = r.do("GET", "/images/a/b:1/attestations?type=x&type=y&statement=1", "")
	if status != 200 || text != "[]" || r.images.call != "attestations a/b:1  [x y] true" {
		t.Errorf("%d %s, called %q", status, text, r.images.call)
	}
}

func TestDiskUsage(t *testing.T) {
	r := newRig(t)
	for path, want := range map[string]string{
		"/v1.53/system/df?type=image":           `{"ImageUsage":{"Reclaimable":30,"TotalCount":1,"TotalSize":100}}`,
		"/v1.53/system/df?type=image&verbose=1": `"Items":[{`,
		"/v1.51/system/df?type=image":           `{"LayersSize":100,"Images":[{`,
		"/v1.41/system/df":                      `"Containers":3`,
		"/v1.53/system/df":                      `"LogUsage":{"ActiveCount":1,"TotalCount":2,"Reclaimable":12,"TotalSize":42}`,
		"/v1.53/system/df?verbose=1":            `{"ID":"c","Name":"n","Driver":"json-file","Running":true,"Size":30}`,
		"/v1.43/system/df":                      `"LogUsage":{"ActiveCount":1`,
		"/v1.52/system/df?type=image":           `"ImageUsage":{"Reclaimable":30`,
		"/v1.43/system/df?type=volume":          `{"LayersSize":0,"Images":null,"Containers":null,"Volumes":[],"BuildCache":null}`,
	} {
		if status, _, text := r.do("GET", path, ""); status != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %s", path, status, text, want)
		}
	}
	r.want(400, "unknown object type: x", "GET", "/system/df?type=x", "")
}
