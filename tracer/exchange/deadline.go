package exchange

import "time"

// deadline returns when the exchange is over, if a response that was seen has arrived.
func (ex *open) deadline(timeout time.Duration) int64 {
	if ex.responded && (ex.reported == 0 || ex.last > ex.reported) || ex.ended && ex.reported == 0 {
		if ex.transfers() {
			return ex.last + int64(transferLinger)
		}
		return ex.last + int64(linger)
	}
	return ex.silent(timeout)
}

// silent returns when the exchange is over, if no response arrives.
func (ex *open) silent(timeout time.Duration) int64 {
	due := ex.lastQuery + int64(timeout+grace)
	if ex.reported != 0 {
		return max(due, ex.reported+int64(ex.remembered()))
	}
	return due
}

// hurry brings the end of an exchange forward: an answered one is over soon, long
// before its timeout.
func (t *Table) hurry(ex *open) {
	if due := ex.deadline(t.cfg.Timeout); due < t.due[ex.index].At {
		t.look(ex, due)
	}
}

// news tells whether something came since it was passed on.
func (ex *open) news() bool { return ex.reported == 0 || ex.last > ex.reported }

// remembered returns how long it is remembered after it was passed on without a
// response. An attempt to connect is as long as its connection is: Linux repeats its
// SYN after up to a minute.
func (ex *open) remembered() time.Duration {
	if ex.connects && ex.reset == nil {
		return connIdle
	}
	return late
}

// tells tells whether there is something to report. An attempt to connect that
// succeeded is no exchange, nor is one that was given up at once: its first SYN is not
// even repeated.
func (t *Table) tells(ex *open) bool {
	if !ex.news() {
		return false
	}
	if !ex.connects || ex.reported != 0 {
		return true
	}
	return (len(ex.drops) > 0 || ex.reset != nil || ex.sendings > 1 || ex.icmp != nil) && !t.answered(ex)
}
