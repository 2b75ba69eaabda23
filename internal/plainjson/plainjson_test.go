package plainjson

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type inner struct {
	Name  string `json:"name"`
	Count *int64 `json:"count,omitempty"`
}

type outer struct {
	inner
	Plain   string
	List    []inner `json:"list"`
	ByName  map[string]string
	Yes     bool
	Skipped string `json:"-"`
	Words   []string
}

// FuzzUnmarshal takes what encoding/json takes, to the same values.
func FuzzUnmarshal(f *testing.F) {
	for _, text := range []string{
		`{}`, `null`, `{"name":"a","count":-3,"PLAIN":"x","list":[{"name":"b"},{"count":9223372036854775807}],"ByName":{"k":"v"},"Yes":true}`,
		`{"Words":["a","\u00e9\ud83d\ude00","\n"],"unknown":{"deep":[1,2.5e3,{"x":null}]},"list":null}`, `{"Yes":1}`, `[`, `{"name":"a"} x`,
		`{"Skipped":"x","-":"y"}`, `{"count":1.5}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var ours, theirs outer
		err := json.Unmarshal(text, &theirs)
		got := Unmarshal(append([]byte{}, text...), &ours)
		if err == nil && got != nil && !tooDeep(text) {
			t.Fatalf("%q: %v", text, got)
		}
		if err == nil && got == nil && json.Valid(text) && !repeats(text) {
			if diff := cmp.Diff(theirs, ours, cmp.AllowUnexported(outer{})); diff != "" {
				t.Fatalf("%q: %s", text, diff)
			}
		}
	})
}

// tooDeep tells whether the document may be nested deeper than is read here.
func tooDeep(text []byte) bool {
	depth, deepest := 0, 0
	for _, c := range text {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		deepest = max(deepest, depth)
	}
	return deepest > maxDepth/2
}

// repeats tells whether a member may stand in the document twice, which the two
// join differently, or has bytes that are no text.
func repeats(text []byte) bool {
	seen := map[string]int{}
	dec := json.NewDecoder(bytes.NewReader(text))
	for {
		token, err := dec.Token()
		if err != nil {
			break
		}
		if s, ok := token.(string); ok {
			if s = strings.ToLower(s); seen[s] > 0 {
				return true
			}
			seen[s]++
		}
	}
	for _, c := range text {
		if c >= 0x80 || c == '\\' {
			return true
		}
	}
	return false
}
