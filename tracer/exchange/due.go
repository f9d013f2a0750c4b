package exchange

// SetIndex implements agenda.Item.
func (ex *open) SetIndex(i int) { ex.index = int32(i) }

// Before implements agenda.Item: those of one time are in no order.
func (ex *open) Before(*open) bool { return false }

// look says when to look at an exchange next.
func (t *Table) look(ex *open, at int64) {
	t.due.Move(int(ex.index), at)
}
