package server

import (
	"io"
	"net/http"

	"github.com/tarehq/tare/network/firewall"
)

// Firewall is what the handlers of our own paths need of networks;
// network.Service is it.
type Firewall interface {
	Rules() string
	Exposure() ([]firewall.Exposure, error)
	FirewallBackend() string // as info shows it
}

type firewallHandlers struct{ firewall Firewall }

func (h *firewallHandlers) routes() []route {
	return []route{
		{method: "GET", pattern: "/firewall/rules", handle: h.rules},
		{method: "GET", pattern: "/firewall/exposure", handle: h.exposure},
	}
}

// rules answers with text that nft -c -f would take.
func (h *firewallHandlers) rules(w http.ResponseWriter, _ *request) error {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, err := io.WriteString(w, h.firewall.Rules())
	return err
}

func (h *firewallHandlers) exposure(w http.ResponseWriter, _ *request) error {
	list, err := h.firewall.Exposure()
	if err != nil {
		return err
	}
	if list == nil {
		list = []firewall.Exposure{}
	}
	return writeJSON(w, http.StatusOK, list)
}
