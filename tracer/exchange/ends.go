package exchange

import "github.com/dnstrace/dnstrace/trace"

// endpoints keeps who asked or answered last once, for all records that name it. One that
// another takes the place of is made anew.
type endpoints [256]struct {
	who who
	of  *trace.Endpoint
}

// of returns who it is, which must not be changed; nil if nothing is known. Who is known by its
// process or cgroup is on this node.
func (known *endpoints) of(w *who, node string) *trace.Endpoint {
	if w.pid == 0 && w.cgroup == "" {
		return nil
	}
	at := &known[uint32(w.pid*31+w.tid)%uint32(len(known))]
	if at.of == nil || at.who != *w {
		at.who = *w
		at.of = &trace.Endpoint{
			Node: node, Process: w.process, PID: int(w.pid), TID: int(w.tid), Thread: w.thread, Cgroup: w.cgroup, Container: w.container,
		}
	}
	return at.of
}

// name fills in who the client and the server are.
func (t *Table) name(ex *open, r *trace.Exchange) {
	r.Client, r.Server = t.endpoints.of(&ex.client, t.cfg.Node), t.endpoints.of(&ex.serverProcess, t.cfg.Node)
}
