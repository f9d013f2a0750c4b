// Package origin identifies the client to which a lookup is charged where clients share a
// limited resource. What a client can choose freely must not make it many clients: the place
// that its query came from counts before the content of its packets.
package origin

import (
	"net/netip"
	"strings"

	"github.com/dnstrace/dnstrace/trace"
	"github.com/dnstrace/dnstrace/tracer/oneline"
)

// Place is where queries come from: the network namespace of a client on this node,
// or the device by which the queries of other nodes' clients came, and the node whose
// tunnel carried them. The zero Place is that of lookups of which no packet was seen.
type Place struct {
	trace.Place
	Device string     // empty where the client is in the namespace
	Tunnel netip.Addr // source of the outer packet, if there was one
}

// Client is one of the clients at a place. It is comparable.
type Client struct {
	Place Place
	// Name distinguishes the clients of a place: its cgroup where the client is in the
	// namespace, which may be the node's own; else its address, which a sender can forge.
	Name string
}

// Holder returns the part of a client that it cannot multiply: its cgroup, in any network
// namespace, where one is known that is not the root; else its place.
func (c Client) Holder() Client {
	if c.Place.Device != "" || strings.Trim(c.Name, "/") == "" || c.Place == (Place{}) {
		return Client{Place: c.Place}
	}
	return Client{Place: Place{Place: trace.Place{Node: c.Place.Node}}, Name: c.Name}
}

// cgroupParts is how many parts of a cgroup's path name a client: down to a pod (below
// kubelet's slice, that of all pods and that of their class), or a service. Below that a
// client may be free to create cgroups, as a user below the user's own slice.
const (
	cgroupParts = 4
	ofUsers     = "/user.slice/"
	userParts   = 2
)

// Of returns the client of an exchange or a trace.
func Of(r trace.Record) Client {
	switch r := r.(type) {
	case *trace.Exchange:
		return ofExchange(r, r.Client)
	case *trace.Trace:
		switch {
		case r.Exchange != nil:
			return ofExchange(r.Exchange, r.Client)
		case r.Query != nil:
			return Client{Name: address(r.Query.ClientIP)}
		}
	}
	return Client{}
}

func ofExchange(e *trace.Exchange, who *trace.Endpoint) Client {
	if place, ok := e.ClientPlace(); ok {
		c := Client{Place: Place{Place: place}}
		if who != nil {
			c.Name = upper(who.Cgroup)
		}
		return c
	}
	c := Client{Name: address(e.ClientIP)}
	if e.Path.Len() > 0 {
		first := e.Path.At(0)
		c.Place = Place{Place: first.Place(), Device: first.IfName}
		if first.Tunnel != nil {
			c.Place.Tunnel = first.Tunnel.Src.Addr()
		}
	}
	return c
}

// upper returns the upper parts of a cgroup's path.
func upper(path string) string {
	end, parts := 0, cgroupParts
	if strings.HasPrefix(path, ofUsers) {
		parts = userParts
	}
	for range parts {
		next := strings.IndexByte(path[min(end+1, len(path)):], '/')
		if next < 0 {
			return path
		}
		end += 1 + next
	}
	return path[:end]
}

// Label names the client of an exchange or a trace for people: by its pod, else by its
// cgroup, else by its address. A cgroup's name may hold what a terminal or a log takes for
// more than text: that is replaced.
func Label(r trace.Record) string {
	var who *trace.Endpoint
	var ip netip.Addr
	switch r := r.(type) {
	case *trace.Exchange:
		who, ip = r.Client, r.ClientIP
	case *trace.Trace:
		who = r.Client
		switch {
		case r.Exchange != nil:
			ip = r.Exchange.ClientIP
		case r.Query != nil:
			ip = r.Query.ClientIP
		}
	}
	switch {
	case who == nil:
	case who.Pod != "":
		return who.Namespace + "/" + who.Pod
	case strings.Trim(who.Cgroup, "/") != "" && ip.IsValid():
		return oneline.Text(upper(who.Cgroup)) + " (" + ip.String() + ")"
	}
	return address(ip)
}

func address(ip netip.Addr) string {
	if !ip.IsValid() {
		return "unknown"
	}
	return ip.String()
}
