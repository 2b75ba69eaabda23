package version

import (
	"encoding/json"
	"time"

	"github.com/moby/moby/api/types/image"
)

// legacyImage adds what older versions had in the list of images.
type legacyImage struct {
	image.Summary
	VirtualSize int64
}

// Listed is GET /images/json, which did not count containers before 1.51.
func (v Version) Listed(list []image.Summary) any {
	if v.Before(51) {
		for i := range list {
			list[i].Containers = -1
		}
	}
	if v.Before(48) { // not so in what GET /system/df lists
		for i := range list {
			list[i].Descriptor = nil
		}
	}
	return v.images(list)
}

func (v Version) images(list []image.Summary) any {
	for i := range list {
		img := &list[i]
		switch {
		case !v.Before(43):
			if img.RepoTags == nil {
				img.RepoTags = []string{}
			}
			if img.RepoDigests == nil {
				img.RepoDigests = []string{}
			}
		case len(img.RepoTags) == 0 && len(img.RepoDigests) == 0:
			img.RepoTags, img.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
		}
	}
	if !v.Before(44) {
		if list == nil {
			list = []image.Summary{}
		}
		return list
	}
	old := make([]legacyImage, len(list))
	for i, img := range list {
		old[i] = legacyImage{img, img.Size}
	}
	return old
}

// The fields of an image's Config that were always there: those of the image
// until 1.51, and until 1.49 those of a container that no image sets.
const (
	imageConfigFields   = `{"User":"","Env":null,"Cmd":null,"Volumes":null,"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null}`
	runtimeConfigFields = `{"Hostname":"","Domainname":"","AttachStdin":false,"AttachStdout":false,"AttachStderr":false,"Tty":false,"OpenStdin":false,"StdinOnce":false,"Image":""}`
)

// legacyImageDetail is GET /images/{name}/json before 1.52.
type legacyImageDetail struct {
	image.InspectResponse
	Config        map[string]any
	Parent        string
	Comment       string
	Author        string
	DockerVersion string
	VirtualSize   int64 `json:",omitempty"`
}

// Image is the answer in that version. Only old ones ask for the image's parent.
func (v Version) Image(img image.InspectResponse, parent func(id string) string) (any, error) {
	if img.RepoTags == nil {
		img.RepoTags = []string{}
	}
	if img.RepoDigests == nil {
		img.RepoDigests = []string{}
	}
	if v.Before(48) {
		img.Descriptor = nil
	}
	if v.Before(53) {
		img.Identity = nil
	}
	if !v.Before(52) {
		return img, nil
	}
	old := legacyImageDetail{InspectResponse: img, Parent: parent(img.ID), Comment: img.Comment, Author: img.Author}
	if v.Before(44) {
		old.VirtualSize = img.Size
		if img.Created == "" {
			old.Created = time.Time{}.Format(time.RFC3339Nano)
		}
	}
	layers := []string{imageConfigFields}
	if img.Config != nil {
		config, err := json.Marshal(img.Config)
		if err != nil {
			return nil, err
		}
		layers = append(layers, string(config))
	}
	if v.Before(50) {
		layers = append([]string{runtimeConfigFields}, layers...)
	}
	for _, layer := range layers {
		if err := json.Unmarshal([]byte(layer), &old.Config); err != nil {
			return nil, err
		}
	}
	return old, nil
}
