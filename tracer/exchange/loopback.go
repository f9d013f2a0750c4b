package exchange

import (
	"net/netip"

	"github.com/dnstrace/dnstrace/tracer/capture"
)

// loopbackOf returns the namespace of a packet with a loopback address (127.0.0.0/8, ::1),
// which is unique only within it: such a packet never leaves it. For other addresses, which
// identify an exchange in every namespace, it returns 0.
func loopbackOf(addr netip.AddrPort, p *capture.Packet) uint32 {
	if !addr.Addr().IsLoopback() {
		return 0
	}
	return p.NetNS
}

// maxSearches bounds how often a second the whole table is searched.
const maxSearches = 100

// inSomeNamespace returns the only open exchange that differs from k in its namespace alone,
// for a packet with loopback addresses whose namespace is unknown: a freed packet has no
// device any more, and often no socket.
func (t *Table) inSomeNamespace(k key) *open {
	if k.netns != 0 || !k.client.Addr().IsLoopback() || t.searches >= maxSearches {
		return nil
	}
	t.searches++
	var found *open
	for _, e := range t.due {
		ex := e.Item
		other := ex.key
		if other.netns = 0; other != k || ex.key.netns == 0 {
			continue
		}
		if found != nil {
			return nil
		}
		found = ex
	}
	return found
}
