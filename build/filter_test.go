package build

import "testing"

func TestFilters(t *testing.T) {
	u := Usage{ID: "abcdef", Type: TypeRegular, Description: "RUN true", Parents: []string{"p"}, Shared: true}
	for filter, want := range map[string]bool{
		"": true, "id~=abc": true, "id==xyz": false, "type==regular": true, "type!=regular": false, "type==regular,inuse": false, "shared": true,
		"shared==false": false, "mutable": false, "immutable": true, "immutable==false": false, "parents==p": true, "description~=true": true,
	} {
		match, err := ParseFilters([]string{filter})
		if err != nil || match(u) != want {
			t.Errorf("%q fits: %v, %v", filter, !want, err)
		}
	}
	if _, err := ParseFilters([]string{"colour==red"}); err == nil {
		t.Error("an unknown filter was taken")
	}
	if match, err := ParseFilters([]string{"inuse", "shared"}); err != nil || !match(u) {
		t.Error("of two filters one is enough")
	}
}
