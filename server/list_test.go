package server

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"testing"
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
		if err := writeList(got, list); err != nil || got.Body.String() != want.Body.String() || got.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%d elements: %q, %v", n, got.Body, err)
		}
		var back []string
		if err := json.Unmarshal(got.Body.Bytes(), &back); err != nil || len(back) != n {
			t.Errorf("%d elements: %v", n, err)
		}
	}
}
