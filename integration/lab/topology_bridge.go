package lab

// bridged is one bridge, with the Service translated by netfilter on the node.
func bridged() Topology { return Topology{Name: "bridge"} }

// flooding is a bridge that learns no addresses: what goes to one pod reaches all
// others too, client-b among them, whose devices receive it and whose stacks discard it.
func flooding() Topology {
	t := Topology{Name: "flooding-bridge"}
	t.node = func(l *Lab) error {
		never := uint32(0)
		return l.buildBridgeAgeing(&never)
	}
	return t
}

// targetPort is a Service on port 53 whose pods listen on another port.
func targetPort() Topology {
	return Topology{
		Name:      "target-port",
		Servers:   []DNSServer{{Host: CoreDNS, Port: 5353}},
		chainPort: 5353,
	}
}

// hostClient is a client in the node's own namespace: its queries are translated as
// they leave it.
func hostClient() Topology {
	return Topology{Name: "host-client", Client: Node, chain: NodeOutput}
}

// hostServer is CoreDNS with host networking.
func hostServer() Topology {
	return Topology{Name: "host-server", Servers: []DNSServer{{Host: Node, Port: 53}}, chain: NodeInput}
}

// hostBoth is a client and CoreDNS that share the node's own namespace.
func hostBoth() Topology {
	t := hostServer()
	t.Name, t.Client = "host-both", Node
	return t
}
