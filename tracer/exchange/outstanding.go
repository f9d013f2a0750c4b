package exchange

import "net/netip"

// pair is a client's host and a server, between which any number of queries may be
// outstanding: servers bound how many (dnsmasq's dns-forward-max).
type pair struct {
	client netip.Addr
	server netip.AddrPort
}

func (ex *open) pair() pair { return pair{ex.key.client.Addr(), ex.server} }

// waits notes that a query waits for its response, behind those that do already.
func (t *Table) waits(ex *open) {
	p := ex.pair()
	n := t.waiting[p]
	ex.waits, ex.outstanding = true, int32(n)
	t.waiting[p] = n + 1
}

// waitsNoMore notes that a query has a response, or is given up.
func (t *Table) waitsNoMore(ex *open) {
	if !ex.waits {
		return
	}
	ex.waits = false
	p := ex.pair()
	if n := t.waiting[p]; n > 1 {
		t.waiting[p] = n - 1
	} else {
		delete(t.waiting, p)
	}
}
