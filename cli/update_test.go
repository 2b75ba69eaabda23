package cli_test

import "testing"

// What update says of rates goes to the places of a container that is there.
func TestUpdateRates(t *testing.T) {
	f := newFake(t)
	const key = "POST /containers/c/update"
	f.on(key, 200, map[string]any{"Warnings": nil})
	r := f.call(nil, "update", "--net-in-rate", "10mbit", "--net-out-rate", "back=0", "c")
	want := `{"RestartPolicy":{},"NetworkingConfig":{"EndpointsConfig":{
		"*":{"DriverOpts":{"com.tarehq.network.in-rate":"10mbit"}},
		"back":{"DriverOpts":{"com.tarehq.network.in-rate":"10mbit","com.tarehq.network.out-rate":"0"}}}}}`
	if body := f.body(key); r != (result{0, "c\n", ""}) || !sameJSON(pruned(t, body), pruned(t, []byte(want))) {
		t.Errorf("%+v\n%s", r, body)
	}
}
