package upstream

import "sync/atomic"

// noun is what clients look for in copies.
type noun int

const (
	aTag noun = iota
	aManifest
	aBlob
	nouns
)

// result is where that was found.
type result int

const (
	hit   result = iota // here, without a word from upstream
	asked               // upstream was asked, and what it has fetched where it was not here
	stale               // here, as upstream did not answer
	results
)

var (
	nounNames   = [nouns]string{aTag: "tag", aManifest: "manifest", aBlob: "blob"}
	resultNames = [results]string{hit: "hit", asked: "asked", stale: "stale"}
)

// counts are those of one upstream.
type counts struct {
	looked   [nouns][results]atomic.Int64
	received atomic.Int64
}

func (c *counts) look(n noun, r result) { c.looked[n][r].Add(1) }

// Count is a number that only grows.
type Count struct {
	Upstream, Noun, Result string
	Value                  func() int64
}

// Lookups tells how often clients looked for what, by upstream, and whether it
// was here.
func (s *Storage) Lookups() (list []Count) {
	for _, p := range s.peers {
		for n := range nouns {
			for r := range results {
				list = append(list, Count{p.Name, nounNames[n], resultNames[r], p.counts.looked[n][r].Load})
			}
		}
	}
	return list
}

// Received tells how many bytes of blobs came, by upstream.
func (s *Storage) Received() (list []Count) {
	for _, p := range s.peers {
		list = append(list, Count{Upstream: p.Name, Value: p.counts.received.Load})
	}
	return list
}
