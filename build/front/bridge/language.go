package bridge

import (
	"context"
	"strings"

	dockerfileversion "github.com/moby/buildkit/frontend/dockerfile/version"

	"github.com/tarehq/tare/build"
	"github.com/tarehq/tare/build/front/progress"
	"github.com/tarehq/tare/reference"
)

// isOwn tells whether an image is the front end that is here already: the same
// program of the same makers, and at least as new. Who names a digest wants that.
func isOwn(source string) bool {
	repository, tag, ok := parts(source)
	return ok && (repository == "docker/dockerfile" && (tag == "latest" || tag == "labs" || tag == "1" || strings.HasPrefix(tag, "1.") || strings.HasPrefix(tag, "1-")) ||
		repository == "docker/dockerfile-upstream" && (tag == "master" || tag == "master-labs"))
}

func parts(source string) (repository, tag string, ok bool) {
	r, err := reference.Parse(source)
	if err != nil || strings.Contains(source, "@") {
		return "", "", false
	}
	repository, tag, ok = strings.Cut(reference.Familiar(r.String()), ":")
	return repository, tag, ok
}

// hasFixed tells whether a version that is no moving name, such as 1.4, is here
// as an image: somebody has brought it to have just that.
func (b *Bridge) hasFixed(ctx context.Context, source string) bool {
	if _, tag, ok := parts(source); !ok || !strings.HasPrefix(tag, "1.") {
		return false
	}
	r, err := reference.Parse(source)
	if err != nil {
		return false
	}
	_, err = b.Job.Resolve(ctx, "", build.ImageRequest{Ref: r.String(), Local: true})
	return err == nil
}

// sayOwn tells that the front end which was asked for is that of this process.
func (b *Bridge) sayOwn(source string) {
	if b.Tells == nil {
		return
	}
	_, end := progress.Task(b.Tells, "[internal] front end "+source+" is built in (Dockerfile "+dockerfileversion.Version()+")")
	end(nil)
}
