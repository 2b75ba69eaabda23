package inflate

import "math/bits"

// Widths of the tables, in bits of the stream. A code that is longer leads from
// its first bits to a table of its own behind the primary one.
const (
	maxCode  = 15 // bits of the longest code, RFC 1951, section 3.2.7
	litBits  = 11
	distBits = 8
	lenBits  = 7 // of the code that code lengths are written in: its longest

	numLit  = 288 // the last two stand for nothing
	numDist = 32  // and so here

	// At least two codes share the bits that lead to a further table.
	litTable  = 1<<litBits + numLit/2<<(maxCode-litBits)
	distTable = 1<<distBits + numDist/2<<(maxCode-distBits)
)

// An entry says what the next bits of the stream mean:
//
//	bits  0..5   bits used up, those behind the code included
//	bits  8..13  bits of the code
//	bits 14..18  mask of the bits that add to a length
//	bits 19..27  length of a match, less those; of a distance 16..30
//	bits 28..31  what is neither literal nor match: the kinds below
//	bits 32..    a literal; of a distance the mask of the bits that add to it;
//	             of a link where the further table begins
//
// So the low half of a literal is below firstMatch, and of nothing else.
const (
	codeShift   = 8
	maskShift   = 14
	lengthShift = 19
	distShift   = 16

	firstMatch = 1 << lengthShift
	special    = 1 << 31 // one of the next two, or a code that is none
	isEnd      = 1 << 28
	isLink     = 1 << 29

	perBit = 1 | 1<<codeShift // of a code
)

// What the symbols mean, RFC 1951, section 3.2.5, as entries without a code.
var (
	litMeaning  = litMeanings()
	distMeaning = distMeanings()
	lenMeaning  = lenMeanings()
)

func litMeanings() (m [numLit]uint64) {
	for i := range 256 {
		m[i] = uint64(i) << 32
	}
	m[256] = special | isEnd
	length := uint64(3)
	for i := 257; i < 285; i++ {
		extra := uint64(max(0, (i-261)/4))
		m[i] = extra | (1<<extra-1)<<maskShift | length<<lengthShift
		length += 1 << extra
	}
	m[285] = 258 << lengthShift
	m[286], m[287] = special, special
	return m
}

func distMeanings() (m [numDist]uint64) {
	dist := uint64(1)
	for i := range 30 {
		extra := uint64(max(0, (i-2)/2))
		m[i] = extra | dist<<distShift | (1<<extra-1)<<32
		dist += 1 << extra
	}
	m[30], m[31] = special, special
	return m
}

func lenMeanings() (m [19]uint64) {
	for i := range m {
		m[i] = uint64(i) << 32
	}
	return m
}

// code is a prefix code, made ready for reading.
type code struct {
	table []uint64 // the primary table and those that it links to
	root  uint     // width of the primary one
	sub   uint     // and of the others
	min   uint     // bits of the shortest code
}

// build makes the tables for the codes of these lengths, whose symbols have
// these meanings. It refuses sets of lengths that leave bits without a meaning
// or give them two; as zlib does, it takes none at all and a single one of one
// bit, whose other bit is invalid.
func (c *code) build(lengths []uint8, meaning []uint64) bool {
	var count [maxCode + 2]int
	for _, n := range lengths {
		count[n&maxCode]++
	}
	count[0] = 0
	var sorted [numLit]uint16 // symbols by length
	var next [maxCode + 2]int
	shortest, longest, used := uint(0), uint(0), 0
	for n := uint(1); n <= maxCode; n++ {
		next[n+1] = next[n] + count[n]
		used = used<<1 + count[n]
		if count[n] > 0 {
			longest = n
			if shortest == 0 {
				shortest = n
			}
			if used > 1<<n {
				return false
			}
		}
	}
	used >>= maxCode - longest
	if longest > 0 && used != 1<<longest && (used != 1 || longest != 1) {
		return false
	}
	for symbol, n := range lengths {
		if n &= maxCode; n > 0 {
			sorted[next[n]] = uint16(symbol)
			next[n]++
		}
	}
	c.min, c.sub = shortest, longest-min(longest, c.root)
	c.fill(sorted[:next[maxCode]], &count, meaning)
	return true
}

// fill enters the symbols, sorted by the length of their code. Codes are read
// from their highest bit, so the code that indexes a table is mirrored.
func (c *code) fill(sorted []uint16, count *[maxCode + 2]int, meaning []uint64) {
	t := c.table
	t[0] = special
	at := 0 // the mirrored code
	i := 0
	for n := uint(1); n <= c.root; n++ {
		size := 1 << (n - 1)
		copy(t[size:2*size], t[:size])
		for range count[n] {
			t[at] = meaning[sorted[i]] + uint64(n)*perBit
			at = successor(at, n)
			i++
		}
	}
	end := 1 << c.root // of the tables so far
	prefix := -1
	for n := c.root + 1; n <= maxCode; n++ {
		for range count[n] {
			if p := at & (1<<c.root - 1); p != prefix {
				prefix = p
				t[p] = special | isLink | uint64(c.root)*perBit | uint64(end)<<32
				end += 1 << c.sub
			}
			e := meaning[sorted[i]] + uint64(n-c.root)*perBit
			for j := end - 1<<c.sub + at>>c.root; j < end; j += 1 << (n - c.root) {
				t[j] = e
			}
			at = successor(at, n)
			i++
		}
	}
}

// successor is the mirrored code of n bits that follows one which is not the last.
func successor(code int, n uint) int {
	bit := 1 << bits.Len(uint(code^(1<<n-1))) >> 1
	return code&(bit-1) | bit
}
