package label

import "testing"

func TestHas(t *testing.T) {
	labels := map[string]string{"a": "1", "b": "", "c": "x=y"}
	for condition, want := range map[string]bool{
		"a": true, "a=1": true, "a=2": false, "a=": false, "b": true, "b=": true, "c=x=y": true, "d": false, "d=": false, "": false,
	} {
		if got := Has(labels, condition); got != want {
			t.Errorf("%q: %v", condition, got)
		}
	}
}
