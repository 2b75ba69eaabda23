package keeper

import (
	"encoding/json"

	"github.com/tarehq/tare/ocirun"
	"github.com/tarehq/tare/supervise"
)

// warm does, while nobody waits for this process, what costs at its first
// time only: encoding/json looks at each type once, and code and heap come in
// page by page.
func warm() {
	var r supervise.CreateRequest
	unmarshal([]byte(`{"ID":"x","Rootfs":{"Lower":["a"]},"Log":{},"Runtime":{},"ConsoleSize":[1,1],"NetNS":true}`), &r)
	b, _ := json.Marshal(supervise.Started{})
	json.Marshal(supervise.Message{ID: 1, Method: "x", Body: b})
	json.Marshal(supervise.Exit{})
	var m supervise.Message
	json.Unmarshal([]byte(`{"id":1,"method":"x","body":{}}`), &m)
}

// rehearse does the same for the runtime, with a config.json of the daemon's.
func rehearse(config []byte) error {
	return ocirun.Rehearse(config)
}
