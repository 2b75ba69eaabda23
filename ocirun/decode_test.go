package ocirun

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// fill gives every field of a value something that is not zero.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e, n)
		v.SetMapIndex(reflect.ValueOf("key \"quoted\" é <").Convert(v.Type().Key()), e)
	case reflect.String:
		v.SetString("text \\ \n <é> 🙂 " + itoa(*n))
	case reflect.Bool:
		v.SetBool(true)
	default:
		if v.CanInt() {
			v.SetInt(-int64(*n))
		} else if v.CanUint() {
			v.SetUint(uint64(*n))
		}
	}
}

func TestDecodeEveryField(t *testing.T) {
	var want, got specs.Spec
	n := 0
	fill(reflect.ValueOf(&want).Elem(), &n)
	for _, indent := range []bool{false, true} {
		b, err := json.Marshal(&want)
		if indent {
			b, err = json.MarshalIndent(&want, "", "\t")
		}
		if err != nil {
			t.Fatal(err)
		}
		var std specs.Spec
		if err := json.Unmarshal(b, &std); err != nil {
			t.Fatal(err)
		}
		got = specs.Spec{}
		if err := decodeSpec(b, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(std, got); d != "" {
			t.Error(d)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{}`, `{"process":{"args":["a"],"user":{"uid":1}}}`, `{"Hostname":"x"}`, `{"hooks":null}`, `{"a":[1,{"b":"\ud83d\ude42"}]}`,
		`{"hostname":"a`, `[`, `{"process":{"user":{"uid":-1}}}`, `{"process":{"user":{"uid":1e3}}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var ours, std specs.Spec
		text := string(b) // ours keeps parts of what it is given
		ourErr := decodeSpec([]byte(text), &ours)
		stdErr := json.Unmarshal(b, &std)
		if ourErr == nil && stdErr == nil && json.Valid(b) && isASCII(b) {
			x, _ := json.Marshal(ours)
			y, _ := json.Marshal(std)
			if string(x) != string(y) {
				t.Fatalf("%s\n%s", x, y)
			}
		}
		if stdErr == nil && ourErr != nil {
			t.Fatalf("refused %q: %v", b, ourErr)
		}
	})
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

func BenchmarkDecode(b *testing.B) {
	s := Default("rootfs", "true")
	s.Linux.Seccomp, _ = profile.GetDefaultProfile(s)
	text, err := json.Marshal(s)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := decodeSpec(text, new(specs.Spec)); err != nil {
			b.Fatal(err)
		}
	}
}
