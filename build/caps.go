package build

import (
	"slices"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"

	"github.com/tarehq/tare/fault"
)

// notDone is what BuildKit has words for, and is refused by name here.
var notDone = []apicaps.CapID{
	pb.CapSourceGitSignatureVerify, pb.CapSourceGitBundle, pb.CapSourceGitCheckoutBundle, pb.CapSourceHTTPSignatureVerify,
	pb.CapSourceImageBlob, pb.CapSourcePolicy, pb.CapSourcePolicySession, pb.CapExecMetaNetworkProxy, pb.CapRemoteCacheGHA,
}

// Caps are what definitions may ask for, as front ends and clients are told.
func Caps() []*apicaps.PBCap {
	return slices.DeleteFunc(pb.Caps.All(), func(c *apicaps.PBCap) bool { return slices.Contains(notDone, apicaps.CapID(c.ID)) })
}

var canDo = pb.Caps.CapSet(Caps())

// able refuses an operation that asks for what is not done here.
func able(meta *pb.OpMetadata) error {
	for id, wanted := range meta.GetCaps() {
		if !wanted {
			continue
		}
		if err := canDo.Supports(apicaps.CapID(id)); err != nil {
			return fault.New(fault.NotImplemented, "the build asks for what is not supported here: %w", err)
		}
	}
	return nil
}
