package render

import (
	"fmt"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
)

// head says what was asked, with what result and why, by whom and of whom.
func (d *drawing) head(t *trace.Trace, p *places) {
	more := d.title(t)
	if !d.reported {
		d.cause(t, p)
	}
	d.out.WriteByte('\n')
	for _, x := range more {
		d.entry(x.name, x.parts)
	}
	about := []string{t.Time.UTC().Format("2006-01-02 15:04:05.000000 UTC")}
	if q := question(t); q != nil {
		about = append(about, clean(q.Protocol))
		if !q.Connects() {
			about = append(about, fmt.Sprintf("DNS ID %#04x", q.ID))
		}
		if q.Operation() != "" {
			about = append(about, "no lookup: the name is the zone's, of type "+clean(t.QType))
		}
	}
	d.entry("time", about)
	d.entry(asker(t), client(t, p))
	if server := serverAddress(t); server != "" {
		d.entry("asked", []string{server})
	}
	role := placeServer
	switch {
	case t.Role == trace.RoleUpstream:
		role = placeUpstream
	case t.Query != nil:
		role = placeCoreDNS
	}
	if about := who(t.Server, p, role); len(about) > 0 {
		d.entry(role, about)
	}
	for _, x := range p.list {
		if x.name != asker(t) && x.name != role {
			d.entry(x.name, []string{p.describe(x.Place, x.alias)})
		}
	}
	if parts := answer(t.Exchange); len(parts) > 0 {
		d.entry("answer", parts)
	}
	d.entry("trace", []string{t.TraceID.String()})
	if t.Resolution != "" {
		d.entry("part of", []string{"resolution " + clean(t.Resolution)})
	}
}

// fact is a line of the head: a name, and what there is to say of it.
type fact struct {
	name  string
	parts []string
}

// title is one line: what was asked, and the result. It returns what it has no room for.
func (d *drawing) title(t *trace.Trace) []fact {
	const least = 20 // columns of a name that is cut
	var more []fact
	name := asked(t)
	if t.Exchange != nil && t.Exchange.Connects() {
		name += " to " + endpoint(t.Exchange.ServerIP, t.Exchange.ServerPort)
	}
	result, tn := verdict(t)
	result = fit(result, d.width-least-2)
	if room := d.width - columns(result) - 2; columns(name) > room {
		more = append(more, fact{"name", []string{name}})
		name = fitMiddle(name, room)
	}
	line := d.paint(strong, name) + "  " + d.paint(tn, result)
	if about := circumstances(t); len(about) > 0 {
		text := " (" + strings.Join(about, ", ") + ")"
		if columns(name)+2+columns(result)+columns(text) <= d.width {
			line += d.paint(tn, text)
		} else {
			more = append(more, fact{"result", about})
		}
	}
	d.line(line)
	return more
}

// asked is what a lookup asked for: name and type.
func asked(t *trace.Trace) string {
	name, _ := nameCell(t)
	return strings.TrimSpace(clean(name) + " " + clean(kind(t)))
}

// entry writes one line of the head: a name, and what there is to say of it.
func (d *drawing) entry(name string, parts []string) {
	leader := " " + pad(fit(name, placeColumns), placeColumns) + " "
	for i := range parts {
		parts[i] = clean(parts[i])
	}
	for _, line := range wrapParts(parts, " · ", d.width-columns(leader)) {
		d.line(d.paint(faint, leader) + line)
		leader = strings.Repeat(" ", columns(leader))
	}
}

// circumstances sums up how the answer came about.
func circumstances(t *trace.Trace) []string {
	var parts []string
	if q := t.Query; q != nil && q.Cache != "" && q.Cache != trace.CacheNone {
		parts = append(parts, "cache "+clean(q.Cache))
	}
	switch total, failed := attempts(t); {
	case failed > 0:
		parts = append(parts, fmt.Sprintf("upstream: %d tried, %d failed", total, failed))
	case total > 0 && t.Query == nil:
		parts = append(parts, fmt.Sprintf("upstream: %d asked", total))
	}
	if e := t.Exchange; e != nil && e.Transmissions > 1 {
		parts = append(parts, fmt.Sprintf("sent %d times", e.Transmissions))
	}
	if e := t.Exchange; e != nil && e.Truncated {
		parts = append(parts, "truncated")
	}
	return parts
}

