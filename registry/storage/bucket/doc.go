// Package bucket keeps a registry's storage in an S3-compatible bucket that any
// number of registries serve at the same time, with no other service between
// them. The server has to be strongly consistent, listings included, and to
// know conditional writes (If-None-Match: * and If-Match on PUT), which Open
// checks. Below the prefix of the configuration lie
//
//	format                                     {"version":1}
//	syncs, ready                               records of others (Record); what Ready writes
//	data/COPY/state                            what becomes of a copy of a blob: record, in JSON
//	data/COPY/OBJECT                           its bytes, or those of an upload that are no part yet
//	digests/sha256-HEX/COPY                    an empty object: where to look for a blob by its digest
//	repos/NAME!/blobs/sha256-HEX/REF           an empty object: the repository has the blob, from the copy that REF names
//	repos/NAME!/manifests/sha256-HEX           a header in JSON, a line feed, the manifest
//	repos/NAME!/referrers/sha256-HEX/REFERRER  an empty object: the repository's manifests with that subject
//	repos/NAME!/tags/TAG                       the descriptor of what it points to
//
// COPY, and the last part of REF and REFERRER, is random: such a name is never
// used twice, so whoever deletes it late deletes nothing else. "!" comes before
// everything that a repository's name is made of, so a listing has the
// repositories in the order of their names.
//
// # Names that change hands
//
// A state, a manifest and a tag are changed by compare-and-swap alone: a PUT on
// condition that the object is the one that was read. DELETE decides nothing, as
// few servers take conditions there. What goes is overwritten by nothing, an
// empty object, which a collection removes where the server has a conditional
// DELETE and which stays otherwise. Contents that a reader must not see twice
// have a random word in them, so that equal ETags are equal histories.
//
// # The life of a copy
//
//	uploading ──Commit──> live <──────> condemned ──> dead ──> deleted
//	    └────────────────Cancel, Collect─────────────────^
//
// The state is there before the first byte, and is the upload: its parts, the
// state of the hash, the object that has the bytes since the last part. An
// upload is saved when Append returns, so that the next request may reach another
// registry, or the same after kill -9. A blob under partSize is never copied:
// the object with its bytes becomes the blob.
//
// Of two pushes of a blob the second finds the copy of the first by its digest
// and drops its own. Two that end in the same moment at different registries may
// both stay; that costs space and nothing else, as a reference names its copy.
//
// # Why no blob is lost
//
// Whoever refers to a copy (Commit, Mount, PutManifest) writes the reference, then
// reads the state. Live: done. Condemned: swap it to live. Otherwise the
// reference is taken back and the blob is missing. A collector that finds a copy
// without references swaps it to condemned, lists all references, swaps it back
// if there is one, and else swaps it from its own condemnation to dead. If the
// reference was written before the condemnation, the listing has it. If it was
// written later, its writer reads condemned or dead: then either its swap comes
// first and the collector's fails, or the collector's does and the writer knows.
// A reference that takes the place of another (a manifest is deleted: its blobs
// become due from then on) is written in the same way before the first goes.
//
// A manifest is first promised: PutManifest writes a promise under its name, then
// the references of its blobs, and swaps the promise for the manifest. A
// collector takes a reference of a manifest for waste when it listed the
// reference and sees no object of that manifest afterwards; then the promise was
// broken before, and the swap fails. So a manifest that is there has its
// references. Tags come last, those that must not change first; then the manifest
// is looked at again, since somebody may have deleted it before its tags could be
// seen. DeleteManifest takes the tags, then the manifest, then the tags again.
// ExpireManifest, which must not take a tag along, marks the manifest first: who
// sees the mark after setting a tag puts the manifest again, and that unmarks it.
// So does DeleteManifest where a tag may be one that must not go, and whoever tells
// a client of the manifest (KeepManifest) unmarks it in the same way.
//
// A process that ends in between leaves a reference, a promise or a copy that the
// next two collections remove, never a manifest without its blobs. Of several
// tags in one PutManifest, which was not acknowledged then, some may be set.
//
// # Time
//
// Only the grace period asks for the time, and it is the bucket's on both sides:
// Last-Modified against the Date of its answers. A blob that is found and whose
// youngest reference is older than a quarter of Config.Grace gets a new one.
// What is remembered between requests is where a blob lies, for an eighth of
// the grace, at most half a minute: so long may another registry's DeleteBlob take
// to show. Manifests and tags are asked for each time (If-None-Match, so that
// known bytes do not travel). Collect therefore waits for up to one and a half times
// the grace it is given.
package bucket
