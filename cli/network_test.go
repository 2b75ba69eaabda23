package cli_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

// TestNetworkCreate compares the request of each command line.
func TestNetworkCreate(t *testing.T) {
	f := newFake(t)
	f.on("POST /networks/create", 201, map[string]any{"Id": "abc", "Warning": "careful"})
	for args, want := range map[string]string{
		"n": `{"Name":"n","Driver":"bridge","IPAM":{"Driver":"default"}}`,
		"--internal --attachable --ipv6 --ipv4=false -d macvlan -o parent=eth0 --opt a= --label x=y --label z n": `{"Name":"n","Driver":"macvlan",
			"EnableIPv4":false,"EnableIPv6":true,"IPAM":{"Driver":"default"},"Internal":true,"Attachable":true,"Options":{"parent":"eth0","a":""},"Labels":{"x":"y","z":""}}`,
		"--config-only --scope local --ingress --ipam-driver d --ipam-opt k=v n": `{"Name":"n","Driver":"bridge","Scope":"local","Ingress":true,
			"ConfigOnly":true,"IPAM":{"Driver":"d","Options":{"k":"v"}}}`,
		"--config-from c n": `{"Name":"n","Driver":"bridge","ConfigFrom":{"Network":"c"},"IPAM":{"Driver":"default"}}`,
		"--subnet 10.1.0.0/16,fd00:1::/64 --subnet 10.2.0.0/16 --gateway 10.2.0.1,fd00:1::1 --ip-range 10.1.5.0/24 --aux-address r=10.2.0.9 n": `{"Name":"n",
			"Driver":"bridge","IPAM":{"Driver":"default","Config":[{"Subnet":"10.1.0.0/16","IPRange":"10.1.5.0/24"},{"Subnet":"fd00:1::/64","Gateway":"fd00:1::1"},
			{"Subnet":"10.2.0.0/16","Gateway":"10.2.0.1","AuxiliaryAddresses":{"r":"10.2.0.9"}}]}}`,
	} {
		r := f.call(nil, append([]string{"network", "create"}, strings.Fields(args)...)...)
		if r != (result{0, "abc\n", "WARNING: careful\n"}) || !sameJSON(f.body("POST /networks/create"), []byte(want)) {
			t.Errorf("%s: %+v\n%s\nwant\n%s", args, r, f.body("POST /networks/create"), want)
		}
	}
	asked := len(f.asked())
	for args, want := range map[string]string{
		"--gateway 10.0.0.1 n":                                                   "every ip-range or gateway must have a corresponding subnet\n",
		"--subnet 10.0.0.0 n":                                                    "invalid subnet: invalid CIDR address: 10.0.0.0\n",
		"--subnet 10.0.0.0/8 --subnet 10.1.0.0/16 n":                             "multiple overlapping subnet configuration is not supported\n",
		"--subnet 10.0.0.0/8 --gateway 11.0.0.1 n":                               "no matching subnet for gateway 11.0.0.1\n",
		"--subnet 10.0.0.0/8 --ip-range 11.0.0.0/24 n":                           "no matching subnet for range 11.0.0.0/24\n",
		"--subnet 10.0.0.0/8 --aux-address a=11.0.0.1 n":                         "no matching subnet for aux-address 11.0.0.1\n",
		"--subnet 10.0.0.0/8,11.0.0.0/8 --gateway 10.0.0.1 --gateway 10.0.0.2 n": "cannot configure multiple gateways (10.0.0.2, 10.0.0.1) for the same subnet (10.0.0.0/8)\n",
		"--subnet 10.0.0.0/8,11.0.0.0/8 --ip-range 10.1.0.0/16,10.2.0.0/16 n":    "cannot configure multiple ranges (10.2.0.0/16, 10.1.0.0/16) on the same subnet (10.0.0.0/8)\n",
		"--subnet 10.0.0.0/8 --gateway ten n":                                    "invalid argument \"ten\" for \"--gateway\" flag: invalid string being converted to IP address: ten\n",
	} {
		if r := f.call(nil, append([]string{"network", "create"}, strings.Fields(args)...)...); r != (result{1, "", want}) {
			t.Errorf("%s: %+v, want %q", args, r, want)
		}
	}
	if r := f.call(nil, "network", "create", "--label", "a b=c", "n"); r.code != 125 || !strings.Contains(r.err, "label 'a b' contains whitespaces") {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "network", "create"); r.code != 1 || !strings.HasPrefix(r.err, "tare: 'tare network create' requires 1 argument\n") {
		t.Errorf("%+v", r)
	}
	if len(f.asked()) != asked {
		t.Error("the daemon was asked in vain")
	}
}

