package cli_test

import (
	"net/http"
	"strings"
	"testing"
)

func TestNetworkRulesAndExposure(t *testing.T) {
	f := newFake(t)
	f.handle("GET /firewall/rules", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("table ip t {\n}\n")) })
	f.on("GET /firewall/exposure", 200, []map[string]string{{"Container": "web", "Network": "bridge", "At": "0.0.0.0:80", "Target": "tcp 172.17.0.2:80", "From": "everyone", "Rule": "ip publish"}})
	for args, want := range map[string]string{
		"rules":    "table ip t {\n}\n",
		"exposure": "CONTAINER   NETWORK   AT           LEADS TO            REACHED BY   RULE\nweb         bridge    0.0.0.0:80   tcp 172.17.0.2:80   everyone     ip publish\n",
		"exposure --format {{.Container}}/{{.Rule}}": "web/ip publish\n",
	} {
		words := append([]string{"network"}, strings.Fields(args)...)
		if r := f.call(nil, words...); r != (result{0, want, ""}) {
			t.Errorf("%s: %+v", args, r)
		}
	}
}
