package firewall

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A container with hundreds of ports changes as many elements. So these go to the
// kernel as they are appended here, in one pass, and by one socket that stays
// open: to close one waits until the kernel has freed what was deleted, a grace
// period of 7 to 15 ms, while the elements are out of use as soon as it answers.

// elementsPerMessage keeps a list of elements below the 64 KiB that a netlink
// attribute can hold.
const elementsPerMessage = 400

const elementKeyEnd = 10 // NFTA_SET_ELEM_KEY_END

// Change takes elements out of the tables and adds others.
func (f *Firewall) Change(remove, add []Element) error {
	if len(remove)+len(add) == 0 {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	hooks := slices.DeleteFunc(slices.Clone(add), func(e Element) bool { return !e.hook || !f.made[Netdev] })
	beside := func(e Element) bool { return e.hook || (e.Family == Netdev || f.made != nil) && !f.made[e.Family] }
	remove, add = slices.DeleteFunc(slices.Clone(remove), beside), slices.DeleteFunc(slices.Clone(add), beside)
	for i := range remove {
		if remove[i].device != "" { // the key tells, and the interface may be gone
			remove[i].device, remove[i].value = "", nil
		}
	}
	var batch []netlink.Message
	batch = f.appendElements(batch, unix.NFT_MSG_DELSETELEM, 0, remove)
	batch = f.appendElements(batch, unix.NFT_MSG_NEWSETELEM, netlink.Create, add)
	if err := f.commit(batch); err != nil {
		return fmt.Errorf("change the nftables tables %s: %w", f.name, err)
	}
	f.addHooks(hooks)
	return nil
}

// appendElements appends messages with the elements, set by set.
func (f *Firewall) appendElements(batch []netlink.Message, typ uint16, flags netlink.HeaderFlags, elements []Element) []netlink.Message {
	type place struct {
		family Family
		set    string
	}
	bySet := map[place][]Element{}
	var order []place
	for _, e := range elements {
		at := place{e.Family, e.Set}
		if bySet[at] == nil {
			order = append(order, at)
		}
		bySet[at] = append(bySet[at], e)
	}
	for _, at := range order {
		for part := range slices.Chunk(bySet[at], elementsPerMessage) {
			b := []byte{byte(at.family), unix.NFNETLINK_V0, 0, 0}
			b = appendText(b, unix.NFTA_SET_ELEM_LIST_TABLE, f.name)
			b = appendText(b, unix.NFTA_SET_ELEM_LIST_SET, at.set)
			b, list := begin(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			for _, e := range encode(part) {
				var one int
				b, one = begin(b, unix.NFTA_LIST_ELEM)
				b = appendData(b, unix.NFTA_SET_ELEM_KEY, e.Key)
				b = appendData(b, elementKeyEnd, e.KeyEnd)
				b = appendData(b, unix.NFTA_SET_ELEM_DATA, e.Val)
				if e.IntervalEnd {
					b = appendAttribute(b, unix.NFTA_SET_ELEM_FLAGS, []byte{0, 0, 0, unix.NFT_SET_ELEM_INTERVAL_END})
				}
				end(b, one)
			}
			end(b, list)
			batch = append(batch, netlink.Message{Header: netlink.Header{
				Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | typ), Flags: netlink.Request | netlink.Acknowledge | flags}, Data: b})
		}
	}
	return batch
}

// commit has the kernel carry out all of the messages or none.
func (f *Firewall) commit(batch []netlink.Message) (err error) {
	if len(batch) == 0 {
		return nil
	}
	if f.conn == nil {
		if f.conn, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
			return err
		}
	}
	defer func() {
		if err != nil { // there may be more answers
			f.closeLocked()
		}
	}()
	size := 0
	for _, m := range batch {
		size += len(m.Data) + 64
	}
	if size > f.room { // the kernel takes a transaction in one message
		if err := f.conn.SetWriteBuffer(2 * size); err != nil {
			return err
		}
		f.room = size
	}
	edge := func(typ netlink.HeaderType) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: typ, Flags: netlink.Request}, Data: []byte{0, 0, 0, unix.NFNL_SUBSYS_NFTABLES}}
	}
	all := append([]netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}, batch...)
	if _, err := f.conn.SendMessages(append(all, edge(unix.NFNL_MSG_BATCH_END))); err != nil {
		return err
	}
	for range batch {
		if _, err := f.conn.Receive(); err != nil {
			return err
		}
	}
	return nil
}

// Close closes what Change has opened.
func (f *Firewall) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closeLocked()
}

func (f *Firewall) closeLocked() {
	if f.conn != nil {
		f.conn.Close()
	}
	f.conn, f.room = nil, 0
}

// appendAttribute appends an attribute with its padding.
func appendAttribute(b []byte, typ uint16, data []byte) []byte {
	b, at := begin(b, typ&^unix.NLA_F_NESTED)
	binary.NativeEndian.PutUint16(b[at+2:], typ)
	b = append(b, data...)
	end(b, at)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func appendText(b []byte, typ uint16, text string) []byte {
	return appendAttribute(b, typ, append([]byte(text), 0))
}

// appendData appends a value as sets have them; none is none.
func appendData(b []byte, typ uint16, value []byte) []byte {
	if len(value) == 0 {
		return b
	}
	b, at := begin(b, typ)
	b = appendAttribute(b, unix.NFTA_DATA_VALUE, value)
	end(b, at)
	return b
}

// begin appends the head of an attribute that holds others, end fills in its
// length.
func begin(b []byte, typ uint16) (_ []byte, at int) {
	return binary.NativeEndian.AppendUint16(append(b, 0, 0), typ|unix.NLA_F_NESTED), len(b)
}

func end(b []byte, at int) { binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at)) }
