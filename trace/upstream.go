package trace

// Exchanges returns the exchanges of an attempt in order, the one that ended it last.
func (u *Upstream) Exchanges() []*Exchange {
	var all []*Exchange
	for _, ex := range u.Earlier {
		if ex != nil { // a record that somebody else wrote
			all = append(all, ex)
		}
	}
	if u.Exchange != nil {
		all = append(all, u.Exchange)
	}
	return all
}
