package ocirun

import (
	"reflect"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/tarehq/tare/internal/plainjson"
)

// decodeSpec reads a configuration.
func decodeSpec(b []byte, s *specs.Spec) error { return newDecoder(b).document(s) }

// DecodeProcess reads a process, as exec takes it.
func DecodeProcess(b []byte, p *specs.Process) error { return plainjson.Unmarshal(b, p) }

// DecodeResources reads limits, as update takes them.
func DecodeResources(b []byte, r *specs.LinuxResources) error { return plainjson.Unmarshal(b, r) }

// decoder reads a configuration, whose seccomp profile it may know already.
type decoder struct {
	*plainjson.Decoder
	profile string // the text of the seccomp profile, if it had to be decoded
}

// newDecoder makes a decoder of b, which is not changed any more: strings are
// parts of it.
func newDecoder(b []byte) *decoder {
	d := &decoder{Decoder: plainjson.New(b)}
	d.Pointer = d.seccomp
	return d
}

func (d *decoder) document(s *specs.Spec) error { return d.Document(reflect.ValueOf(s).Elem()) }

var profileType = reflect.TypeFor[*specs.LinuxSeccomp]()

// seccomp reads a profile, most of a configuration, or takes the rehearsed one
// if it has the same text.
func (d *decoder) seccomp(v reflect.Value, depth int) (read bool, err error) {
	if v.Type() != profileType {
		return false, nil
	}
	rest := d.Rest()
	if last := lastFilter.Load(); last != nil && last.text != "" && strings.HasPrefix(rest, last.text) {
		d.Skip(len(last.text))
		v.Set(reflect.ValueOf(last.of))
		return true, nil
	}
	if keptIn != "" {
		text, err := d.Pass(depth)
		if err != nil {
			return true, err
		}
		if f := takeFilter(text); f != nil {
			lastFilter.Store(f)
			v.Set(reflect.ValueOf(f.of))
			return true, nil
		}
		d.Skip(-len(text))
	}
	of := new(specs.LinuxSeccomp)
	v.Set(reflect.ValueOf(of))
	err = d.Value(v.Elem(), depth)
	d.profile = rest[:len(rest)-len(d.Rest())]
	lastProfile.Store(&decoded{of, d.profile})
	return true, err
}
