package bucket

import (
	"strconv"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/tarehq/tare/test/s3"
)

// TestRecord has two registries count together.
func TestRecord(t *testing.T) {
	c := configFor(t, s3.Start(t, "registry"))
	list := []Record{openAt(t, c, nil).Record("count"), openAt(t, c, nil).Record("count")}
	if data, err := list[0].Read(t.Context()); err != nil || data != nil {
		t.Fatalf("a new record has %q, %v", data, err)
	}
	const each = 5
	var work errgroup.Group
	for _, r := range list {
		work.Go(func() error {
			for range each {
				err := r.Change(t.Context(), func(data []byte) ([]byte, error) {
					n, _ := strconv.Atoi(string(data))
					return strconv.AppendInt(nil, int64(n)+1, 10), nil
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	if data, err := list[1].Read(t.Context()); err != nil || string(data) != strconv.Itoa(2*each) {
		t.Errorf("the count is %q, %v", data, err)
	}
}
