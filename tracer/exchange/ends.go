package exchange

import "github.com/dnstrace/dnstrace/trace"

// endpoints interns the endpoints that asked or answered last, for all records that name
// them. A collision evicts the older one.
type endpoints [256]struct {
	who who
	of  *trace.Endpoint
}

// of returns the endpoint, which must not be changed; nil if nothing is known. An endpoint
// whose process or cgroup is known is on this node.
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
