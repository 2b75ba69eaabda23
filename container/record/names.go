package record

import (
	"fmt"
	"math/rand/v2"
)

// Words for containers that nobody named: how it weighs, and who measured.
var (
	manners = []string{"airy", "balanced", "brief", "bright", "brisk", "buoyant", "calm", "clear", "compact", "crisp",
		"deft", "eager", "easy", "exact", "fair", "feathery", "fine", "fleet", "floating", "frugal", "gentle", "glad",
		"graceful", "handy", "honest", "keen", "lean", "level", "light", "lithe", "lucid", "mellow", "modest", "neat",
		"nimble", "patient", "placid", "plain", "poised", "precise", "quick", "quiet", "rapid", "ready", "serene",
		"sharp", "silent", "simple", "sleek", "slender", "slim", "small", "smooth", "sober", "spare", "steady", "still",
		"subtle", "supple", "sure", "swift", "tidy", "trim", "true", "vivid", "weightless", "willing", "wise"}
	people = []string{"ampere", "archimedes", "avogadro", "babbage", "becquerel", "bernoulli", "boltzmann", "borda", "boyle",
		"cavendish", "celsius", "chatelet", "coulomb", "curie", "delambre", "dalton", "eotvos", "euler", "fahrenheit", "faraday",
		"fermat", "fourier", "galileo", "gauss", "germain", "gilbert", "hertz", "hooke", "hopper", "huygens", "hypatia",
		"joule", "kelvin", "kepler", "khayyam", "kovalevskaya", "lagrange", "lalande", "laplace", "lavoisier", "leavitt",
		"lovelace", "mechain", "meitner", "mouton", "napier", "newton", "noether", "ohm", "pascal", "planck",
		"rankine", "roberval", "rutherford", "siemens", "somerville", "stevin", "talbot", "tesla", "torricelli",
		"volta", "watt", "weber", "zhangheng", "zu"}
)

// randomName makes a name that a person can remember; after some tries in
// vain, one with a number.
func randomName(try int) string {
	name := manners[rand.IntN(len(manners))] + "_" + people[rand.IntN(len(people))]
	if try >= 5 {
		name += fmt.Sprint(rand.IntN(1 << (2 * try)))
	}
	return name
}
