package volume

import (
	"errors"
	"os"

	"github.com/docker/go-units"

	"github.com/tarehq/tare/fault"
	"github.com/tarehq/tare/internal/quota"
)

// sizeOption bounds what a local volume holds, as in --opt size=10G.
const sizeOption = "size"

// size is the bytes that a volume may hold, 0 for as many as there is room for.
func (r *Record) size() (int64, error) {
	text, asked := r.Options[sizeOption]
	if !asked || r.Driver != Local {
		return 0, nil
	}
	n, err := units.RAMInBytes(text)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Invalid, "invalid size: '%s': want a number of bytes, or one with a unit, such as 10G", text)
	}
	return n, nil
}

// bound puts a volume's size in force on its directory, which is new.
func bound(data *os.File, r Record) error {
	size, err := r.size()
	if err != nil || size == 0 {
		return err
	}
	err = quota.Check(data)
	var why quota.Unsupported
	if errors.As(err, &why) {
		return fault.New(fault.Invalid, "quota size requested but no quota support: %s", string(why))
	}
	if err != nil {
		return err
	}
	return quota.Set(data, uint64(size))
}