// attempts counts what was tried upstream, and what of it failed.
func attempts(t *trace.Trace) (total, failed int) {
	for _, u := range t.Upstreams {
		total++
		if u.Failed() {
			failed++
		}
	}
	if total == 0 && t.Query != nil {
		for _, a := range t.Query.Upstreams {
			total++
			if a.Failed() {
				failed++
			}
		}
	}
	return total, failed
}

// question returns the DNS fields of a trace, from whoever saw them.
func question(t *trace.Trace) *trace.DNS {
	switch {
	case t.Exchange != nil:
		return &t.Exchange.DNS
	case t.Query != nil:
		return &t.Query.DNS
	}
	return nil
}

// asker is who asked: the client, but for an upstream query whose lookup is not known.
func asker(t *trace.Trace) string {
	if t.Role == trace.RoleUpstream {
		return placeServer
	}
	return placeClient
}

func client(t *trace.Trace, p *places) []string {
	var parts []string
	if t.Role == trace.RoleUpstream {
		if t.Exchange != nil {
			parts = append(parts, endpoint(t.Exchange.ClientIP, t.Exchange.ClientPort))
		}
		parts = append(parts, who(t.Client, p, placeServer)...)
		return append(parts, "this is an upstream query of that server; its lookup is not known")
	}
	if t.Exchange == nil && t.Query == nil {
		return []string{"none: the server did this in the background"}
	}
	if q := question(t); q != nil {
		if a := endpoint(q.ClientIP, q.ClientPort); a != "" {
			parts = append(parts, a)
		}
	}
	if parts = append(parts, who(t.Client, p, placeClient)...); len(parts) == 0 {
		parts = []string{"unknown"}
	}
	return parts
}

// serverAddress returns the address that the client asked, and where that is a
// Service, the one behind it.
func serverAddress(t *trace.Trace) string {
	e := t.Exchange
	if e == nil {
		if t.Query == nil {
			return ""
		}
		return endpoint(t.Query.ServerIP, t.Query.ServerPort)
	}
	asked := endpoint(e.ServerIP, e.ServerPort)
	if n := e.NAT; n != nil && (n.ServerIP.IsValid() || n.ServerPort != nil) {
		ip, port := e.ServerIP, e.ServerPort
		if n.ServerIP.IsValid() {
			ip = n.ServerIP
		}
		if n.ServerPort != nil {
			port = *n.ServerPort
		}
		if to := endpoint(ip, port); to != asked {
			asked += translatedTo(e, to)
		}
	}
	return asked
}

// translatedTo goes on from an address with what it was translated to.
func translatedTo(e *trace.Exchange, to string) string {
	if e.NAT.Source == trace.NATConntrack || e.Server != nil && e.Server.Service != "" {
		return fmt.Sprintf(" (%s) → %s", serviceName(e), to)
	}
	return fmt.Sprintf(" → %s (%s)", to, translationWords(e.NAT.Source))
}

// serviceName is what a translated address is called: by name, if that is known.
func serviceName(e *trace.Exchange) string {
	if e.Server == nil || e.Server.Service == "" {
		return "Service"
	}
	return "Service " + clean(e.Server.Service)
}

// who names a side: pod, process, node, network namespace.
func who(e *trace.Endpoint, p *places, role string) []string {
	var parts []string
	if e != nil {
		if pod := podName(e); pod != "" {
			parts = append(parts, pod)
		}
		switch process := clean(e.Process); {
		case process != "" && e.PID != 0:
			parts = append(parts, fmt.Sprintf("%s[%d]", process, e.PID))
		case process != "":
			parts = append(parts, process)
		case e.PID != 0:
			parts = append(parts, fmt.Sprintf("pid %d", e.PID))
		}
		if e.Node != "" {
			parts = append(parts, "node "+clean(e.Node))
		}
	}
	for _, x := range p.list {
		if x.name == role {
			parts = append(parts, p.describe(x.Place, x.alias))
		}
	}
	return parts
}

// podName returns namespace/pod.
func podName(e *trace.Endpoint) string {
	if e == nil || e.Pod == "" {
		return ""
	}
	if e.Namespace == "" {
		return clean(e.Pod)
	}
	return clean(e.Namespace) + "/" + clean(e.Pod)
}
