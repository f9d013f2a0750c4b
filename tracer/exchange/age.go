package exchange

import "time"

// age is the open exchanges in the order in which they were opened.
type age struct {
	oldest, newest *open
	backdated      int // how many began before they were opened
}

// neighbours of an exchange in the order of age.
type neighbours struct {
	elder, younger *open
	backdated      bool // it began before it was opened
}

func (a *age) begin(ex *open) {
	ex.age.elder = a.newest
	if a.newest = ex; ex.age.elder != nil {
		ex.age.elder.age.younger = ex
	} else {
		a.oldest = ex
	}
	if ex.first < ex.last {
		a.backdate(ex)
	}
}

// backdate notes that an exchange began earlier than when it was opened.
func (a *age) backdate(ex *open) {
	if !ex.age.backdated {
		ex.age.backdated = true
		a.backdated++
	}
}

func (a *age) end(ex *open) {
	n := &ex.age
	if n.elder != nil {
		n.elder.age.younger = n.younger
	} else {
		a.oldest = n.younger
	}
	if n.younger != nil {
		n.younger.age.elder = n.elder
	} else {
		a.newest = n.elder
	}
	if n.backdated {
		a.backdated--
	}
	*n = neighbours{}
}

// begunBy tells whether an exchange that had begun by a time may still be open: where all
// are answered, old ones are over.
func (a *age) begunBy(at time.Time) bool {
	return a.backdated > 0 || a.oldest != nil && !a.oldest.wall.After(at)
}
