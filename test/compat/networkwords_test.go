package compat

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/tarehq/tare/internal/testutil"
	"github.com/tarehq/tare/test/daemon"
	"github.com/tarehq/tare/test/sid"
)

// networkWords are requests that both daemons answer by the same status and, if it
// is a refusal, the same words; with ~ ours go on where Docker's end. What is made is
// removed with the next line that says so.
const networkWords = `
POST /networks/create {}
POST /networks/create {"Name":" "}
POST /networks/create {"Name":"bridge"}
POST /networks/create {"Name":"host"}
POST /networks/create {"Name":"n","Driver":"host"}
POST /networks/create {"Name":"n","Driver":"null"}
POST /networks/create {"Name":"n","Driver":"overlay"}
POST /networks/create {"Name":"n","Scope":"swarm"}
POST /networks/create {"Name":"n","Ingress":true}
POST /networks/create {"Name":"n","EnableIPv4":false}
POST /networks/create {"Name":"n","IPAM":{"Config":[{"Subnet":"10.91.1.0/16"}]}}
POST /networks/create {"Name":"n","IPAM":{"Config":[{"Subnet":"10.91.0.0/16","Gateway":"10.92.0.1"}]}}
POST /networks/create {"Name":"n","IPAM":{"Config":[{"Subnet":"10.91.0.0/16","Gateway":"10.91.0.0"}]}}
POST /networks/create {"Name":"n","IPAM":{"Config":[{"Subnet":"10.92.0.0/16","IPRange":"10.0.0.0/8"}]}}
POST /networks/create {"Name":"n","IPAM":{"Config":[{"Subnet":"10.92.0.0/16","IPRange":"10.93.0.0/24"}]}}
POST /networks/create {"Name":"n","IPAM":{"Config":[{"Subnet":"10.93.0.0/16","AuxiliaryAddresses":{"a":"10.94.0.5"}}]}}
POST /networks/create {"Name":"n","IPAM":{"Config":[{"Subnet":"10.94.0.0/16","AuxiliaryAddresses":{"a":"10.94.0.5","b":"10.94.0.5"}}]}}
POST /networks/create {"Name":"n","IPAM":{"Config":[{"Subnet":"10.95.0.0/16","Gateway":"10.95.0.1","AuxiliaryAddresses":{"a":"10.95.0.1"}}]}}
POST /networks/create {"Name":"n","IPAM":{"Config":[{"Gateway":"10.96.0.1"}]}}
POST /networks/create {"Name":"n","IPAM":{"Config":[{"Subnet":"10.97.0.0/16"},{"Subnet":"10.98.0.0/16"}]}}
POST /networks/create {"Name":"n","IPAM":{"Driver":"null"}}
POST /networks/create {"Name":"n","Options":{"com.docker.network.bridge.enable_icc":"x"}}
POST /networks/create {"Name":"n","Options":{"com.docker.network.bridge.gateway_mode_ipv4":"bent"}}
POST /networks/create {"Name":"n","Options":{"com.docker.network.bridge.gateway_mode_ipv4":"isolated"}}
POST /networks/create {"Name":"n","Options":{"com.docker.network.bridge.gateway_mode_ipv6":"isolated"}}
POST /networks/create {"Name":"n","Options":{"com.docker.network.bridge.inhibit_ipv4":"x"}}
POST /networks/create {"Name":"n","Options":{"com.docker.network.bridge.default_bridge":"x"}}
~POST /networks/create {"Name":"n","Options":{"com.docker.network.driver.mtu":"-1"}}
POST /networks/create {"Name":"n","Options":{"com.docker.network.driver.mtu":"x"}}
POST /networks/create {"Name":"n","Options":{"com.docker.network.enable_ipv6":"x"}}
POST /networks/create {"Name":"n","Options":{"com.docker.network.bridge.nope":"1","com.docker.network.bridge.name":""}}
DELETE /networks/n
POST /networks/create {"Name":"n","ConfigOnly":true,"Internal":true}
POST /networks/create {"Name":"n","ConfigFrom":{"Network":"nope"}}
POST /networks/create {"Name":"n","Driver":"macvlan","Options":{"macvlan_mode":"x"}}
POST /networks/create {"Name":"n","Driver":"ipvlan","Options":{"ipvlan_mode":"x"}}
POST /networks/create {"Name":"n","Driver":"macvlan","Options":{"parent":"lo"}}
POST /networks/create {"Name":"n","Driver":"ipvlan","Options":{"parent":"lo"}}
~POST /networks/create {"Name":"n","Driver":"macvlan","Options":{"parent":"nope"}}
POST /networks/create {"Name":"n","Driver":"macvlan","Options":{"parent":"nope.10"}}
POST /networks/create {"Name":"u","IPAM":{"Config":[{"Subnet":"10.99.0.0/16","IPRange":"10.99.1.0/24"}]}}
POST /networks/create {"Name":"u"}
POST /networks/create {"Name":"v","IPAM":{"Config":[{"Subnet":"10.99.0.0/16"}]}}
POST /networks/create {"Name":"v","IPAM":{"Config":[{"Subnet":"10.99.7.0/24"}]}}
POST /networks/create {"Name":"six","EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"10.100.0.0/16"},{"Subnet":"fd00:99::/64"}]}}
POST /networks/create {"Name":"in","Internal":true}
POST /networks/create {"Name":"auto"}
GET /networks/nope
GET /networks/u?verbose=x
GET /networks/u?scope=swarm
GET /networks?filters={"nope":["x"]}
GET /networks?filters={"dangling":["x"]}
GET /networks?filters={"dangling":["true","false"]}
POST /networks/prune?filters={"name":["x"]}
~POST /networks/prune?filters={"until":["x"]}
POST /networks/prune?filters={"until":["1h","2h"]}
DELETE /networks/bridge
DELETE /networks/none
DELETE /networks/nope
POST /containers/create?name=web {"Image":"busybox","Cmd":["sleep","1000"]}
POST /containers/web/start
POST /networks/nope/connect {"Container":"web"}
POST /networks/u/connect {"Container":"nope"}
POST /networks/u/connect {}
POST /networks/host/connect {"Container":"web"}
POST /networks/none/connect {"Container":"web"}
POST /networks/bridge/connect {"Container":"web"}
POST /networks/u/connect {"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.98.0.1"}}}
POST /networks/u/connect {"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.99.0.0"}}}
POST /networks/u/connect {"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.99.1.0"}}}
POST /networks/u/connect {"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv6Address":"fd00::5"}}}
POST /networks/u/connect {"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv6Address":"10.99.0.5"}}}
POST /networks/auto/connect {"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.99.0.9"}}}
POST /networks/u/connect {"Container":"web","EndpointConfig":{"DriverOpts":{"com.docker.network.endpoint.sysctls":"x"}}}
POST /networks/u/connect {"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.99.3.3"}}}
POST /networks/u/connect {"Container":"web"}
DELETE /networks/u
POST /containers/create?name=two {"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"u"},"NetworkingConfig":{"EndpointsConfig":{"u":{"IPAMConfig":{"IPv4Address":"10.99.3.3"}}}}}
POST /containers/two/start
DELETE /containers/two?force=1
POST /networks/nope/disconnect {"Container":"web"}
POST /networks/u/disconnect {"Container":"nope"}
POST /networks/u/disconnect {"Container":"nope","Force":true}
POST /networks/in/disconnect {"Container":"web"}
POST /networks/in/disconnect {"Container":"web","Force":true}
POST /networks/u/disconnect {"Container":"web"}
POST /networks/u/disconnect {"Container":"web"}
POST /networks/bridge/disconnect {"Container":"web"}
POST /networks/bridge/connect {"Container":"web","EndpointConfig":{"Aliases":["x"]}}
POST /networks/bridge/connect {"Container":"web","EndpointConfig":{"IPAMConfig":{"IPv4Address":"172.17.0.9"}}}
POST /networks/bridge/connect {"Container":"web"}
POST /containers/create?name=two {"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"host"}}
POST /containers/two/start
POST /networks/u/connect {"Container":"two"}
POST /networks/host/connect {"Container":"two"}
POST /networks/host/disconnect {"Container":"two"}
DELETE /containers/two?force=1
POST /containers/create?name=two {"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"none"}}
POST /containers/two/start
POST /networks/u/connect {"Container":"two"}
POST /networks/none/disconnect {"Container":"two"}
POST /networks/u/connect {"Container":"two"}
POST /networks/none/connect {"Container":"two"}
DELETE /containers/two?force=1
POST /containers/create?name=two {"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"container:web"}}
POST /containers/two/start
POST /networks/u/connect {"Container":"two"}
POST /networks/bridge/disconnect {"Container":"two"}
DELETE /containers/two?force=1
POST /containers/create?name=two {"Image":"busybox","Hostname":"x","HostConfig":{"NetworkMode":"container:web"}}
POST /containers/create?name=two {"Image":"busybox","HostConfig":{"NetworkMode":"container:web","Dns":["192.0.2.1"]}}
POST /containers/create?name=two {"Image":"busybox","HostConfig":{"NetworkMode":"container:web","ExtraHosts":["a:192.0.2.1"]}}
POST /containers/create?name=two {"Image":"busybox","HostConfig":{"NetworkMode":"container:web","PortBindings":{"80/tcp":[{}]}}}
POST /containers/create?name=two {"Image":"busybox","ExposedPorts":{"80/tcp":{}},"HostConfig":{"NetworkMode":"container:web"}}
POST /containers/create?name=two {"Image":"busybox","HostConfig":{"NetworkMode":"container:"}}
POST /containers/create?name=two {"Image":"busybox","HostConfig":{"NetworkMode":"u"},"NetworkingConfig":{"EndpointsConfig":{"u":{"IPAMConfig":{"IPv4Address":"10.98.0.1"}}}}}
POST /containers/create?name=two {"Image":"busybox","HostConfig":{"NetworkMode":"u"},"NetworkingConfig":{"EndpointsConfig":{"u":null}}}
POST /containers/create?name=two {"Image":"busybox","HostConfig":{"NetworkMode":"bridge"},"NetworkingConfig":{"EndpointsConfig":{"bridge":{"Aliases":["q"]}}}}
POST /containers/create?name=two {"Image":"busybox","HostConfig":{"NetworkMode":"bridge"},"NetworkingConfig":{"EndpointsConfig":{"bridge":{"IPAMConfig":{"IPv4Address":"172.17.0.9"}}}}}
POST /containers/create?name=two {"Image":"busybox","HostConfig":{"NetworkMode":"none"},"NetworkingConfig":{"EndpointsConfig":{"none":{"IPAMConfig":{"IPv4Address":"10.99.0.1"}}}}}
POST /containers/create?name=two {"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"x"}]}}}
POST /containers/create?name=two {"Image":"busybox","HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"8000-7000"}]}}}
POST /containers/create?name=two {"Image":"busybox","Cmd":["sleep","1000"],"HostConfig":{"NetworkMode":"nope"}}
POST /containers/two/start
DELETE /containers/two?force=1
POST /containers/create?name=two {"Image":"busybox","Cmd":["sleep","1000"],"ExposedPorts":{"80/tcp":{}},"HostConfig":{"NetworkMode":"six","PortBindings":{"80/tcp":[{"HostPort":"18080"}]}}}
POST /containers/two/start
POST /containers/create?name=three {"Image":"busybox","Cmd":["sleep","1000"],"ExposedPorts":{"80/tcp":{}},"HostConfig":{"PortBindings":{"80/tcp":[{"HostPort":"18080"}]}}}
POST /containers/three/start
POST /networks/in/connect {"Container":"two"}
POST /networks/six/disconnect {"Container":"two"}
POST /containers/three/start
POST /networks/bridge/connect {"Container":"two"}
DELETE /containers/three?force=1
DELETE /containers/two?force=1
DELETE /networks/u
`

