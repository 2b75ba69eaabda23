package manifest

import (
	"context"
	"fmt"
	"io"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/reference"
)

// Create makes a local list of images, which are looked up at their registries;
// amend adds to a list that is there. Nothing is stored unless all are found.
func (l *Lists) Create(ctx context.Context, out io.Writer, name string, images []string, amend bool) error {
	list, err := reference.Parse(name)
	if err != nil {
		return fault.New(fault.Invalid, "error parsing name for manifest list %s: %w", name, err)
	}
	there, err := l.images(list)
	if err != nil {
		return err
	}
	if len(there) > 0 && !amend {
		return fault.New(fault.Conflict, "refusing to amend an existing manifest list with no --amend flag")
	}
	refs, found := make([]reference.Ref, len(images)), make([]*Image, len(images))
	for i, name := range images {
		if refs[i], err = reference.Parse(name); err != nil {
			return err
		}
		if found[i], err = l.fetch(ctx, refs[i], version(refs[i]), refs[i].String()); err != nil {
			return err
		}
	}
	for i := range found {
		if err := l.keep(list, refs[i], found[i]); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "Created manifest list %s\n", list)
	return err
}

// Annotation changes what a list says about an image; empty parts stay as they
// are.
type Annotation struct {
	OS, Architecture, Variant, OSVersion string
	OSFeatures                           []string
}

// Annotate changes what a local list says about one of its images.
func (l *Lists) Annotate(name, image string, a Annotation) error {
	list, err := reference.Parse(name)
	if err != nil {
		return fault.New(fault.Invalid, "annotate: error parsing name for manifest list %s: %w", name, err)
	}
	ref, err := reference.Parse(image)
	if err != nil {
		return fault.New(fault.Invalid, "annotate: error parsing name for manifest %s: %w", image, err)
	}
	i, err := l.image(list, ref)
	if err != nil {
		return err
	}
	if i == nil {
		return fault.New(fault.NotFound, "manifest for image %s does not exist in %s", image, name)
	}
	p := i.Descriptor.Platform
	if p == nil {
		p = &ocispec.Platform{}
	}
	set(&p.OS, a.OS)
	set(&p.Architecture, a.Architecture)
	set(&p.Variant, a.Variant)
	set(&p.OSVersion, a.OSVersion)
	for _, f := range a.OSFeatures {
		if !slices.Contains(p.OSFeatures, f) {
			p.OSFeatures = append(p.OSFeatures, f)
		}
	}
	if !known(p.OS, p.Architecture) {
		return fault.New(fault.Invalid, "manifest entry for image has unsupported os/arch combination: %s/%s", p.OS, p.Architecture)
	}
	i.Descriptor.Platform = p
	return l.keep(list, ref, i)
}

func set(to *string, value string) {
	if value != "" {
		*to = value
	}
}

// machines are the architectures that each system runs on, as Go names them.
var machines = map[string][]string{
	"aix":       {"ppc64"},
	"android":   {"386", "amd64", "arm", "arm64"},
	"darwin":    {"386", "amd64", "arm", "arm64"},
	"dragonfly": {"amd64"},
	"freebsd":   {"386", "amd64", "arm", "arm64", "riscv64"},
	"illumos":   {"amd64"},
	"ios":       {"amd64", "arm64"},
	"js":        {"wasm"},
	"linux": {"386", "amd64", "arm", "arm64", "loong64", "mips", "mips64", "mips64le", "mipsle",
		"ppc64", "ppc64le", "riscv64", "s390x"},
	"netbsd":  {"386", "amd64", "arm", "arm64"},
	"openbsd": {"386", "amd64", "arm", "arm64", "ppc64", "riscv64"},
	"plan9":   {"386", "amd64", "arm"},
	"solaris": {"amd64"},
	"wasip1":  {"wasm"},
	"windows": {"386", "amd64", "arm", "arm64"},
}

func known(system, architecture string) bool { return slices.Contains(machines[system], architecture) }
