package trace

import "time"

// OnClientClock returns a time of the server's records, its query and upstream
// exchanges, on the clock of the client's node. Records in a trace keep the time of
// their writer; only the packets of its exchange are on one clock. Without a
// ClockOffset both clocks are taken for one.
func (t *Trace) OnClientClock(server time.Time) time.Time {
	if t.ClockOffset == nil {
		return server
	}
	return server.Add(-t.ClockOffset.Duration())
}