// TestNetworkWords asks our daemon and Docker's the same.
func TestNetworkWords(t *testing.T) {
	testutil.RequireRoot(t)
	place := sid.New(t)
	peer := place.Dockerd(t)
	d := daemon.Start(t)
	d.ImportBusybox(t)
	image := d.Command(t, "tare", "save", "busybox")
	image.Stdout = new(bytes.Buffer)
	if err := image.Run(); err != nil {
		t.Fatal(err)
	}
	if status, text := asked(t, peer, "POST", "/images/load", image.Stdout.(*bytes.Buffer), "application/x-tar"); status != 200 {
		t.Fatal(text)
	}
	lines := bufio.NewScanner(strings.NewReader(strings.TrimSpace(networkWords)))
	for lines.Scan() {
		line, loose := strings.CutPrefix(lines.Text(), "~")
		method, rest, _ := strings.Cut(line, " ")
		path, body, _ := strings.Cut(rest, " ")
		wantStatus, want := asked(t, peer, method, path, strings.NewReader(body), "application/json")
		status, text := asked(t, d.Host, method, path, strings.NewReader(body), "application/json")
		if status != wantStatus || text != want && !(loose && strings.HasPrefix(text, want)) {
			t.Errorf("%s:\n%d %s\nDocker's daemon:\n%d %s", line, status, text, wantStatus, want)
		}
	}
}

// differs is what is not the same in the words of two daemons.
// Which of two names of an address Docker meets first is chance.
var differs = regexp.MustCompile(`\b[0-9a-f]{12}([0-9a-f]{52})?\b|\d+ms|\([ab]:`)

// asked gives the status and, of a refusal, the words.
func asked(t *testing.T, host, method, path string, body io.Reader, kind string) (int, string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(host, "unix://"))
	}}}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://daemon/v1.51"+strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22", "[", "%5B", "]", "%5D").Replace(path), body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", kind)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var refusal struct{ Message string }
	if resp.StatusCode >= 400 {
		if err := json.NewDecoder(resp.Body).Decode(&refusal); err != nil {
			t.Fatal(err)
		}
	} else if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, differs.ReplaceAllString(refusal.Message, "ID")
}
