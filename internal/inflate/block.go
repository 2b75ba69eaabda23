package inflate

import (
	"encoding/binary"
	"io"
)

const (
	history = 32 << 10 // how far back a match may reach
	fresh   = 96 << 10 // what is put out in one piece, at most
)

// decoder turns blocks of deflate, RFC 1951, into bytes.
//
//	window:  history  | put out, not yet read | room
//	         0 ... base?        start           end
type decoder struct {
	source source
	in     []byte // what source holds, from pos on not taken
	pos    int
	bits   uint64 // taken from in, not used up; what is above the n lowest is zero
	n      uint64

	window [history + fresh + outRoom]byte
	base   int // where the stream begins, 0 when that has left the window
	end    int

	block  func(*decoder) error // what goes on, nil between blocks
	final  bool                 // the block is the last one
	stored int                  // bytes that a block without compression still has

	litCode, distCode code
	litSub, distSub   uint64 // masks of the further tables
	lit               [litTable]uint64
	dist              [distTable]uint64
}

// source is what of bufio.Reader is used.
type source interface {
	Buffered() int
	Peek(int) ([]byte, error)
	Discard(int) (int, error)
}

// begin makes ready for a stream that begins at the source's next byte.
func (d *decoder) begin() {
	d.base, d.block, d.final = d.end, nil, false
}

// room tells whether the window can take what one step of a block puts out.
func (d *decoder) room() bool { return d.end <= len(d.window)-outRoom }

// slide makes room in a window that was read to its end.
func (d *decoder) slide() {
	if keep := d.end - history; keep > 0 {
		copy(d.window[:history], d.window[keep:d.end])
		d.base, d.end = max(d.base-keep, 0), history
	}
}

// decode puts out until there is no more room: nil; the stream has ended:
// io.EOF; or it is damaged.
func (d *decoder) decode() error {
	for d.room() {
		if d.block == nil {
			if d.final {
				return io.EOF
			}
			if err := d.open(); err != nil {
				return err
			}
		}
		if err := d.block(d); err != nil {
			return err
		}
	}
	return nil
}

// more reads on in the source, at least one byte; io.EOF is that there is none.
func (d *decoder) more() error {
	d.giveBack()
	rest := len(d.in) - d.pos
	d.source.Discard(d.pos)
	d.in, d.pos = nil, 0
	_, err := d.source.Peek(rest + 1)
	d.in, _ = d.source.Peek(d.source.Buffered())
	if len(d.in) > rest {
		return nil
	}
	return err
}

