package create

import (
	"fmt"
	"slices"

	wire "github.com/moby/moby/api/types/container"
	"github.com/tarehq/tare/image/catalog"
)

// Warnings are Docker's words about what is done as asked, and may not be meant.
func (req *Request) Warnings(img catalog.Image) []string {
	return slices.Concat(limitWarnings(req.HostConfig), platformWarnings(img, req.Platform), portWarnings(req.HostConfig))
}

// portWarnings are Docker's words about ports that a network without an address
// of its own cannot publish.
func portWarnings(h *wire.HostConfig) []string {
	mode := h.NetworkMode
	if (mode.IsHost() || mode.IsNone()) && (len(h.PortBindings) > 0 || h.PublishAllPorts) {
		return []string{fmt.Sprintf("Published ports are discarded when using %s network mode", mode)}
	}
	return nil
}

// Discard drops the limits that cgroup v2 does not have, with Docker's words.
func Discard(h *wire.HostConfig, cgroup2 bool) (warnings []string) {
	if !cgroup2 {
		return nil
	}
	if h.MemorySwappiness != nil {
		h.MemorySwappiness = nil
		warnings = append(warnings, "Your kernel does not support memory swappiness capabilities, or the cgroup is not mounted. Memory swappiness discarded.")
	}
	if *h.OomKillDisable {
		h.OomKillDisable = new(bool)
		warnings = append(warnings, "Your kernel does not support OomKillDisable. OomKillDisable discarded.")
	}
	return warnings
}

// DiscardSwap drops the limit of swap where the kernel does not count it, with
// Docker's words.
func DiscardSwap(h *wire.HostConfig, counted bool) (warnings []string) {
	if counted || h.Memory == 0 || h.MemorySwap == -1 {
		return nil
	}
	h.MemorySwap = -1
	return []string{"Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."}
}

// limitWarnings are Docker's words about limits that can do harm.
func limitWarnings(h *wire.HostConfig) []string {
	if *h.OomKillDisable && h.Memory == 0 {
		return []string{"OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."}
	}
	return nil
}

// platformWarnings are Docker's words about an image that this machine may not
// be able to run, and nobody asked for.
func platformWarnings(img catalog.Image, wanted string) []string {
	own, machine, foreign := img.Foreign()
	if wanted != "" || !foreign {
		return nil
	}
	return []string{fmt.Sprintf("The requested image's platform (%s) does not match the detected host platform (%s) and no specific platform was requested", own, machine)}
}
