package exchange

// pair returns a hash of a client's host and a server, between which any number of queries may
// be outstanding: servers bound how many (dnsmasq's dns-forward-max).
func (ex *open) pair() uint64 {
	return mix(hashAddr(ex.key.client.Addr()), hashAddr(ex.server.Addr())^uint64(ex.server.Port()))
}

// waits notes that a query waits for its response, behind those that do already.
func (t *Table) waits(ex *open) {
	ex.waiting = ex.pair()
	n := t.waiting[ex.waiting]
	ex.waits, ex.outstanding = true, int32(n)
	t.waiting[ex.waiting] = n + 1
}

// waitsNoMore notes that a query has a response, or is given up.
func (t *Table) waitsNoMore(ex *open) {
	if !ex.waits {
		return
	}
	ex.waits = false
	if n := t.waiting[ex.waiting]; n > 1 {
		t.waiting[ex.waiting] = n - 1
	} else {
		delete(t.waiting, ex.waiting)
	}
}
