package manifest

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/tarehq/tare/fault"
)

const (
	oci   = ocispec.MediaTypeImageManifest
	index = ocispec.MediaTypeImageIndex
)

// d256 is a digest as it stands in a document.
var (
	d256 = `"digest":"sha256:` + strings.Repeat("ab", 32) + `"`
	d512 = `"digest":"sha512:` + strings.Repeat("ab", 64) + `"`
)

func descriptor(more string) string { return `{"mediaType":"x/y",` + d256 + `,"size":1` + more + `}` }

// doc is an image whose members are followed by more.
func doc(more string) string {
	return `{"schemaVersion":2,"config":` + descriptor("") + `,"layers":[` + descriptor("") + `]` + more + `}`
}

func list(more string) string {
	return `{"schemaVersion":2,"manifests":[` + descriptor("") + `]` + more + `}`
}

func TestRead(t *testing.T) {
	data := doc(`,"mediaType":"` + oci + `","annotations":{"a":"b","A":"c"},"artifactType":"art/type","subject":` + descriptor("") + `,"unknown":{"Layers":[1,null,{"x":true}]}`)
	m, err := Read(oci+"; charset=utf-8", digest.SHA512, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	want := ocispec.Descriptor{MediaType: oci, Digest: digest.SHA512.FromString(data), Size: int64(len(data)), ArtifactType: "art/type", Annotations: map[string]string{"a": "b", "A": "c"}}
	if !reflect.DeepEqual(m.Descriptor, want) || len(m.Blobs) != 2 || m.Manifests != nil || m.Subject == "" || string(m.Data) != data {
		t.Errorf("%+v", m)
	}
	if m, err = Read("", digest.SHA256, []byte(list(`,"mediaType":"`+index+`"`))); err != nil || len(m.Manifests) != 1 || m.Blobs != nil || m.Subject != "" || m.Descriptor.MediaType != index {
		t.Errorf("%+v %v", m, err)
	}
	if m, err = Read(oci, digest.SHA256, []byte(doc(`,"subject":`+descriptor("")))); err != nil || m.Descriptor.ArtifactType != "x/y" {
		t.Errorf("the config's type stands in for the artifact's: %+v %v", m, err)
	}
	if m, err = Read(index, digest.SHA256, []byte(list(`,"subject":`+descriptor("")))); err != nil || m.Descriptor.ArtifactType != "" {
		t.Errorf("an index has no config: %+v %v", m, err)
	}
}

func TestLayersElsewhere(t *testing.T) {
	for _, mediaType := range layersElsewhere {
		data := strings.Replace(doc(""), `"layers":[{"mediaType":"x/y"`, `"layers":[{"mediaType":"`+mediaType+`"`, 1)
		if m, err := Read(oci, digest.SHA256, []byte(data)); err != nil || len(m.Blobs) != 1 {
			t.Errorf("%s: %+v %v", mediaType, m.Blobs, err)
		}
	}
}

func TestTaken(t *testing.T) {
	hello := `"digest":"` + string(digest.FromString("hello")) + `","size":5,"data":"` + base64.StdEncoding.EncodeToString([]byte("hello")) + `"`
	for name, c := range map[string]struct{ contentType, data string }{
		"no mediaType":     {oci, doc("")},
		"no Content-Type":  {"", doc(`,"mediaType":"` + oci + `"`)},
		"Docker's":         {DockerImage, doc(`,"mediaType":"` + DockerImage + `"`)},
		"Docker's list":    {DockerList, list(`,"mediaType":"` + DockerList + `"`)},
		"no layers":        {oci, `{"schemaVersion":2,"config":` + descriptor("") + `,"layers":[]}`},
		"null for nothing": {oci, `{"schemaVersion":2,"config":` + descriptor(`,"urls":null,"data":null,"platform":null,"annotations":null`) + `,"layers":null,"subject":null,"annotations":null}`},
		"empty index":      {index, `{"schemaVersion":2,"manifests":[]}`},
		"sha512":           {oci, strings.ReplaceAll(doc(""), d256, d512)},
		"a large image":    {oci, doc(`,"annotations":{"a":"` + strings.Repeat("x", maxReferrer) + `"}`)},
		"data":             {oci, doc(`,"subject":{"mediaType":"x/y",` + hello + `}`)},
		"platform":         {index, list(`,"subject":` + descriptor(`,"platform":{"os":"windows","architecture":"amd64","os.version":"10","os.features":["win32k"],"variant":"v1","features":["sse"]}`))},
		"pair of escapes":  {oci, doc(`,"x":"\ud83d\ude00 \\ud800 \u00e4"`)},
		"space around":     {oci, " \n" + doc("") + "\t\n"},
	} {
		if _, err := Read(c.contentType, digest.SHA256, []byte(c.data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRefused(t *testing.T) {
	deep := strings.Repeat(`{"a":`, maxDepth) + "1" + strings.Repeat("}", maxDepth)
	for name, c := range map[string]struct{ contentType, data string }{
		"nothing":                     {oci, ""},
		"an array":                    {oci, "[]"},
		"null":                        {oci, "null"},
		"half of it":                  {oci, doc("")[:40]},
		"something after it":          {oci, doc("") + "{}"},
		"two of it":                   {oci, doc("") + doc("")},
		"no UTF-8":                    {oci, doc(`,"x":"` + "\xff" + `"`)},
		"a byte order mark":           {oci, "\xef\xbb\xbf" + doc("")},
		"half a character":            {oci, doc(`,"x":"\ud800"`)},
		"the other half":              {oci, doc(`,"x":"\udc00"`)},
		"two first halves":            {oci, doc(`,"x":"\ud800\ud800"`)},
		"no type at all":              {"", doc("")},
		"an unknown type":             {"application/json", doc("")},
		"schema 1":                    {"application/vnd.docker.distribution.manifest.v1+prettyjws", doc("")},
		"no media type":               {"///", doc("")},
		"two types":                   {oci, doc(`,"mediaType":"` + DockerImage + `"`)},
		"an index as an image":        {oci, list("")},
		"an image as an index":        {index, doc("")},
		"an image that is an index":   {oci, doc(`,"manifests":[]`)},
		"an index that is an image":   {index, list(`,"layers":[]`)},
		"an index with a config":      {index, list(`,"config":` + descriptor(""))},
		"schema 1 inside":             {oci, doc(`,"fsLayers":[]`)},
		"Docker's without mediaType":  {DockerImage, doc("")},
		"no config":                   {oci, `{"schemaVersion":2,"layers":[]}`},
		"config is null":              {oci, `{"schemaVersion":2,"config":null,"layers":[]}`},
		"no layers":                   {oci, `{"schemaVersion":2,"config":` + descriptor("") + `}`},
		"no schemaVersion":            {oci, `{"config":` + descriptor("") + `,"layers":[]}`},
		"schemaVersion 1":             {oci, strings.Replace(doc(""), ":2", ":1", 1)},
		"schemaVersion 2.0":           {oci, strings.Replace(doc(""), ":2", ":2.0", 1)},
		"schemaVersion \"2\"":         {oci, strings.Replace(doc(""), ":2", `:"2"`, 1)},
		"layers twice":                {oci, doc(`,"layers":[]`)},
		"layers twice, escaped":       {oci, doc(`,"l\u0061yers":[]`)},
		"Layers":                      {oci, doc(`,"Layers":[]`)},
		"Manifests":                   {oci, doc(`,"MANIFESTS":[]`)},
		"ſchemaVersion":               {oci, doc(`,"ſchemaVersion":1`)},
		"digest twice":                {oci, doc(`,"subject":` + descriptor(","+d256))},
		"Digest":                      {oci, doc(`,"subject":` + descriptor(`,"Digest":"sha256:0"`))},
		"OS":                          {index, list(`,"subject":` + descriptor(`,"platform":{"os":"linux","OS":"windows"}`))},
		"an annotation twice":         {oci, doc(`,"annotations":{"a":"1","a":"2"}`)},
		"an unknown name twice":       {oci, doc(`,"x":{"y":1,"y":2}`)},
		"an annotation is a number":   {oci, doc(`,"annotations":{"a":1}`)},
		"artifactType is null":        {oci, doc(`,"artifactType":null`)},
		"layers is an object":         {oci, strings.Replace(doc(""), `"layers":[`, `"layers":{"a":[`, 1)[:len(doc(""))] + "]}}"},
		"a layer is null":             {oci, strings.Replace(doc(""), `"layers":[`, `"layers":[null,`, 1)},
		"a digest is short":           {oci, strings.Replace(doc(""), "abab", "ab", 1)},
		"a digest is large":           {oci, strings.Replace(doc(""), "abab", "ABAB", 1)},
		"a digest is md5":             {oci, strings.Replace(doc(""), "sha256", "md5", 1)},
		"a descriptor has no type":    {oci, strings.Replace(doc(""), `"mediaType":"x/y",`, "", 1)},
		"a descriptor has no size":    {oci, strings.Replace(doc(""), `,"size":1`, "", 1)},
		"a size is negative":          {oci, strings.Replace(doc(""), `"size":1`, `"size":-1`, 1)},
		"a size is 1.0":               {oci, strings.Replace(doc(""), `"size":1`, `"size":1.0`, 1)},
		"a size is 1e2":               {oci, strings.Replace(doc(""), `"size":1`, `"size":1e2`, 1)},
		"a size is beyond JavaScript": {oci, strings.Replace(doc(""), `"size":1`, `"size":9007199254740993`, 1)},
		"a size is beyond int64":      {oci, strings.Replace(doc(""), `"size":1`, `"size":9223372036854775808`, 1)},
		"data is another's":           {oci, doc(`,"subject":` + descriptor(`,"data":"aA=="`))},
		"data is no base64":           {oci, doc(`,"subject":` + descriptor(`,"data":"!"`))},
		"a large referrer":            {oci, doc(`,"subject":` + descriptor("") + `,"annotations":{"a":"` + strings.Repeat("x", maxReferrer) + `"}`)},
		"too deep":                    {oci, doc(`,"x":` + deep)},
	} {
		if m, err := Read(c.contentType, digest.SHA256, []byte(c.data)); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
}

// FuzzRead compares what is taken with what Go's decoder reads in it, for both
// of the types that a client may decode it into: nothing may differ, and what
// it reads as the other type has to be empty.
func FuzzRead(f *testing.F) {
	f.Add(oci, []byte(doc("")))
	f.Add(index, []byte(list("")))
	f.Add(oci, []byte(doc(`,"manifests":[]`)))
	f.Add(oci, []byte(doc(`,"Layers":[]`)))
	f.Add(oci, []byte(doc(`,"\u0053ubject":`+descriptor("")+`,"annotations":{"a":"\ud800"}`)))
	f.Add("", []byte(doc(`,"mediaType":"`+oci+`","subject":`+descriptor(`,"urls":["u"],"annotations":{"k":"v"}`))))
	f.Add(DockerList, []byte(list(`,"mediaType":"`+DockerList+`"`)))
	f.Fuzz(func(t *testing.T, contentType string, data []byte) {
		m, err := Read(contentType, digest.SHA256, data)
		if err != nil {
			if !errors.Is(err, fault.Invalid) {
				t.Fatalf("%v is not fault.Invalid", err)
			}
			return
		}
		var image ocispec.Manifest
		var list ocispec.Index
		if err := errors.Join(json.Unmarshal(data, &image), json.Unmarshal(data, &list)); err != nil {
			t.Fatalf("taken, but Go's decoder says %v", err)
		}
		if err := differ(m.Descriptor.MediaType, &image, &list, m.Blobs, m.Manifests); err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		subject := digest.Digest("")
		if image.Subject != nil {
			subject = image.Subject.Digest
		}
		if m.Subject != subject {
			t.Fatalf("the subject is %q and %q", m.Subject, subject)
		}
	})
}

func differ(mediaType string, image *ocispec.Manifest, list *ocispec.Index, blobs, manifests []ocispec.Descriptor) error {
	switch {
	case image.SchemaVersion != 2:
		return fmt.Errorf("schemaVersion is read as %d", image.SchemaVersion)
	case image.MediaType != "" && image.MediaType != mediaType:
		return fmt.Errorf("the type is %q and %q", mediaType, image.MediaType)
	case IsList(mediaType):
		if len(image.Layers) > 0 || image.Config.Digest != "" {
			return errors.New("a list is read as an image")
		}
		return same(manifests, list.Manifests)
	case len(list.Manifests) > 0:
		return errors.New("an image is read as a list")
	}
	want := []ocispec.Descriptor{image.Config}
	for _, layer := range image.Layers {
		if !strings.Contains(strings.Join(layersElsewhere, " ")+" ", layer.MediaType+" ") {
			want = append(want, layer)
		}
	}
	return same(blobs, want)
}

func same(a, b []ocispec.Descriptor) error {
	if len(a) != len(b) {
		return fmt.Errorf("%d and %d descriptors", len(a), len(b))
	}
	for i := range a {
		x, err1 := json.Marshal(a[i])
		y, err2 := json.Marshal(b[i])
		if err := errors.Join(err1, err2); err != nil || string(x) != string(y) {
			return fmt.Errorf("%s and %s: %v", x, y, err)
		}
	}
	return nil
}
