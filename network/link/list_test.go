package link

import (
	"testing"

	"github.com/vishvananda/netlink"
)

func TestInterruptedListIsAskedForAgain(t *testing.T) {
	asked := 0
	all, err := whole(func() ([]int, error) {
		if asked++; asked < 3 {
			return nil, netlink.ErrDumpInterrupted
		}
		return []int{1, 2}, nil
	})
	if err != nil || len(all) != 2 {
		t.Errorf("%v, %v", all, err)
	}
}
