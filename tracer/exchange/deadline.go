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

// hurry shortens the deadline of an exchange: an answered one is over long before its
// timeout.
func (t *Table) hurry(ex *open) {
	if due := ex.deadline(t.cfg.Timeout); due < t.due[ex.index].At {
		t.look(ex, due)
	}
}

// news tells whether something came since it was passed on.
func (ex *open) news() bool { return ex.reported == 0 || ex.last > ex.reported }

// remembered returns how long an exchange is remembered after it was passed on without a
// response. An attempt to connect is for as long as its connection: Linux repeats its SYN
// after up to a minute.
func (ex *open) remembered() time.Duration {
	if ex.connects && ex.reset == nil {
		return connIdle
	}
	return late
}

// reports tells whether there is something to report. An attempt to connect that succeeded
// is no exchange, nor is one that was given up before its first SYN was repeated.
func (t *Table) reports(ex *open) bool {
	if !ex.news() {
		return false
	}
	if !ex.connects || ex.reported != 0 {
		return true
	}
	return (len(ex.drops) > 0 || ex.reset != nil || ex.sendings > 1 || ex.icmp != nil) && !t.answered(ex)
}
