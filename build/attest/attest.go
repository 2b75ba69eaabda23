// Package attest says how an image was made: its provenance, in the shapes of
// SLSA and of BuildKit. No secret and no credential gets into it: of secrets it
// has the names, of addresses what is left without a user.
package attest

import (
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/attestations"
	provenance "github.com/moby/buildkit/solver/llbsolver/provenance/types"

	"github.com/tarehq/tare/fault"
)

// Options are what a client wants of the provenance.
type Options struct {
	Wanted       bool
	InlineOnly   bool // only for images
	Max          bool // with the definition, the file and the arguments
	Version      provenance.ProvenanceSLSA
	BuilderID    string
	Reproducible bool
	Filename     string
}

// SBOM is what a client wants of a scanner of images.
type SBOM struct {
	Generator string // an image, "" for none
	Params    map[string]string
}

// Read reads what is wanted of the options of a front end.
func Read(attrs map[string]string) (o Options, s SBOM, err error) {
	all, err := attestations.Parse(attestations.Filter(attrs))
	if err != nil {
		return o, s, fault.New(fault.Invalid, "%w", err)
	}
	if list, ok := all[attestations.KeyTypeProvenance]; ok {
		if o, err = options(list); err != nil {
			return o, s, err
		}
	}
	if list, ok := all[attestations.KeyTypeSbom]; ok && !isTrue(list["disabled"]) {
		s.Params = map[string]string{}
		for key, value := range list {
			switch key {
			case "generator":
				s.Generator = value
			case "inline-only", "disabled":
			default:
				s.Params[key] = value
			}
		}
	}
	return o, s, nil
}

func isTrue(text string) bool {
	yes, _ := strconv.ParseBool(text)
	return yes
}

// Default is what is noted of a build of which nobody asks for more.
func Default() Options {
	return Options{Max: true, Version: provenance.ProvenanceSLSA1, Filename: "provenance.json"}
}

func options(list map[string]string) (Options, error) {
	o := Default()
	o.Wanted, o.InlineOnly, o.BuilderID = !isTrue(list["disabled"]), isTrue(list["inline-only"]), list["builder-id"]
	if name := list["filename"]; name != "" {
		o.Filename = name
	}
	switch mode := list["mode"]; mode {
	case "", "max", "full":
	case "min":
		o.Max = false
	default:
		return o, fault.New(fault.Invalid, "invalid mode %q", mode)
	}
	if text := list["reproducible"]; text != "" {
		yes, err := strconv.ParseBool(text)
		if err != nil {
			return o, fault.New(fault.Invalid, "failed to parse reproducible flag %q: %w", text, err)
		}
		o.Reproducible = yes
	}
	if version := list["version"]; version != "" {
		o.Version = provenance.ProvenanceSLSA(strings.ToLower(version))
		if err := o.Version.Validate(); err != nil {
			return o, fault.New(fault.Invalid, "%w", err)
		}
	}
	return o, nil
}
