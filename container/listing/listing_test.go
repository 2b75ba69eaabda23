package listing

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	wire "github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"

	"github.com/tarehq/tare/container/links"
	"github.com/tarehq/tare/container/record"
	"github.com/tarehq/tare/container/record/recordtest"
	"github.com/tarehq/tare/network"
)

// The text of a list is that of its summaries, whatever has changed since the
// last time, and in each form.
func TestListText(t *testing.T) {
	images := map[string]digest.Digest{"app": "sha256:old"}
	st := recordtest.Store(t, t.TempDir())
	s := &Listing{Store: st, Networks: &network.Service{}, Links: links.New(st, nil), Images: taggedImages{ids: images}}
	id := func(i int) string { return strings.Repeat(fmt.Sprint(i), 64) }
	for i := range 3 {
		recordtest.Add(t, s.Store, id(i), fmt.Sprint("c", i), false)
		r := recordtest.Stored(t, s.Store, id(i))
		r.Created, r.StartedAt = time.Unix(int64(i), 0), time.Now().Add(-25*time.Hour)
		r.Config.Image, r.Image.ID, r.State = "app", "sha256:old", record.Running
		r.Config.Labels = map[string]string{"State": "running", "Status": "", "<": `"Status":""`}
		r.HostConfig.Annotations = map[string]string{"Status": ""}
	}
	whole := func(*wire.Summary) {}
	plain := func(s *wire.Summary) { s.HostConfig.Annotations = nil }
	compare := func(what string) {
		t.Helper()
		for _, form := range []string{"whole", "whole", "plain", "whole"} { // again, and after the other one
			shape := map[string]func(*wire.Summary){"whole": whole, "plain": plain}[form]
			got, err := s.Text(context.Background(), Options{}, form, shape)
			if err != nil {
				t.Fatal(err)
			}
			list, err := s.List(context.Background(), Options{})
			if err != nil {
				t.Fatal(err)
			}
			for i := range list {
				shape(&list[i])
			}
			var want strings.Builder
			enc := json.NewEncoder(&want)
			enc.SetEscapeHTML(false)
			enc.Encode(list)
			if string(got) != want.String() {
				t.Errorf("%s, %s:\n%s, want\n%s", what, form, got, want.String())
			}
		}
	}
	compare("at first")
	if _, err := s.Store.Change(id(1), func(p *record.Progress) error { p.State = record.Paused; return nil }); err != nil {
		t.Fatal(err)
	}
	compare("one is paused")
	recordtest.Stored(t, s.Store, id(2)).StartedAt = time.Now().Add(-50 * time.Hour)
	compare("time has passed")
	images["app"] = "sha256:new"
	compare("the image's name is another's")
	for i := range 3 {
		if _, err := s.Store.Remove(id(i)); err != nil {
			t.Fatal(err)
		}
		compare("one is removed")
	}
	s.texts.swept = -64
	compare("none is left")
	if len(s.texts.byKey) != 0 {
		t.Errorf("%d texts are kept of no container", len(s.texts.byKey))
	}
}