func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}

func TestNetworkConnect(t *testing.T) {
	f := newFake(t)
	f.on("POST /networks/n%2F1/connect", 200, nil)
	f.on("POST /networks/n/connect", 200, nil)
	f.on("POST /networks/n/disconnect", 200, nil)
	for args, want := range map[string]string{
		"connect n c": `{"Container":"c","EndpointConfig":{"IPAMConfig":{}}}`,
		"connect --ip 10.0.0.9 --ip6 fd00::9 --link-local-ip 169.254.1.1,fe80::5 --alias a,b --alias d --link x:y --mac-address 02:00:00:00:00:09 --gw-priority -3 --driver-opt k=v=w n c": `{
			"Container":"c","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.0.0.9","IPv6Address":"fd00::9","LinkLocalIPs":["169.254.1.1","fe80::5"]},
			"Links":["x:y"],"Aliases":["a","b","d"],"DriverOpts":{"k":"v=w"},"GwPriority":-3,"MacAddress":"02:00:00:00:00:09"}}`,
		"connect --net-in-rate 10mbit --net-out-rate 1mbit --driver-opt k=v n c": `{"Container":"c","EndpointConfig":{"IPAMConfig":{},
			"DriverOpts":{"k":"v","com.tarehq.network.in-rate":"10mbit","com.tarehq.network.out-rate":"1mbit"}}}`,
		"disconnect n c":         `{"Container":"c"}`,
		"disconnect --force n c": `{"Container":"c","Force":true}`,
	} {
		words := strings.Fields(args)
		r := f.call(nil, append([]string{"network"}, words...)...)
		if body := f.body("POST /networks/n/" + words[0]); r != (result{}) || !sameJSON(body, []byte(want)) {
			t.Errorf("%s: %+v\n%s\nwant\n%s", args, r, body, want)
		}
	}
	for args, want := range map[string]string{
		"--ip ten n c":                  "invalid argument \"ten\" for \"--ip\" flag: failed to parse IP: \"ten\"\n",
		"--link-local-ip 1.1.1.1,x n c": "invalid argument \"x\" for \"--link-local-ip\" flag: failed to parse IP: \"x\"\n",
		"--mac-address 02:00 n c":       "invalid MAC address: \"02:00\"\n",
		"--driver-opt k n c":            "invalid key/value pair format in driver options\n",
	} {
		if r := f.call(nil, append([]string{"network", "connect"}, strings.Fields(args)...)...); r != (result{1, "", want}) {
			t.Errorf("%s: %+v, want %q", args, r, want)
		}
	}
	f.handle("POST /networks/n/connect", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, 403, "endpoint with name c already exists in network n")
	})
	if r := f.call(nil, "network", "connect", "n", "c"); r != (result{1, "", "Error response from daemon: endpoint with name c already exists in network n\n"}) {
		t.Errorf("%+v", r)
	}
}

func TestNetworkRmAndPrune(t *testing.T) {
	f := newFake(t)
	f.on("DELETE /networks/a", 204, nil)
	f.on("DELETE /networks/b", 204, nil)
	f.handle("DELETE /networks/x", func(w http.ResponseWriter, _ *http.Request) { fail(w, 404, "network x not found") })
	if r := f.call(nil, "network", "rm", "a", "x", "b"); r != (result{1, "a\nb\n", "Error response from daemon: network x not found\n"}) {
		t.Errorf("%+v", r)
	}
	if r := f.call(nil, "network", "remove", "-f", "x", "a"); r != (result{0, "a\n", ""}) {
		t.Errorf("%+v", r)
	}
	f.on("POST /networks/prune", 200, map[string]any{"NetworksDeleted": []string{"n1", "n2"}})
	const question = "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue? [y/N] "
	if r := f.call(strings.NewReader("y\n"), "network", "prune", "--filter", "label=x"); r != (result{0, question + "Deleted Networks:\nn1\nn2\n\n", ""}) {
		t.Errorf("%+v", r)
	}
	asked := f.asked()
	if last, _ := url.QueryUnescape(asked[len(asked)-1]); last != `POST /networks/prune?filters={"label":{"x":true}}` {
		t.Error(last)
	}
	if r := f.call(strings.NewReader("n\n"), "network", "prune"); r.out != question || len(f.asked()) != len(asked) {
		t.Errorf("%+v", r)
	}
	f.on("POST /networks/prune", 200, map[string]any{"NetworksDeleted": nil})
	if r := f.call(nil, "network", "prune", "-f"); r != (result{}) {
		t.Errorf("%+v", r)
	}
}