// within says of the end of the source that it came too early.
func within(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// giveBack gives whole bytes that were taken back to the input.
func (d *decoder) giveBack() {
	d.pos -= int(d.n >> 3)
	d.n &= 7
	d.bits &= 1<<d.n - 1
}

// need takes bytes until there are k bits, at most 32.
func (d *decoder) need(k uint) error {
	for uint(d.n) < k {
		if d.pos == len(d.in) {
			if err := d.more(); err != nil {
				return within(err)
			}
			continue
		}
		d.bits |= uint64(d.in[d.pos]) << d.n
		d.n += 8
		d.pos++
	}
	return nil
}

// take uses up k bits that are there.
func (d *decoder) take(k uint) uint64 {
	v := d.bits & (1<<k - 1)
	d.bits >>= k
	d.n -= uint64(k)
	return v
}

// open reads the header of a block.
func (d *decoder) open() error {
	if err := d.need(3); err != nil {
		return err
	}
	d.final = d.take(1) == 1
	switch d.take(2) {
	case 0:
		return d.openStored()
	case 1:
		d.openFixed()
	case 2:
		if err := d.openDynamic(); err != nil {
			return err
		}
	default:
		return ErrCorrupt
	}
	d.litSub, d.distSub = 1<<d.litCode.sub-1, 1<<d.distCode.sub-1
	d.block = (*decoder).codes
	return nil
}

// openStored begins a block without compression, which begins at a whole byte
// with its length and the same inverted.
func (d *decoder) openStored() error {
	d.take(uint(d.n & 7))
	if err := d.need(32); err != nil {
		return err
	}
	v := d.take(32)
	if v>>16 != ^v&0xffff {
		return ErrCorrupt
	}
	d.stored = int(v & 0xffff)
	d.giveBack()
	d.block = (*decoder).copyStored
	return nil
}

// copyStored puts out what there is room for.
func (d *decoder) copyStored() error {
	for d.stored > 0 {
		if d.pos == len(d.in) {
			if err := d.more(); err != nil {
				return within(err)
			}
		}
		room := d.window[d.end:]
		k := copy(room[:min(len(room), d.stored)], d.in[d.pos:])
		d.pos, d.end, d.stored = d.pos+k, d.end+k, d.stored-k
		if !d.room() && d.stored > 0 {
			return nil
		}
	}
	d.block = nil
	return nil
}

// openFixed takes the codes of RFC 1951, section 3.2.6.
func (d *decoder) openFixed() {
	var lengths [numLit + numDist]uint8
	for i := range lengths {
		switch {
		case i < 144, 280 <= i && i < numLit:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 5
		}
	}
	d.codesOf(lengths[:numLit], lengths[numLit:])
}

// codesOf makes the tables of both codes.
func (d *decoder) codesOf(lit, dist []uint8) bool {
	d.litCode = code{table: d.lit[:], root: litBits}
	d.distCode = code{table: d.dist[:], root: distBits}
	return d.litCode.build(lit, litMeaning[:]) && d.distCode.build(dist, distMeaning[:])
}

// lengthOrder is the order in which the lengths of the lengths' codes come.
var lengthOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// openDynamic reads the codes of a block, RFC 1951, section 3.2.7.
func (d *decoder) openDynamic() error {
	if err := d.need(14); err != nil {
		return err
	}
	lits, dists, lens := int(d.take(5))+257, int(d.take(5))+1, int(d.take(4))+4
	if lits > 286 || dists > 30 {
		return ErrCorrupt
	}
	var order [19]uint8
	for _, symbol := range lengthOrder[:lens] {
		if err := d.need(3); err != nil {
			return err
		}
		order[symbol] = uint8(d.take(3))
	}
	var lengths [286 + 30]uint8
	all := lengths[:lits+dists]
	if err := d.readLengths(order[:], all); err != nil {
		return err
	}
	if !d.codesOf(all[:lits], all[lits:]) {
		return ErrCorrupt
	}
	// Every block has its end, so no more is read than that takes.
	d.litCode.min = max(d.litCode.min, uint(all[256]))
	return nil
}

// readLengths reads code lengths that are written in a code with the lengths of
// order.
func (d *decoder) readLengths(order, all []uint8) error {
	var table [1 << lenBits]uint64
	c := code{table: table[:], root: lenBits}
	if !c.build(order, lenMeaning[:]) {
		return ErrCorrupt
	}
	for i := 0; i < len(all); {
		e, err := d.next(&c)
		if err != nil {
			return err
		}
		symbol := uint8(e >> 32)
		if symbol < 16 {
			all[i] = symbol
			i++
			continue
		}
		var last uint8
		least, extra := 3, uint(2)
		switch {
		case symbol == 16 && i == 0:
			return ErrCorrupt
		case symbol == 16:
			last = all[i-1]
		case symbol == 17:
			extra = 3
		default:
			least, extra = 11, 7
		}
		if err := d.need(extra); err != nil {
			return err
		}
		repeat := least + int(d.take(extra))
		if repeat > len(all)-i {
			return ErrCorrupt
		}
		for range repeat {
			all[i] = last
			i++
		}
	}
	return nil
}

// next reads one symbol without the bits behind its code, and no more of the
// source than that takes.
func (d *decoder) next(c *code) (uint64, error) {
	k := c.min
	for {
		if err := d.need(k); err != nil {
			return 0, err
		}
		e := c.table[d.bits&(1<<c.root-1)]
		k = uint(e >> codeShift & 63)
		if e&isLink != 0 && uint32(e) >= special {
			e = c.table[e>>32+d.bits>>c.root&(1<<c.sub-1)]
			k += uint(e >> codeShift & 63)
		}
		if k > uint(d.n) {
			continue
		}
		if uint32(e) >= special && e&isEnd == 0 {
			return 0, ErrCorrupt
		}
		d.take(k)
		return e, nil
	}
}

// codes puts out a block of codes, as far as there is room.
func (d *decoder) codes() error {
	for d.room() {
		var ended bool
		var err error
		if len(d.in)-d.pos >= inRoom {
			ended, err = d.fast()
		} else {
			ended, err = d.careful()
		}
		if err != nil {
			return err
		}
		if ended {
			d.block = nil
			return nil
		}
	}
	return nil
}

// careful reads a literal, a match, or the end of the block.
func (d *decoder) careful() (ended bool, err error) {
	e, err := d.next(&d.litCode)
	if err != nil {
		return false, err
	}
	if uint32(e) >= special {
		return true, nil
	}
	if uint32(e) < firstMatch {
		d.window[d.end] = byte(e >> 32)
		d.end++
		return false, nil
	}
	more := uint(e&63 - e>>codeShift&63)
	if err := d.need(more); err != nil {
		return false, err
	}
	length := int(uint32(e)>>lengthShift) + int(d.take(more))
	f, err := d.next(&d.distCode)
	if err != nil {
		return false, err
	}
	more = uint(f&63 - f>>codeShift&63)
	if err := d.need(more); err != nil {
		return false, err
	}
	dist := int(uint32(f)>>distShift) + int(d.take(more))
	if dist > d.end-d.base {
		return false, ErrCorrupt
	}
	for range length {
		d.window[d.end] = d.window[d.end-dist]
		d.end++
	}
	return false, nil
}

// align drops what is not used of a byte, and tells whether the source has
// another one: io.EOF is that it has not.
func (d *decoder) align() error {
	d.take(uint(d.n & 7))
	d.giveBack()
	if d.pos < len(d.in) {
		return nil
	}
	return d.more()
}

// bytes takes the next bytes of the stream, all of p.
func (d *decoder) bytes(p []byte) error {
	for len(p) > 0 {
		if err := d.align(); err != nil {
			return within(err)
		}
		n := copy(p, d.in[d.pos:])
		p, d.pos = p[n:], d.pos+n
	}
	return nil
}

var le = binary.LittleEndian
