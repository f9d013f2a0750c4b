package top

// maxNames bounds the names that are distinguished at one upstream, in one part of the
// window: of others nothing is known.
const maxNames = 64

// names is how the queries for each name that an upstream was asked for ended.
type names map[string]nameCounts

type nameCounts struct{ answered, failed uint64 }

// add counts a query for a name.
func (n *names) add(name string, failed bool) {
	if *n == nil {
		*n = names{}
	}
	c, known := (*n)[name]
	if !known && len(*n) >= maxNames {
		return
	}
	if failed {
		c.failed++
	} else {
		c.answered++
	}
	(*n)[name] = c
}

func (n *names) merge(o names) {
	for name, c := range o {
		if *n == nil {
			*n = names{}
		}
		have := (*n)[name]
		(*n)[name] = nameCounts{have.answered + c.answered, have.failed + c.failed}
	}
}

// broken returns how many queries failed for names of which none was answered, if the
// upstream answers more names than it fails: then the names are broken, and it is not.
func (n names) broken() (failed uint64) {
	good, bad := 0, 0
	for _, c := range n {
		switch {
		case c.answered > 0:
			good++
		case c.failed > 0:
			bad++
			failed += c.failed
		}
	}
	if bad >= good {
		return 0
	}
	return failed
}
